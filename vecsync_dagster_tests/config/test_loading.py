"""Finding the file, reading it, and the environment variables that override it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vecsync_dagster.config import ENVIRONMENT, Config, find_config, load_config, parse_config
from vecsync_dagster.errors import ConfigError
from vecsync_dagster_tests.config.examples import VALID, changed

OVERRIDES = {
    "SYNC_MODE": ("full", "full", "ful"),
    "SYNC_PAGE": ("7", 7, "0"),
    "SYNC_BATCH": ("8", 8, "many"),
    "SYNC_PARALLEL": ("9", 9, "11"),
    "SYNC_SKIP_INVALID": ("false", False, "maybe"),
    "SYNC_VERIFY": ("counts", "counts", "all"),
    "SYNC_REPAIR": ("report", "report", "pay"),
    "VECSYNC_STATE": ("elsewhere", "elsewhere", " "),
}
"""Variable -> a value, what it means, and a value that is wrong."""

OTHER = (
    "sync: {mode: incremental, page: 1, batch: 1, parallel: 1, skip_invalid: true, "
    "verify: auto, repair: write}\nstate: here\n"
)


def value_at(config: Config, key: tuple[str, ...]) -> object:
    place: object = config
    for part in key:
        place = getattr(place, part)
    return place


class TestEnvironment:
    def test_every_override_is_tested(self) -> None:
        """The variables below are those that are documented."""
        assert set(OVERRIDES) == set(ENVIRONMENT)

    @pytest.mark.parametrize("variable", OVERRIDES)
    @pytest.mark.parametrize("written", ["nothing", "an empty key", "another value"])
    def test_overrides(self, monkeypatch: pytest.MonkeyPatch, variable: str, written: str) -> None:
        """A variable wins over the file, whether the file lacks the key, leaves it empty or has a value."""
        key = ENVIRONMENT[variable]
        rest = {"nothing": "", "an empty key": f"{key[0]}:\n", "another value": OTHER}[written]
        monkeypatch.setenv(variable, OVERRIDES[variable][0])
        assert value_at(parse_config(VALID + rest), key) == OVERRIDES[variable][1]

    @pytest.mark.parametrize("variable", OVERRIDES)
    def test_a_line_end_behind_it(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        """A line end or a byte order mark around a variable's value changes nothing."""
        monkeypatch.setenv(variable, f"\ufeff{OVERRIDES[variable][0]}\r\n")
        assert value_at(parse_config(VALID), ENVIRONMENT[variable]) == OVERRIDES[variable][1]

    @pytest.mark.parametrize("variable", OVERRIDES)
    def test_a_wrong_override_is_named(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        """A wrong value's message names the variable, because the file is not to blame."""
        monkeypatch.setenv(variable, OVERRIDES[variable][2])
        key = ".".join(ENVIRONMENT[variable])
        expected = rf"^vecsync\.yaml: {key} \(from the environment variable {variable}\): "
        with pytest.raises(ConfigError, match=expected):
            parse_config(VALID)

    @pytest.mark.parametrize("variable", OVERRIDES)
    def test_an_empty_variable_is_none(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        """A variable that is set to nothing changes nothing."""
        without = parse_config(VALID + OTHER)
        monkeypatch.setenv(variable, "")
        assert parse_config(VALID + OTHER) == without

    @pytest.mark.parametrize("text", ["", "- a\n", VALID + "sync: 5\n"])
    def test_an_override_hides_no_mistake(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        """What stands wrongly where an override would go is still refused."""
        monkeypatch.setenv("SYNC_MODE", "full")
        with pytest.raises(ConfigError, match=r"^vecsync\.yaml:\d"):
            parse_config(text)


class TestFinding:
    def test_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The option wins over VECSYNC_CONFIG, which wins over the file in this folder."""
        monkeypatch.chdir(tmp_path)
        for name in ("vecsync.yaml", "named.yaml", "option.yaml"):
            (tmp_path / name).write_text(VALID)
        assert find_config() == Path("vecsync.yaml")
        monkeypatch.setenv("VECSYNC_CONFIG", "named.yaml")
        assert find_config() == Path("named.yaml")
        assert find_config(Path("option.yaml")) == Path("option.yaml")

    def test_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without any file people are told the ways to give one."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=r"--config FILE or VECSYNC_CONFIG, or run `vecsync demo`"):
            find_config()

    def test_named_but_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that was named must be there: another one is not taken in its place."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "vecsync.yaml").write_text(VALID)
        with pytest.raises(ConfigError, match=r"^other\.yaml: no such configuration file$"):
            find_config(Path("other.yaml"))
        monkeypatch.setenv("VECSYNC_CONFIG", str(tmp_path))
        with pytest.raises(ConfigError, match="no such configuration file"):
            find_config()


class TestReading:
    def test_relative_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Relative paths start at the file's folder, from whatever folder vecsync is run."""
        (tmp_path / "conf").mkdir()
        (tmp_path / "conf/vecsync.yaml").write_text(VALID + "state: data/state\n")
        monkeypatch.chdir(tmp_path)
        config = load_config(Path("conf/vecsync.yaml"))
        assert config.folder == tmp_path / "conf"
        assert config.state_folder == tmp_path / "conf/data/state"
        assert config.path("../x") == tmp_path / "x"
        assert config.path("/x") == Path("/x")

    def test_from_text(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a file, relative paths start at the current folder."""
        monkeypatch.chdir(tmp_path)
        assert parse_config(VALID).state_folder == tmp_path / ".vecsync"

    def test_a_linked_file(self, tmp_path: Path) -> None:
        """Of a linked file, the folder of the link counts: Kubernetes mounts files so, from ever new folders."""
        (tmp_path / "..data_1").mkdir()
        (tmp_path / "..data_1/vecsync.yaml").write_text(VALID)
        (tmp_path / "vecsync.yaml").symlink_to("..data_1/vecsync.yaml")
        assert load_config(tmp_path / "vecsync.yaml").folder == tmp_path

    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`~` is the home folder."""
        monkeypatch.setenv("HOME", str(tmp_path))
        assert parse_config(VALID).path("~/x") == tmp_path / "x"

    def test_not_utf8(self, tmp_path: Path) -> None:
        """A file in another encoding is refused with the line of its first strange byte."""
        path = tmp_path / "vecsync.yaml"
        path.write_bytes(changed("table: works", "table: práce").encode("cp1250"))
        with pytest.raises(ConfigError, match=r"vecsync\.yaml:6: not UTF-8; save the file as UTF-8$"):
            load_config(path)

    def test_unreadable(self, tmp_path: Path) -> None:
        """What cannot be read at all is named, with the system's reason."""
        with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
            load_config(tmp_path)

    def test_messages_name_the_path(self, tmp_path: Path) -> None:
        """A mistake in a file is told with the path that the file was given by."""
        path = tmp_path / "vecsync.yaml"
        path.write_text(changed("source: db", "source: nowhere"))
        with pytest.raises(ConfigError) as refused:
            load_config(path)
        assert str(refused.value) == f"{path}:5: entities.works.source: there is no source 'nowhere'; valid is db"
        assert refused.value.code == "CONFIG_ERROR"
