"""The command line as a whole: help, usage, and what merely listing commands costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vecsync_dagster_tests.cli.program import start, vecsync

GROUPS = {"ledger": "rebuild", "alerts": "list"}
COMMANDS = (
    "demo",
    "sync",
    "watch",
    "status",
    "invalid",
    "retry",
    "search",
    "check",
    "reconcile",
    "drop",
    "migrate",
    "export",
    "tenants",
    "install-triggers",
    "ui",
    "writeback",
    *GROUPS,
)


def test_help_lists_every_command() -> None:
    """`vecsync --help` names every command."""
    ran = vecsync("--help")
    assert ran.code == 0
    assert all(f" {command} " in ran.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """Each command says what it does and what its options mean."""
    ran = vecsync(command, "--help")
    assert ran.code == 0
    assert f"Usage: vecsync {command}" in ran.out
    assert "Options" in ran.out


@pytest.mark.parametrize("width", [50, 79, 80])
@pytest.mark.parametrize(
    "command", [(), ("health",), ("alerts", "list"), ("alerts", "test"), ("ledger", "rebuild"), *zip(COMMANDS)], ids=str
)
def test_help_cuts_no_name(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], width: int) -> None:
    """However narrow the terminal is: half an option's name is of no use."""
    monkeypatch.setenv("COLUMNS", "200")
    names = set(re.findall(r"(?<!\S)--[a-z-]+", vecsync(*command, "--help").out))
    monkeypatch.setenv("COLUMNS", str(width))
    shown = vecsync(*command, "--help").out
    assert (names - set(re.findall(r"--[a-z-]+", shown)), "…" in shown) == (set(), False)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "demo"])
def test_every_command_takes_the_configuration(command: str) -> None:
    """Each command that works on a configuration takes --config."""
    words = (command, GROUPS[command]) if command in GROUPS else (command,)
    assert "--config" in vecsync(*words, "--help").out


def test_wrong_usage_exits_with_2() -> None:
    """Options that do not exist are wrong usage, not a failure."""
    assert vecsync("status", "--nonsense").code == 2
    assert vecsync("nonsense").code == 2
    assert vecsync().code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["status", "--nonsense"], "No such option: --nonsense. See `vecsync status --help`"),
        (["statu"], "No such command 'statu'. Did you mean 'status'? See `vecsync --help`"),
        (["sync", "tenant", "--config", "none.yaml"],
         "Invalid value for ID: give a tenant's ID after `tenant`, and only there. See `vecsync sync --help`"),
    ],
)  # fmt: skip
def test_wrong_usage_is_said_in_one_line(words: list[str], told: str) -> None:
    """As what is found wrong later is."""
    assert vecsync(*words).err == f"error: WRONG_USAGE: {told}\n"


def test_a_flag_is_shown_by_its_name_alone() -> None:
    """`--full` takes no value: no type stands behind it; an option that takes one says which."""
    shown = [line.strip("│ ").split() for line in vecsync("sync", "--help").out.splitlines() if "--" in line]
    following = {line[0]: line[1] for line in shown if line[0].startswith("--")}
    assert (following["--full"], following["--dry-run"], following["--tenant"]) == ("Read", "Say", "ID|NAME")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--limit", "500", "Invalid value for '--limit': at most 100"),
        ("--limit", "0", "Invalid value for '--limit': at least 1"),
        ("--limit", "x", "Invalid value for '--limit': not a whole number"),
        ("--state", "wat", "Invalid value for '--state': 'wat' is not one of"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(option: str, value: str, told: str) -> None:
    """No word of the library that reads the options."""
    ran = vecsync("status", option, value)
    assert (ran.code, told in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("command", [(), ("sync",), ("alerts",), ("alerts", "list"), ("ledger", "rebuild")])
def test_help_shows_flags_by_their_name_alone(command: tuple[str, ...]) -> None:
    """Neither `--help <bool>` nor brackets within brackets."""
    ran = vecsync(*command, "--help")
    assert (ran.code, "<bool>" in ran.out, "[[" in ran.out) == (0, False, False)


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--entity", "materials", "--id", "404"],
        ["status", "--tenant", "nobody"],
        ["invalid", "--tenant", "nobody"],
        ["invalid", "--collection", "nothing"],
        ["export", "--tenant", "nobody"],
        ["retry", "--entity", "materials", "--id", "404"],
        ["sync", "materials", "--id", "404", "--no-record"],
        ["search", "paint", "--tenant", "global", "--collection", "nothing"],
        ["reconcile", "--entity", "nothing"],
        ["tenants", "--entity", "nothing"],
        ["ledger", "rebuild", "--collection", "nothing"],
        ["drop", "nothing"],
    ],
)
def test_a_name_or_an_id_that_nothing_has_exits_with_2(asked: Path, words: list[str]) -> None:
    """In every command it is wrong usage, and said by its name."""
    ran = vecsync(*words, "--config", asked)
    assert ran.code == 2
    assert f"NOT_FOUND: no {'record' if '404' in words else 'tenant' if 'nobody' in words else ''}" in ran.err


def test_a_reader_who_has_seen_enough_is_no_failure(asked: Path) -> None:
    """`vecsync export | head -1`: what nobody reads is not written, and the command ends with 0."""
    with start("export", "--config", asked) as process:
        assert process.stdout is not None
        process.stdout.close()
        err = "" if process.stderr is None else process.stderr.read()
        assert (process.wait(60), "Traceback" in err) == (0, False)


def test_a_suggested_command_names_the_configuration_in_use(asked: Path, tmp_path: Path) -> None:
    """What a message tells to run works as it stands: with the --config that was given."""
    never_synced = tmp_path / "vecsync.yaml"
    never_synced.write_text(asked.read_text().replace("./state", "./elsewhere"))
    ran = vecsync("search", "paint", "--tenant", "global", "--collection", "works", "--config", never_synced)
    assert f"`vecsync sync all --collection works --config {never_synced}`" in ran.err


def test_check_says_where_the_ledger_is(asked: Path) -> None:
    """The file, or the URL without its password."""
    assert str(asked.parent / "state" / "ledger.sqlite") in "".join(vecsync("check", "--config", asked).out.split())


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    """A configuration that is not there is wrong usage, in one line without a stack trace."""
    ran = vecsync("status", "--config", tmp_path / "none.yaml")
    assert ran.code == 2
    assert ran.err == f"error: WRONG_USAGE: {tmp_path / 'none.yaml'}: no such configuration file\n"


def test_the_configuration_may_stand_before_the_command(fresh: Path) -> None:
    """--config is the same before the command as after it."""
    before, after = vecsync("--config", fresh, "tenants", "--json"), vecsync("tenants", "--json", "--config", fresh)
    assert before == after
    assert before.code == 0


def test_listing_commands_imports_no_engine() -> None:
    """Help comes at once: what only running a command needs is not imported."""
    heavy = {"dagster", "pandas", "pyarrow", "sqlalchemy", "numpy", "qdrant_client"}
    program = "import sys, vecsync_dagster.cli.main; print(*sys.modules)"
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy.intersection(listed.stdout.split())


def test_searching_imports_no_dagster(asked: Path) -> None:
    """A search does not pay for importing Dagster or pandas."""
    program = f"""
import sys
from vecsync_dagster.cli.main import main
try:
    main(["search", "paint", "--tenant", "global", "--collection", "materials", "--config", {str(asked)!r}])
finally:
    print(*sys.modules)
"""
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "global-material-" in listed.stdout
    assert not {"dagster", "pandas"}.intersection(listed.stdout.split())


@pytest.mark.parametrize("command", [["sync", "works"], ["retry", "works"], ["status", "--entity", "works"]], ids=str)
def test_an_id_that_is_no_text_is_wrong_usage(config: Path, command: list[str]) -> None:
    """Bytes of a terminal in another encoding come as lone surrogates."""
    ran = vecsync(*command, "--id", "\udcff", "--config", config)
    assert (ran.code, "no valid UTF-8" in ran.err) == (2, True), ran.err
