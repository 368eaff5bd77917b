"""Where settings come from, and what is said of wrong ones."""

from pathlib import Path

import pytest

from sandpool_server.cli.main import main
from sandpool_server.settings import Settings


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sandpool.toml"
    file.write_text('address = "127.0.0.1:1"\npids_limit = 100\nready_timeout = 7\n')
    monkeypatch.setenv("SANDPOOL_SERVER_CONFIG", str(file))
    monkeypatch.setenv("SANDPOOL_SERVER_PIDS_LIMIT", "200")
    monkeypatch.setenv("SANDPOOL_SERVER_ADDRESS", "127.0.0.1:2")
    settings = Settings(address="127.0.0.1:3")
    assert (settings.address, settings.pids_limit, settings.ready_timeout) == ("127.0.0.1:3", 200, 7)


@pytest.mark.parametrize("address", ["50051", "host", "host:", ":1", "host:65536", "host:x"])
def test_a_wrong_address_is_told(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["serve", f"--address={address}"])
    assert "is not HOST:PORT" in str(error.value)


def test_each_wrong_setting_is_named() -> None:
    with pytest.raises(SystemExit) as error:
        main(["serve", "--pids-limit=1", "--log-level=loud"])
    assert "pids_limit: " in str(error.value)
    assert "log_level: " in str(error.value)


def test_a_settings_file_that_is_not_there_is_told() -> None:
    with pytest.raises(SystemExit) as error:
        main(["serve", "--config=/nonexistent.toml"])
    assert "there is no settings file '/nonexistent.toml'" in str(error.value)


def test_help_explains_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["serve", "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"SANDPOOL_SERVER_{name.upper()}" in text.replace("\n", ""), name
    assert "--secrets-keys" not in text, "a flag can be seen by every user of the machine"
