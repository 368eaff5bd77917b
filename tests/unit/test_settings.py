"""Sources of settings, and messages for invalid settings."""

from pathlib import Path

import pytest

from sandpool_server.cli.main import main
from sandpool_server.settings import Settings


def test_option_overrides_environment_and_environment_overrides_file(
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
def test_rejects_invalid_address(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["serve", f"--address={address}"])
    assert "use HOST:PORT" in str(error.value)


def test_message_names_each_invalid_setting() -> None:
    with pytest.raises(SystemExit) as error:
        main(["serve", "--pids-limit=1", "--log-level=loud"])
    assert "pids_limit: " in str(error.value)
    assert "log_level: " in str(error.value)


def test_rejects_missing_settings_file() -> None:
    with pytest.raises(SystemExit) as error:
        main(["serve", "--config=/nonexistent.toml"])
    assert "the settings file '/nonexistent.toml' does not exist" in str(error.value)


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["serve", "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"SANDPOOL_SERVER_{name.upper()}" in text.replace("\n", ""), name
    assert "--secrets-keys" not in text, "command-line options are visible to all users of the machine"
