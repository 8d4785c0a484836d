"""A PostgreSQL server of the test session's own."""

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
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest

_USER = "ledger"
_PASSWORD = "s3cret-p@ss/word"  # noqa: S105 of a server that lives as long as the tests
_TIME_LIMIT_SECONDS = 60


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a running server's empty database; the server is initialised and stopped by the session."""
    programs = _find_programs()
    folder = Path(tempfile.mkdtemp(prefix="ml-assets-postgres-"))
    try:
        account = _account()
        _initialise(programs, folder, account)
        port = _free_port()
        server = _start(programs, folder, port, account)
        try:
            _wait_until_ready(server, port, folder)
            yield f"postgresql://{_USER}:{quote(_PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
        finally:
            _stop(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """URL of a database that is fresh for each test, on the session's server."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(postgres_url, f"CREATE DATABASE {name}")
    yield postgres_url.removesuffix("postgres") + name
    _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True  # databases cannot be made in a transaction
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def _find_programs() -> Path:
    """Return the folder that holds initdb and postgres; Debian keeps it off the PATH."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.fail(
        "PostgreSQL's programs initdb and postgres are neither on the PATH nor in /usr/lib/postgresql. "
        "Install them with: apt-get install postgresql"
    )


def _account() -> dict[str, Any]:
    """Return Popen's arguments for an account that is not root, which PostgreSQL refuses to run as."""
    if os.geteuid() != 0:
        return {}
    account = next(entry for entry in pwd.getpwall() if entry.pw_name in {"postgres", "nobody"})
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _initialise(programs: Path, folder: Path, account: dict[str, Any]) -> None:
    password_file = folder / "password"
    password_file.write_text(_PASSWORD)
    if account:
        os.chown(folder, account["user"], account["group"])
        os.chown(password_file, account["user"], account["group"])
    command = [programs / "initdb", "--pgdata", folder / "data", "--username", _USER, "--no-sync"]
    command += ["--auth", "scram-sha-256", "--pwfile", password_file, "--encoding", "UTF8", "--locale", "C"]
    result = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=_TIME_LIMIT_SECONDS,
        cwd=folder,
        **account,
    )
    if result.returncode:
        pytest.fail(f"initdb failed:\n{result.stderr[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _start(programs: Path, folder: Path, port: int, account: dict[str, Any]) -> subprocess.Popen[Any]:
    # A zone far from UTC, so that a time that loses its zone shows.
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    settings |= {"timezone": "Asia/Kolkata", "log_timezone": "UTC", "max_connections": 100}
    command = [programs / "postgres", "-D", folder / "data"]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **account)


def _wait_until_ready(server: subprocess.Popen[Any], port: int, folder: Path) -> None:
    deadline = time.monotonic() + _TIME_LIMIT_SECONDS
    while True:
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user=_USER, password=_PASSWORD, dbname="postgres").close()
        except psycopg2.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)
        else:
            return


def _stop(server: subprocess.Popen[Any]) -> None:
    server.send_signal(signal.SIGINT)  # the fast shutdown: open sessions are ended
    try:
        server.wait(_TIME_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
