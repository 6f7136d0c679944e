"""What deploy/ holds: the files are sound by themselves, fit together, and are documented.

There is no container engine in tests. What is tested is all that can be without one: Dagster loads its settings with a
real PostgreSQL, commands exist, services and volumes fit, and every variable is documented.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage

from vecsync_dagster.config import load_config
from vecsync_dagster.definitions import build_definitions
from vecsync_dagster_tests.cli.program import vecsync

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCS = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
COMPOSE = ("docker-compose.yaml", "docker-compose.celery.yaml")
YAML = sorted(path.name for path in DEPLOY.glob("*.yaml"))
GIVEN = {"VECSYNC_CONFIG", "VECSYNC_STATE", "DAGSTER_HOME", "PYTHONPATH", "PYTHONUNBUFFERED"}
"""Variables of the table in README.md, and Python's own."""


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def data(name: str) -> Any:
    return yaml.safe_load(text(name))


def services(name: str = "docker-compose.yaml") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = data(name)["services"]
    return found


def named() -> set[str]:
    """Every environment variable that a file of deploy/ names."""
    names: set[str] = set()
    for name in YAML:
        names.update(one or other for one, other in re.findall(r"\{env: (\w+)\}|\$\{(\w+)", text(name)))
    for name in COMPOSE:
        for service in services(name).values():
            names.update(service.get("environment", {}))
    names.update(re.findall(r"^(\w+)=", text(".env.example"), re.MULTILINE))
    names.update(re.findall(r'os\.environ\["(\w+)"\]', text("dagster_celery_config.py")))
    names.update(re.findall(r"(?:ENV|   ) (\w+)=", text("Dockerfile")))
    return names


def test_every_variable_is_documented_and_no_other() -> None:
    """docs/deployment.md has a row for each variable of these files, and none that is in no file."""
    documented = set(re.findall(r"^\| `(\w+)`", DOCS, re.MULTILINE))
    images = {name for name in named() if name.startswith(("POSTGRES_USER", "POSTGRES_DB", "QDRANT__", "RABBITMQ_DEF"))}
    assert named() - GIVEN - images == documented


def test_the_example_of_secrets_is_complete_and_empty() -> None:
    """.env.example names what the compose files ask for, and holds no secret."""
    asked = {name for file in COMPOSE for name in re.findall(r"\$\{(\w+)", text(file))}
    lines = dict(re.findall(r"^(\w+)=(.*)$", text(".env.example"), re.MULTILINE))
    assert set(lines) == asked
    assert {name for name, value in lines.items() if value} == {"UI_ADDRESS", "UI_PORT"}


@pytest.mark.parametrize("file", ["dagster.yaml", "dagster-celery.yaml"])
def test_dagster_loads_its_settings_with_a_real_postgresql(
    file: str, postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage, launcher, queue, monitoring and retention are those of the file, and what is stored is there again."""
    address, _, name = postgres_database.removeprefix("postgresql://").partition("/")
    user, _, place = address.rpartition("@")
    host, _, port = place.partition(":")
    values = {
        "HOST": host,
        "PORT": port,
        "USER": user.partition(":")[0],
        "PASSWORD": user.partition(":")[2],
        "DB": name,
    }
    for key, value in values.items():
        monkeypatch.setenv(f"DAGSTER_PG_{key}", value)
    monkeypatch.setenv("DAGSTER_COMPUTE_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("CELERY_BROKER_URL", "filesystem://")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", f"file://{tmp_path}")
    for known in ([], ["acme"]):
        with dg.DagsterInstance.from_config(str(DEPLOY), file) as instance:
            assert list(instance.get_dynamic_partitions("vecsync_works_tenants")) == known
            instance.add_dynamic_partitions("vecsync_works_tenants", ["acme"])
            assert isinstance(instance.run_storage, PostgresRunStorage)
            assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
            assert isinstance(instance.schedule_storage, PostgresScheduleStorage)
            launcher = "CeleryRunLauncher" if "celery" in file else "DefaultRunLauncher"
            assert type(instance.run_launcher).__name__ == launcher
            assert instance.run_monitoring_enabled
            assert instance.run_retries_enabled
            assert not instance.telemetry_enabled
            queue = instance.get_concurrency_config().run_queue_config
            assert queue is not None
            assert queue.max_concurrent_runs == 4


def test_the_two_settings_of_dagster_differ_in_the_launcher_alone() -> None:
    """What is repaired in one is repaired in the other."""
    plain, celery = data("dagster.yaml"), data("dagster-celery.yaml")
    assert celery.pop("run_launcher")["class"] == "CeleryRunLauncher"
    assert plain == celery


def test_the_example_configuration_is_valid_and_loads_without_its_secrets() -> None:
    """The code server starts before anybody has set a secret; what is missing is said by the run that needs it."""
    config = load_config(DEPLOY / "vecsync.yaml")
    dg.Definitions.validate_loadable(build_definitions(config))


def test_services_fit_together() -> None:
    """What a service waits for exists and can be healthy; every volume and every mounted file is there."""
    everything = services()
    assert set(everything) == {"postgres", "qdrant", "migrate", "code", "webserver", "daemon", "listener"}
    for name, service in everything.items():
        assert "image" in service, name
        for other, wait in service.get("depends_on", {}).items():
            wanted = wait["condition"]
            assert wanted != "service_healthy" or "healthcheck" in everything[other], (name, other)
        for volume in service["volumes"]:
            source, target, *_ = volume.split(":")
            assert target.startswith("/")
            if source.startswith("."):
                assert (DEPLOY / source).is_file(), source
            else:
                assert source in data("docker-compose.yaml")["volumes"], source
    assert {name for name in everything if "healthcheck" not in everything[name]} == {"migrate", "listener"}


def test_the_workspace_leads_to_the_code_server() -> None:
    """Host and port in workspace.yaml are those of the service `code`."""
    server = data("workspace.yaml")["load_from"][0]["grpc_server"]
    assert server["host"] in services()
    assert str(server["port"]) in services()["code"]["command"]


def test_celery_adds_to_the_services_that_are_there() -> None:
    """Each overridden service exists; the worker is the code server with another command."""
    overridden = services("docker-compose.celery.yaml")
    assert set(overridden) - set(services()) == {"broker", "worker"}
    assert overridden["worker"]["extends"] == {"file": "docker-compose.yaml", "service": "code"}
    assert "./dagster-celery.yaml:/opt/dagster/dagster.yaml:ro" in overridden["daemon"]["volumes"]


def test_no_secret_stands_in_a_file() -> None:
    """Passwords and keys come from the environment alone."""
    for file in COMPOSE:
        for service in services(file).values():
            for name, value in service.get("environment", {}).items():
                if re.search("PASS|KEY|SECRET|WEBHOOK", name):
                    assert re.fullmatch(r"\$\{\w+(:[-?].*)?\}", value), name


@pytest.mark.parametrize(
    "command",
    [
        "dagster code-server start --help",
        "dagster api grpc-health-check --help",
        "dagster instance migrate --help",
        "dagster-webserver --help",
        "dagster-daemon run --help",
        "dagster-daemon liveness-check --help",
        "dagster-celery worker start --help",
    ],
)
def test_every_command_of_the_services_exists(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands and the options that the compose files use are those of the installed versions."""
    program, *rest = command.split()
    [installed] = entry_points(group="console_scripts", name=program)
    monkeypatch.setattr(sys, "argv", [program, *rest])
    with pytest.raises(SystemExit) as ended:  # it only tells: a process of its own would import Dagster once more
        installed.load()()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    used = [
        word
        for file in COMPOSE
        for service in services(file).values()
        for words in (service.get("command", []), service.get("healthcheck", {}).get("test", []))
        if list(words)[: len(rest)] == [program, *rest[:-1]] or [program, *rest[:-1]] == list(words)[1 : len(rest) + 1]
        for word in words
        if re.fullmatch(r"-[a-zA-Z]", str(word)) and word != "-c"
    ]
    assert all(re.search(rf"{option}\b", told) for option in used), (command, used)


def test_helm_values_name_the_same_things() -> None:
    """One pod for each run, the same queue, retries and retention as dagster.yaml, secrets by reference."""
    values, plain = data("helm-values.yaml"), data("dagster.yaml")
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    queue = values["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue["maxConcurrentRuns"] == plain["concurrency"]["runs"]["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == plain["concurrency"]["runs"]["tag_concurrency_limits"]
    assert values["dagsterDaemon"]["runRetries"]["maxRetries"] == plain["run_retries"]["max_retries"]
    days = values["retention"]["sensor"]["purgeAfterDays"]
    assert plain["retention"]["sensor"]["purge_after_days"].items() <= days.items()
    assert values["retention"]["schedule"]["purgeAfterDays"] == plain["retention"]["schedule"]["purge_after_days"]
    assert values["postgresql"]["postgresqlScheme"] == plain["storage"]["postgres"]["postgres_db"]["scheme"]
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"] == ["-m", "vecsync_dagster.definitions"]
    assert deployment["envSecrets"] == [{"name": "vecsync"}]


def test_a_worker_reads_its_broker_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """dagster_celery_config.py and dagster-celery.yaml ask for the same two variables."""
    monkeypatch.setenv("CELERY_BROKER_URL", "pyamqp://broker")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "rpc://")
    monkeypatch.syspath_prepend(str(DEPLOY))
    module = importlib.import_module("dagster_celery_config")
    assert (module.broker_url, module.result_backend) == ("pyamqp://broker", "rpc://")
    launcher = data("dagster-celery.yaml")["run_launcher"]["config"]
    assert launcher == {"broker": {"env": "CELERY_BROKER_URL"}, "backend": {"env": "CELERY_RESULT_BACKEND"}}


UNITS = sorted((DEPLOY / "systemd").iterdir())


def commands(unit: Path) -> list[list[str]]:
    """What the unit starts, as the words of its command line."""
    found = re.findall(r"^ExecStart=/opt/vecsync/bin/vecsync (.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    return [words.split() for words in found]


def test_units_start_commands_that_exist() -> None:
    """Each option too: the command line reads them before it looks at a configuration."""
    started = [words for unit in UNITS for words in commands(unit)]
    assert {words[0] for words in started} == {"ui", "watch", "sync", "health"}
    for words in started:
        told = vecsync(*words, "--config", "nowhere.yaml")
        assert "no such configuration file" in told.err, told.err


def test_timers_have_their_services() -> None:
    names = {unit.name for unit in UNITS}
    assert {name.replace(".timer", ".service") for name in names if name.endswith(".timer")} <= names


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    """No key that it does not know, no value that it cannot take."""
    for unit in UNITS:
        there = unit.read_text(encoding="utf-8").replace("/opt/vecsync/bin/vecsync", sys.executable)
        (tmp_path / unit.name).write_text(there, encoding="utf-8")
    files = sorted(map(str, tmp_path.iterdir()))
    told = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    ours = [line for line in told.stderr.splitlines() if "vecsync-" in line]
    assert ours == []
