"""`ml-assets dev`: the Dagster UI with its daemon and the MLflow UI, on the state of this project."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import click

from ml_assets.cli.project import load_project

STOP_SECONDS = 20
START_SECONDS = 180
MOST_LOG_BYTES = 50_000_000
"""Of one server's log; the daemon writes some 30 MB a day. What was before is kept once, with .1 at its end."""


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=3000,
    show_default=True,
    help="Dagster UI; 0 for a free one.",
)
@click.option(
    "--mlflow-port",
    type=click.IntRange(0, 65535),
    default=5000,
    show_default=True,
    help="MLflow UI; 0 for a free one.",
)
def dev(port: int, mlflow_port: int) -> None:
    """Serve the Dagster UI (with its daemon) and the MLflow UI on loopback until interrupted."""
    project = load_project()
    port, mlflow_port = _free(port, "--port"), _free(mlflow_port, "--mlflow-port")
    project.profile.initialise()
    workspace = ["-w", str(project.root / "workspace.yaml")]
    commands = {
        "dagster webserver": [
            sys.executable,
            "-m",
            "dagster_webserver",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            *workspace,
        ],
        "dagster daemon": project.profile.daemon_command(project.root / "workspace.yaml"),
    }
    tracker = project.profile.tracker_command(mlflow_port)
    if tracker is not None:
        commands["mlflow"] = tracker
    logs = project.profile.state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    processes: dict[str, subprocess.Popen] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plain `kill` stops the services too
    click.echo("Starting the servers; that takes some seconds.")
    try:
        for name, command in commands.items():
            with (logs / f"{name.replace(' ', '_')}.log").open("ab") as log:
                processes[name] = subprocess.Popen(command, cwd=project.root, stdout=log, stderr=log)  # noqa: S603
        _wait_until_up(f"http://127.0.0.1:{port}/server_info", processes)
        click.echo(f"Dagster UI   http://127.0.0.1:{port}")
        if tracker is not None:
            click.echo(f"MLflow UI    http://127.0.0.1:{mlflow_port}")
        click.echo(f"Logs         {logs}\nStop with Ctrl-C.")
        _watch(processes, [logs / f"{name.replace(' ', '_')}.log" for name in processes])
    except KeyboardInterrupt:
        click.echo("Stopping.")
    finally:
        _stop(processes)


def _free(port: int, option: str) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise click.BadParameter(
                f"port {port} is taken; name another, or 0 for a free one.", param_hint=option
            ) from error
        return probe.getsockname()[1]


def _wait_until_up(url: str, processes: dict[str, subprocess.Popen]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        _require_alive(processes)
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback, built above
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise click.ClickException(f"The Dagster UI did not answer within {START_SECONDS} seconds; see the logs.")


def _watch(processes: dict[str, subprocess.Popen], logs: Sequence[Path]) -> None:
    while True:
        _require_alive(processes)
        for log in logs:
            begin_anew(log, MOST_LOG_BYTES)
        time.sleep(1)


def begin_anew(log: Path, most_bytes: int) -> None:
    """Put what a log has aside when it is too long, in the place of what was put aside before.

    Its writer goes on in the same file, which it opened to append; a line of the moment in between may be lost.
    """
    if log.stat().st_size > most_bytes:
        copy = log.with_name(f"{log.name}.new")
        shutil.copyfile(log, copy)
        copy.replace(log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def _require_alive(processes: dict[str, subprocess.Popen]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise click.ClickException(f"{name} ended with code {process.returncode}; see its log.")


def _stop(processes: dict[str, subprocess.Popen]) -> None:
    for process in processes.values():
        if process.poll() is None:
            process.terminate()
    for process in processes.values():
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
