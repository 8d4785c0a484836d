"""Nothing is left behind: threads, ports and processes of the double end with it, however the test ends."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from tests.kubernetes.contract_cluster import Cluster
from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
RUNAWAY = "setsid sh -c 'sleep 300; true' & setsid -f sleep 300; sleep 300"
"""Children in sessions of their own, one of them without a parent: what ordinary kills of a process group miss."""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second one: it went while the file was open
        return False


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _settled(kubelet: ProcessKubelet) -> list[int]:
    """Return the processes of RUNAWAY once it has nothing more to start: three sleep, each in a session of its own.

    Their number alone would not do: a forked process is in its parent's session until it has called setsid,
    and `setsid -f` is there itself for a moment, also when what it started sleeps already.
    """
    programs = {pid: _program(pid) for pid in kubelet.pids()}
    sessions = {os.getsid(pid) for pid, program in programs.items() if program == "sleep"}
    return list(programs) if len(sessions) == 3 and {"sh", "sleep"}.issuperset(programs.values()) else []


def _wait_for_end(pids: list[int], seconds: float = 120) -> list[int]:
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if _alive(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def _wait_for_threads(started: set[threading.Thread], seconds: float = 120) -> None:
    """Have all threads of the double end; one that answered a request when it closed may take its moment."""
    end = time.monotonic() + seconds
    for thread in started:
        if thread.name.startswith("double"):
            thread.join(max(0.0, end - time.monotonic()))
            assert not thread.is_alive(), thread.name


def test_processes_and_threads_end_with_the_double(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with FakeKube() as kube:
        kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig.json")
        with ProcessKubelet(kubeconfig, [NodeSpec("n")], {"*": Image()}, tmp_path / "node") as kubelet:
            k = Cluster(kubeconfig, kube, kubelet)
            k.namespace = "default"
            k.job("run", RUNAWAY)
            k.running("run")
            pids = k.until(lambda: _settled(kubelet))
            port = kube.port
    assert _wait_for_end(pids) == []
    assert kubelet.pids() == []
    _wait_for_threads(set(threading.enumerate()) - before)
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
            pids = k.until(lambda: _settled(kubelet))
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
from tests.kubernetes.test_double_processes import _settled

with FakeKube() as kube:
    kubeconfig = kube.write_kubeconfig({str(tmp_path / "kubeconfig.json")!r})
    with ProcessKubelet(kubeconfig, [NodeSpec("n")], {{"*": Image()}}, {str(tmp_path / "node")!r}) as kubelet:
        k = Cluster(kubeconfig, kube, kubelet)
        k.namespace = "default"
        k.job("run", {RUNAWAY!r})
        k.running("run")
        print(*k.until(lambda: _settled(kubelet)), flush=True)
        time.sleep(300)
"""
    )
    with subprocess.Popen(
        [sys.executable, str(program)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        pids = [int(word) for word in run.stdout.readline().split()]
        assert len(pids) >= 4
        assert all(map(_alive, pids))
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert _wait_for_end(pids) == []


def test_memory_that_forks_share_counts_once(tmp_path: Path) -> None:
    """Four processes that share 60 MiB hold 60 MiB, not 240: a limit between the two does not end them."""
    word = tmp_path / "word"
    script = f"""
import os, time

block = bytearray(60 * 2**20)
for page in range(0, len(block), 4096):
    block[page] = 1
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        children = []
        break
    children.append(child)
while not os.path.exists({str(word)!r}):
    time.sleep(0.05)
for child in children:
    os.waitpid(child, 0)
"""
    image = Image(path=(str(Path(sys.executable).parent),))
    with FakeKube() as kube:
        kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig.json")
        with ProcessKubelet(kubeconfig, [NodeSpec("n")], {"*": image}, tmp_path / "node", poll=0.05) as kubelet:
            k = Cluster(kubeconfig, kube, kubelet)
            k.namespace = "default"
            k.job("forks", limits={"memory": "140Mi"}, container={"command": ["python", "-c", script]})
            k.running("forks")
            (run,) = list(kubelet.running.values())
            k.until(lambda: run.containers[0].peak_resident > 200 * 2**20)  # whoever counts each page for each process
            word.touch()
            assert k.settled("forks").succeeded == 1, k.log("forks")


def test_a_mark_finds_a_process_and_its_children() -> None:
    mark = f"test-mark-{uuid.uuid4().hex}"
    process = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 300 & sleep 300; true"], env={processes.MARK: f"{mark}/1", "PATH": os.defpath}
    )
    try:
        end = time.monotonic() + 120
        while len(found := processes.marked(f"{mark}/1")) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        assert process.pid in found
        assert len(found) == 3
        assert not processes.marked(f"{mark}/2")
    finally:
        processes.kill_marked(mark)
        process.wait()
    assert _wait_for_end(found) == []
    assert processes.marked(mark) == []
