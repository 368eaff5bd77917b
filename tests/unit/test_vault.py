"""Secrets' encryption."""

import pytest

from sandpool_server.vault import Vault, new_key


def test_a_value_comes_back_and_is_not_to_be_seen() -> None:
    vault = Vault([new_key()])
    ciphertext = vault.encrypt("TOKEN", "hunter2 \N{SNOWMAN}")
    assert b"hunter2" not in ciphertext
    assert b"TOKEN" not in ciphertext
    assert vault.decrypt("TOKEN", ciphertext) == "hunter2 \N{SNOWMAN}"


def test_equal_values_have_different_ciphertexts() -> None:
    vault = Vault([new_key()])
    assert vault.encrypt("A", "same") != vault.encrypt("A", "same")


def test_a_ciphertext_cannot_be_passed_off_as_another_secret_s() -> None:
    vault = Vault([new_key()])
    with pytest.raises(ValueError, match="another secret's"):
        vault.decrypt("B", vault.encrypt("A", "value"))


def test_another_key_reads_nothing() -> None:
    ciphertext = Vault([new_key()]).encrypt("A", "value")
    with pytest.raises(ValueError, match="no key decrypts the secret 'A'"):
        Vault([new_key()]).decrypt("A", ciphertext)


def test_rotation_makes_the_old_key_unnecessary() -> None:
    old, new = new_key(), new_key()
    ciphertext = Vault([old]).encrypt("A", "value")
    rotated = Vault([new, old]).rotate(ciphertext)
    assert Vault([new]).decrypt("A", rotated) == "value"
    with pytest.raises(ValueError, match="a key that is not at hand"):
        Vault([new]).rotate(ciphertext)


@pytest.mark.parametrize("keys", [[], ["short"], ["not base64 at all, and of no use as a key!!"]])
def test_what_is_no_key_is_refused(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="key"):
        Vault(keys)
