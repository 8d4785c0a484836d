"""Nothing is left behind: threads, ports and processes of the double end with it, however the test ends."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.kubernetes.contract_cluster import Cluster
from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
RUNAWAY = "setsid sh -c 'sleep 300; true' & setsid -f sleep 300; sleep 300"
"""Children in sessions of their own, one of them without a parent: what ordinary kills of a process group miss."""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _sleeping(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _enough(kubelet: ProcessKubelet) -> list[int]:
    """Return the processes of RUNAWAY once it has nothing more to start: three sleep, each in a session of its own.

    Their number alone would not do: a forked process is in its parent's session until it has called setsid,
    and `setsid -f` is there itself for a moment.
    """
    pids = kubelet.pids()
    return pids if len({os.getsid(pid) for pid in pids if _sleeping(pid)}) == 3 else []


def _wait_for_end(pids: list[int], seconds: float = 15) -> list[int]:
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if _alive(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def test_processes_and_threads_end_with_the_double(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with FakeKube() as kube:
        kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig.json")
        with ProcessKubelet(kubeconfig, [NodeSpec("n")], {"*": Image()}, tmp_path / "node") as kubelet:
            k = Cluster(kubeconfig, kube, kubelet)
            k.namespace = "default"
            k.job("run", RUNAWAY)
            k.running("run")
            pids = k.until(lambda: _enough(kubelet))
            port = kube.port
    assert _wait_for_end(pids) == []
    assert kubelet.pids() == []
    assert [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("double")] == []
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_a_deleted_pod_leaves_no_process(tmp_path: Path) -> None:
    with FakeKube() as kube:
        kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig.json")
        with ProcessKubelet(kubeconfig, [NodeSpec("n")], {"*": Image()}, tmp_path / "node") as kubelet:
            k = Cluster(kubeconfig, kube, kubelet)
            k.namespace = "default"
            k.job("run", RUNAWAY)
            k.running("run")
            pids = k.until(lambda: _enough(kubelet))
            k.batch.delete_namespaced_job("run", "default", propagation_policy="Background")
            k.until(lambda: not k.pods("run"))
            assert _wait_for_end(pids) == []


def test_processes_end_when_the_test_is_killed(tmp_path: Path) -> None:
    """The program is killed without a word; the guard of its kubelet cleans up."""
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys, time
from tests.kubernetes.contract_cluster import Cluster
from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet
from tests.kubernetes.test_double_processes import _enough

with FakeKube() as kube:
    kubeconfig = kube.write_kubeconfig({str(tmp_path / "kubeconfig.json")!r})
    with ProcessKubelet(kubeconfig, [NodeSpec("n")], {{"*": Image()}}, {str(tmp_path / "node")!r}) as kubelet:
        k = Cluster(kubeconfig, kube, kubelet)
        k.namespace = "default"
        k.job("run", {RUNAWAY!r})
        k.running("run")
        print(*k.until(lambda: _enough(kubelet)), flush=True)
        time.sleep(300)
"""
    )
    with subprocess.Popen(
        [sys.executable, str(program)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        pids = [int(word) for word in run.stdout.readline().split()]
        assert len(pids) >= 5
        assert all(map(_alive, pids))
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert _wait_for_end(pids) == []


def test_memory_that_forks_share_counts_once(tmp_path: Path) -> None:
    """Four processes that share 60 MiB hold 60 MiB, not 240: a limit between the two does not end them."""
    script = (
        "import os, time; block = bytearray(os.urandom(60 * 2**20)); "
        "[os.fork() or (time.sleep(1.2), os._exit(0)) for _ in range(3)]; time.sleep(1.5)"
    )
    image = Image(path=(str(Path(sys.executable).parent),))
    with FakeKube() as kube:
        kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig.json")
        with ProcessKubelet(kubeconfig, [NodeSpec("n")], {"*": image}, tmp_path / "node", poll=0.05) as kubelet:
            k = Cluster(kubeconfig, kube, kubelet)
            k.namespace = "default"
            k.job("forks", limits={"memory": "140Mi"}, container={"command": ["python", "-c", script]})
            assert k.settled("forks").succeeded == 1, k.log("forks")
            assert kubelet.history[0]["peak_rss"] > 200 * 2**20


def test_a_mark_finds_a_process_and_its_children() -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 300 & sleep 300"], env={processes.MARK: "test-mark/1", "PATH": os.defpath}
    )
    try:
        deadline = time.monotonic() + 10
        while len(processes.marked("test-mark/")) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.pid in processes.marked("test-mark/1")
        assert not processes.marked("test-mark/2")
    finally:
        processes.kill_marked("test-mark/")
        process.wait()
    assert processes.marked("test-mark/") == []
