"""A PostgreSQL server of a test session's own, its databases, and Dagster instances whose storages are on it."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg2
import pytest
import yaml

from resources.dagster_home import LOCAL_INSTANCE, initialise_home

_CHART = Path(__file__).parents[1] / "deployments" / "kubernetes" / "chart" / "values.yaml"
_USER = "ledger"
_PASSWORD = "s3cret-p@ss/word"  # noqa: S105 of a server that lives as long as the tests
_TIME_LIMIT_SECONDS = 120


@contextmanager
def running_server() -> Iterator[str]:
    """Yield the URL of a new server's empty database; the server is stopped at the end."""
    programs = _find_programs()
    folder = Path(tempfile.mkdtemp(prefix="ml-assets-postgres-"))
    try:
        account = _account()
        _initialise(programs, folder, account)
        server, port = _started(programs, folder, account)
        try:
            yield f"postgresql://{_USER}:{quote(_PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
        finally:
            _stop(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Yield the URL of a new database of a server; it is dropped at the end, with whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(server_url, f"CREATE DATABASE {name}")
    try:
        yield server_url.removesuffix("postgres") + name
    finally:
        _administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def postgres_config(url: str) -> dict[str, Any]:
    """Return what dagster.yaml says of a database, with the parameters that the chart gives it."""
    parts, chart = urlsplit(url), yaml.safe_load(_CHART.read_text(encoding="utf-8"))["dagster"]["postgresql"]
    database = {
        "scheme": chart["postgresqlScheme"],
        "params": chart["postgresqlParams"],
        "username": parts.username,
        "password": unquote(parts.password or ""),
        "hostname": parts.hostname,
        "port": parts.port,
        "db_name": parts.path.removeprefix("/"),
    }
    return {"postgres_db": database}


def dagster_storages(url: str) -> dict[str, Any]:
    """Return the part of dagster.yaml that puts runs, events and schedules into a database, as the chart writes it."""
    classes = {
        "run_storage": ("dagster_postgres.run_storage", "PostgresRunStorage"),
        "event_log_storage": ("dagster_postgres.event_log", "PostgresEventLogStorage"),
        "schedule_storage": ("dagster_postgres.schedule_storage", "PostgresScheduleStorage"),
    }
    return {
        name: {"module": module, "class": of, "config": postgres_config(url)} for name, (module, of) in classes.items()
    }


def local_instance(home: Path) -> dict[str, Any]:
    """Return the local instance's configuration for a home."""
    return yaml.safe_load(
        LOCAL_INSTANCE.read_text(encoding="utf-8").replace("{env: DAGSTER_HOME}", json.dumps(str(home)))
    )


def on_postgres(config: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return a configuration with runs, events and schedules in a database."""
    return {**{name: value for name, value in config.items() if name != "storage"}, **dagster_storages(url)}


def initialise_home_on(url: str, home: Path) -> None:
    """Make a home of the local instance whose runs, events and schedules are in a database."""
    source = home.parent / "dagster.yaml"
    source.write_text(yaml.safe_dump(on_postgres(local_instance(home), url)), encoding="utf-8")
    initialise_home(home, source)


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


def _started(programs: Path, folder: Path, account: dict[str, Any]) -> tuple[subprocess.Popen[Any], int]:
    """Return a server that answers, and its port; another port when somebody else took the first one meanwhile."""
    for _ in range(3):
        port = _free_port()
        server = _start(programs, folder, port, account)
        if _answers(server, port):
            return server, port
        _stop(server)
    pytest.fail(f"PostgreSQL did not start:\n{(folder / 'server.log').read_text()[-2000:]}")


def _start(programs: Path, folder: Path, port: int, account: dict[str, Any]) -> subprocess.Popen[Any]:
    # A zone far from UTC, so that a time that loses its zone shows.
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    settings |= {"timezone": "Asia/Kolkata", "log_timezone": "UTC", "max_connections": 100}
    command = [programs / "postgres", "-D", folder / "data"]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **account)


def _answers(server: subprocess.Popen[Any], port: int) -> bool:
    """Wait until a server answers; return False when it ends before, or takes too long."""
    deadline = time.monotonic() + _TIME_LIMIT_SECONDS
    address = f"host=127.0.0.1 port={port} connect_timeout=10"
    while True:
        try:
            psycopg2.connect(address, user=_USER, password=_PASSWORD, dbname="postgres").close()
        except psycopg2.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def _stop(server: subprocess.Popen[Any]) -> None:
    server.send_signal(signal.SIGINT)  # the fast shutdown: open sessions are ended
    try:
        server.wait(_TIME_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
