"""What runs inherit of the environment of the process that starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.fork_server_process import ForkServerProcess
from resources.run_environment import NOT_FOR_RUNS, run_environment
from tests.e2e.programs import wait_for

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="an environment is read in /proc")
def test_a_fork_server_is_started_without_the_secrets_that_no_run_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NOT_FOR_RUNS:
        monkeypatch.setenv(name, "s3cr3t")
    monkeypatch.setenv("OF_A_PIPELINE", "kept")

    server = ForkServerProcess([])
    try:
        environ = Path(f"/proc/{server.pid}/environ")  # empty while the process becomes another program
        inherited = wait_for(
            "its environment", lambda: environ.read_bytes() or None, timeout_seconds=120, every_seconds=0.02
        )
        fit = server.is_fit()
    finally:
        server.kill()
        assert server.has_ended(120)

    assert b"OF_A_PIPELINE=kept" in inherited.split(b"\0")
    assert b"s3cr3t" not in inherited
    assert not any(name.encode() in inherited for name in NOT_FOR_RUNS)
    assert fit, "a missing secret is no reason to start another server"


def test_every_variable_that_the_reference_calls_a_secret_is_kept_from_runs() -> None:
    rows = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8").splitlines()
    secret = {row.split("`")[1] for row in rows if row.startswith("| `") and "a secret, never shown" in row}
    assert secret == set(NOT_FOR_RUNS)
    assert run_environment(dict.fromkeys([*secret, "PATH"], "x")) == {"PATH": "x"}


@pytest.mark.parametrize("given", [None, "5000"], ids=["not set", "set"])
def test_threads_of_numeric_libraries_spin_shortly_unless_somebody_says_otherwise(given: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | {"OMP_DISPLAY_ENV": "VERBOSE"}
    code = "from resources.profiles import current_profile; current_profile(); import sklearn.ensemble"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | ({"GOMP_SPINCOUNT": given} if given else {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert f"GOMP_SPINCOUNT = '{given or '1000'}'" in done.stderr
