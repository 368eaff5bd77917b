"""Encryption of secrets."""

import pytest

from sandpool_server.vault import Vault, new_key


def test_decrypts_value_and_hides_it_in_ciphertext() -> None:
    vault = Vault([new_key()])
    ciphertext = vault.encrypt("TOKEN", "hunter2 \N{SNOWMAN}")
    assert b"hunter2" not in ciphertext
    assert b"TOKEN" not in ciphertext
    assert vault.decrypt("TOKEN", ciphertext) == "hunter2 \N{SNOWMAN}"


def test_equal_values_have_different_ciphertexts() -> None:
    vault = Vault([new_key()])
    assert vault.encrypt("A", "same") != vault.encrypt("A", "same")


def test_rejects_ciphertext_of_another_secret() -> None:
    vault = Vault([new_key()])
    with pytest.raises(ValueError, match="belongs to another secret"):
        vault.decrypt("B", vault.encrypt("A", "value"))


def test_rejects_ciphertext_of_another_key() -> None:
    ciphertext = Vault([new_key()]).encrypt("A", "value")
    with pytest.raises(ValueError, match="cannot decrypt the secret 'A'"):
        Vault([new_key()]).decrypt("A", ciphertext)


def test_rotated_ciphertext_does_not_need_old_key() -> None:
    old, new = new_key(), new_key()
    ciphertext = Vault([old]).encrypt("A", "value")
    rotated = Vault([new, old]).rotate(ciphertext)
    assert Vault([new]).decrypt("A", rotated) == "value"
    with pytest.raises(ValueError, match="cannot decrypt a secret"):
        Vault([new]).rotate(ciphertext)


@pytest.mark.parametrize("keys", [[], ["short"], ["not base64 at all, and of no use as a key!!"]])
def test_rejects_invalid_keys(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="key"):
        Vault(keys)
