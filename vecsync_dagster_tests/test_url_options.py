"""Options of database URLs that do not exist, or have values that they cannot have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from vecsync_dagster.config.models import EnvRef, LedgerConfig, MongoSource, PostgresSource
from vecsync_dagster.errors import ConfigError
from vecsync_dagster.ledger import build_ledger
from vecsync_dagster.ledger.database import parse_url
from vecsync_dagster.sources import build_source
from vecsync_dagster.sources.sql_postgres import Postgres
from vecsync_dagster_tests.sources.backends import entity_config

HERE = EnvRef(env="TESTED_URL")
VALUE = "hunter2"


def _source(config: PostgresSource | MongoSource) -> None:
    source = build_source(config, entity_config(), name="db", entity_name="materials", path_of=Path)
    try:
        source.tenants()
    finally:
        source.close()


def _postgres() -> None:
    _source(PostgresSource(type="postgres", url=HERE, connect_timeout_s=1))


def _mongo() -> None:
    _source(MongoSource(type="mongo", url=HERE, connect_timeout_s=1))


def _ledger() -> None:
    build_ledger(LedgerConfig(url=HERE), state_folder=Path("nowhere"))


USES: dict[str, tuple[str, str, Callable[[], None]]] = {
    "postgres": ("sources.db.url", f"postgresql://u:{VALUE}@127.0.0.1:1/d", _postgres),
    "mongo": ("sources.db.url", f"mongodb://u:{VALUE}@127.0.0.1:1/d", _mongo),
    "ledger": ("ledger.url", f"postgresql://u:{VALUE}@127.0.0.1:1/d", _ledger),
    "sqlite ledger": ("ledger.url", "sqlite:////nowhere/at/all.db", _ledger),
}


def refusal(monkeypatch: pytest.MonkeyPatch, use: str, query: str) -> str:
    key, url, go = USES[use]
    monkeypatch.setenv("TESTED_URL", url + query)
    with pytest.raises(ConfigError) as refused:
        go()
    message = str(refused.value)
    assert message.startswith(f"{key}: ")
    assert VALUE not in message
    assert refused.value.__cause__ is None
    return message


@pytest.mark.parametrize("use", USES)
def test_unknown_options_are_named(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    """Every option that does not exist is named with the key, and no value."""
    message = refusal(monkeypatch, use, f"?pgbouncer={VALUE}&schema={VALUE}")
    assert "'pgbouncer'" in message
    assert "'schema'" in message


@pytest.mark.parametrize(
    ("use", "written", "meant"),
    [
        ("postgres", "ssl", "sslmode"),
        ("postgres", "ssl_mode", "sslmode"),
        ("postgres", "connection_timeout", "connect_timeout"),
        ("ledger", "aplication_name", "application_name"),
        ("mongo", "authSorce", "authsource"),
        ("mongo", "replicaSets", "replicaset"),
        ("sqlite ledger", "timeouts", "timeout"),
    ],
)
def test_close_matches(monkeypatch: pytest.MonkeyPatch, use: str, written: str, meant: str) -> None:
    """The option that was probably meant stands beside the one that does not exist."""
    assert f"'{written}' (did you mean {meant}?)" in refusal(monkeypatch, use, f"?{written}={VALUE}")


@pytest.mark.parametrize(
    ("use", "query", "named"),
    [
        ("postgres", f"?sslmode={VALUE}", "'sslmode'"),
        ("postgres", f"?keepalives_idle={VALUE}", "'keepalives_idle'"),
        ("postgres", f"?target_session_attrs={VALUE}", "read-write"),
        ("postgres", "?sslmode=require&sslmode=prefer", "'sslmode' is there more than once"),
        ("ledger", f"?gssencmode={VALUE}", "'gssencmode'"),
        ("mongo", f"?retryWrites={VALUE}", "'retryWrites'"),
        ("mongo", f"?maxPoolSize={VALUE}", "'maxPoolSize'"),
        ("mongo", f"?w=1&readPreference={VALUE}", "'readPreference'"),
        ("sqlite ledger", f"?timeout={VALUE}", "wrong value"),
        ("sqlite ledger", "?timeout=", "no value for the URL option 'timeout'"),
    ],
)
def test_wrong_values(monkeypatch: pytest.MonkeyPatch, use: str, query: str, named: str) -> None:
    """A value that an option cannot have is refused before anything is asked, and not repeated."""
    assert named in refusal(monkeypatch, use, query)


@pytest.mark.parametrize("use", ["postgres", "ledger"])
@pytest.mark.parametrize(
    ("query", "named"),
    [
        (f"port={VALUE}", "'port'"),
        ("port=0", "'port'"),
        (f"port=5432,{VALUE}", "'port'"),
        ("port=5432,5433", "hosts and ports"),
        ("host=a,b&port=1,2,3", "hosts and ports"),
        ("host=a:1:2&host=b", "hosts and ports"),
        (f"host=a:{VALUE}&host=b", "hosts and ports"),
        ("host=a:99999&host=b", "'port'"),
        (f"service={VALUE}", "'service'"),
        (f"hostaddr={VALUE}", "'hostaddr'"),
        (f"hostaddr=127.0.0.1,{VALUE}", "'hostaddr'"),
        ("host=a,b&hostaddr=127.0.0.1", "'hostaddr'"),
        (f"hostaddr=127.0.0.1&host={VALUE}&port=1,2", "hosts and ports"),
        (f"sslmode={VALUE}", "'sslmode'"),
        (f"sslsni={VALUE}", "'sslsni'"),
        (f"sslcompression={VALUE}", "'sslcompression'"),
        (f"target_session_attrs={VALUE}", "'target_session_attrs'"),
        (f"gssencmode={VALUE}", "'gssencmode'"),
        (f"channel_binding={VALUE}", "'channel_binding'"),
        (f"load_balance_hosts={VALUE}", "'load_balance_hosts'"),
        (f"client_encoding={VALUE}", "'client_encoding'"),
        (f"connect_timeout={VALUE}", "'connect_timeout'"),
        (f"tcp_user_timeout={VALUE}", "'tcp_user_timeout'"),
        ("keepalives_idle=99999999999", "'keepalives_idle'"),
        (f"ssl_min_protocol_version={VALUE}", "'ssl_min_protocol_version'"),
        (
            "application_name=a&ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "'ssl_min_protocol_version', 'ssl_max_protocol_version', or",
        ),
        *((f"{option}=/nowhere/{VALUE}", f"'{option}'") for option in ("passfile", "sslcert", "sslkey", "sslcrl")),
        (f"sslrootcert=/nowhere/{VALUE}", "'sslrootcert'"),
        ("sslrootcert=/", "'sslrootcert'"),
        (f"sslcrldir=/nowhere/{VALUE}", "'sslcrldir'"),
        ("application_name=a%00b", "application_name has a zero byte"),
        ("sslmode=", "no value for the URL option 'sslmode'"),
        ("application_name=a&sslmode", "no value for the URL option 'sslmode'"),
        (f"dbname={VALUE}", "a database and another one in the option 'dbname'"),
        (f"user={VALUE}", "a username and another one in the option 'user'"),
        ("password=other", "a password and another one in the option 'password'"),
    ],
)
def test_what_libpq_would_refuse_or_leave_out(
    monkeypatch: pytest.MonkeyPatch, use: str, query: str, named: str
) -> None:
    """What no server would ever see is a mistake in the URL, not an outage that is waited for."""
    key, url, go = USES[use]
    url = url if "host" not in query else url.replace("127.0.0.1:1", "")
    monkeypatch.setitem(USES, use, (key, url, go))
    assert named in refusal(monkeypatch, use, f"?{query}")


@pytest.mark.skipif(psycopg.pq.version() < 170000, reason="libpq has these options since 16 and 17")
@pytest.mark.parametrize(
    ("query", "named"),
    [
        (f"require_auth={VALUE}", "'require_auth'"),
        (f"sslnegotiation={VALUE}", "'sslnegotiation'"),
        ("sslnegotiation=direct&sslmode=prefer", "'sslnegotiation', 'sslmode'"),
        ("sslrootcert=system&sslmode=require", "'sslrootcert', 'sslmode'"),
    ],
)
def test_newer_options(monkeypatch: pytest.MonkeyPatch, query: str, named: str) -> None:
    """Also values that are wrong only with each other."""
    assert named in refusal(monkeypatch, "ledger", f"?{query}")


def test_files_that_are_no_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What libpq reads only when a server offers TLS is read before."""
    no_certificate = tmp_path / VALUE
    no_certificate.write_text("nothing")
    files = f"sslcert={no_certificate}&sslkey={no_certificate}"
    assert "'sslcert', 'sslkey'" in refusal(monkeypatch, "postgres", f"?sslmode=require&{files}")
    assert "'sslrootcert'" in refusal(monkeypatch, "ledger", f"?sslmode=verify-ca&sslrootcert={no_certificate}")


@pytest.mark.parametrize("use", ["postgres", "ledger"])
def test_the_environment_of_libpq(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    """No option is blamed for a variable that libpq reads by itself."""
    monkeypatch.setenv("PGSSLMODE", VALUE)
    assert "environment variables (PG...)" in refusal(monkeypatch, use, "?application_name=a")


@pytest.mark.parametrize(
    "query",
    [
        "host=a,b&port=5432,5433",
        "host=a:5432&host=b:5433",
        "hostaddr=127.0.0.1,::1&port=5432",
        "host=/run/nowhere&sslmode=require&connect_timeout=5",
        "target_session_attrs=read-write&keepalives_idle=30&client_encoding=utf8",
        "service=shop&user=u",
    ],
)
def test_what_libpq_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, query: str) -> None:
    """Whether a server is there is not asked."""
    (tmp_path / "services").write_text("[shop]\nhost=nowhere.invalid\nport=1\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    assert parse_url(f"postgresql:///d?{query}").query


@pytest.mark.parametrize("use", ["postgres", "mongo", "ledger"])
def test_a_password_with_a_question_mark(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    """What may be a part of a password that nobody encoded is not named as an option."""
    key, url, go = USES[use]
    scheme = url.partition(":")[0]
    monkeypatch.setenv("TESTED_URL", f"{scheme}://u:p@a?{VALUE}=x@127.0.0.1:1/d")
    with pytest.raises(ConfigError) as refused:
        go()
    assert str(refused.value).startswith(f"{key}: ")
    assert VALUE not in str(refused.value)


def test_a_port_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that no server can have is a mistake in the URL, not a server to wait for."""
    monkeypatch.setenv("TESTED_URL", "postgresql://u@127.0.0.1:99999/d")
    with pytest.raises(ConfigError, match=r"^sources\.db\.url: the URL's port"):
        _postgres()


@pytest.mark.parametrize("use", ["postgres", "mongo", "ledger"])
def test_bytes_that_are_no_text(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    """A password in another encoding is a mistake in the variable; not a byte of it is shown."""
    key, url, go = USES[use]
    monkeypatch.setenv("TESTED_URL", url.replace(VALUE, f"{VALUE}\udcff"))
    with pytest.raises(ConfigError, match="the environment variable TESTED_URL is not UTF-8") as refused:
        go()
    assert str(refused.value).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u@db.example/shop", "db.example:5432/shop"),
        ("postgresql:///shop?host=db.example&port=6432", "db.example:6432/shop"),
        ("postgresql://u@/shop", "localhost:5432/shop"),
    ],
)
def test_the_address_that_is_used_is_named(monkeypatch: pytest.MonkeyPatch, url: str, place: str) -> None:
    """Also where it is an option of the URL."""
    monkeypatch.setenv("TESTED_URL", url)
    assert Postgres(PostgresSource(type="postgres", url=HERE), name="db").place == f"PostgreSQL at {place}"


def test_what_exists_is_taken(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of libpq reach the server as they are written, also in the connection of the triggers and where there is
    a default of ours."""
    options = "options=-c%20work_mem%3D7MB&sslmode=prefer&application_name=a%2Bb"
    monkeypatch.setenv("TESTED_URL", f"{postgres_database}?{options}")
    with psycopg.connect(Postgres(PostgresSource(type="postgres", url=HERE), name="db").conninfo()) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert connection.execute("SHOW application_name").fetchone() == ("a+b",)
    engine = Postgres(PostgresSource(type="postgres", url=HERE), name="db").engine()
    with engine.connect() as reading:
        assert reading.exec_driver_sql("SHOW application_name").scalar_one() == "a+b"
    engine.dispose()
