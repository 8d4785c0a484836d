"""One pod on its node: init containers in turn, then the containers, restarted as the pod's policy says, to its end."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.kubernetes.double import processes
from tests.kubernetes.double.objects import Obj, is_terminating, now
from tests.kubernetes.double.pod_environment import expand


@dataclass(kw_only=True)
class Image:
    """What an image's name stands for on this machine; nothing of the test's own environment is passed on.

    Attributes:
        env: Environment variables of the image.
        workdir: Working directory; None is the kubelet's folder.
        path: Folders put first on PATH.
        entrypoint: Command of a container that gives none.
    """

    env: dict[str, str] = field(default_factory=dict)
    workdir: str | None = None
    path: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()


@dataclass(kw_only=True)
class ContainerRun:
    """One container: its process, and what became of it."""

    spec: Obj
    env: dict[str, str]
    image: Image
    mark: str
    log: Path
    gpus: list[int] = field(default_factory=list)
    memory_limit: int | None = None
    process: subprocess.Popen | None = None
    started: str = ""
    started_at: float = 0.0
    killed_as: str | None = None
    ended: Obj | None = None
    restarts: int = 0
    last_end: Obj | None = None
    restart_at: float = 0.0
    peak_resident: int = 0
    cpu: float = 0.0

    @property
    def name(self) -> str:
        return self.spec["name"]

    @property
    def alive(self) -> bool:
        return self.process is not None and self.ended is None

    def start(self, folder: Path) -> None:
        """Start the process; a command that cannot be started is an end with code 128, as a runtime says it."""
        command = [*(self.spec.get("command") or self.image.entrypoint), *(self.spec.get("args") or [])]
        argv = [expand(part, self.env) for part in command]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        self.started, self.started_at = now(), time.monotonic()
        self.ended = self.killed_as = None
        try:
            argv[0] = shutil.which(argv[0], path=self.env["PATH"]) or argv[0]
            with self.log.open("wb", buffering=0) as out:
                self.process = subprocess.Popen(
                    argv,
                    env={**self.env, processes.MARK: self.mark},
                    cwd=self.spec.get("workingDir") or self.image.workdir or str(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except (OSError, IndexError) as error:  # IndexError: neither the container nor its image has a command
            self.log.touch()
            self.ended = self._end(128, "StartError", str(error))

    def look(self) -> bool:
        """Return whether the process has just ended; then all that it left behind is killed."""
        if not self.alive or self.process is None or self.process.poll() is None:
            return False
        processes.kill_marked(self.mark)
        code = self.process.returncode
        code = 128 - code if code < 0 else code
        self.ended = self._end(code, self.killed_as or ("Completed" if code == 0 else "Error"))
        return True

    def terminate(self) -> None:
        """Ask the main process to end, as a runtime does."""
        if self.alive and self.process is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def kill(self, reason: str | None = None, sig: int = signal.SIGKILL) -> None:
        """Kill all of the container's processes, or send the main one another signal."""
        if not self.alive or self.process is None:
            return
        self.killed_as = reason or self.killed_as
        with suppress(ProcessLookupError):
            if sig == signal.SIGKILL:
                os.killpg(self.process.pid, sig)
                processes.kill_marked(self.mark)
            else:
                os.kill(self.process.pid, sig)

    def status(self) -> Obj:
        waiting = {"waiting": {"reason": "CrashLoopBackOff" if self.restarts else "ContainerCreating"}}
        running = {"running": {"startedAt": self.started}}
        state = {"terminated": self.ended} if self.ended and not self.restart_at else running if self.alive else waiting
        status: Obj = {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": "",
            "ready": "running" in state,
            "started": "running" in state,
            "restartCount": self.restarts,
            "state": state,
        }
        if self.last_end:
            status["lastState"] = {"terminated": self.last_end}
        return status

    def _end(self, code: int, reason: str, message: str = "") -> Obj:
        end: Obj = {"exitCode": code, "reason": reason, "startedAt": self.started, "finishedAt": now()}
        return {**end, "message": message} if message else end


@dataclass(kw_only=True)
class PodRun:
    """A pod that its node has taken on."""

    pod: Obj
    node: str
    init: list[ContainerRun]
    containers: list[ContainerRun]
    folder: Path
    restart_delay: float
    taken_at: float = field(default_factory=time.monotonic)
    terminating_at: float | None = None
    reason: str = ""
    message: str = ""

    @property
    def name(self) -> str:
        return self.pod["metadata"]["name"]

    @property
    def namespace(self) -> str:
        return self.pod["metadata"]["namespace"]

    @property
    def all(self) -> list[ContainerRun]:
        return [*self.init, *self.containers]

    @property
    def alive(self) -> list[ContainerRun]:
        return [container for container in self.all if container.alive]

    def advance(self) -> list[ContainerRun]:
        """Start what is due and note what has ended. Returns the containers that ended since the last look."""
        ended = [container for container in self.all if container.look()]
        ending = self.terminating_at is not None or bool(self.reason)
        for container in self.init:
            if container.process is None and not container.ended and not ending:
                container.start(self.folder)
            self._restart(container, ending, init=True)
            if not container.ended or container.ended["exitCode"] or container.restart_at:
                return ended
        for container in self.containers:
            if container.process is None and not container.ended and not ending:
                container.start(self.folder)
            self._restart(container, ending, init=False)
        return ended

    @property
    def phase(self) -> str:
        """The pod's phase: Pending while init containers run, then Running until all have ended for good."""
        for container in self.init:
            if container.ended and container.ended["exitCode"] and not container.restart_at:
                return "Failed"
            if not container.ended or container.restart_at:
                return "Failed" if (self.reason or self.terminating_at) and not self.alive else "Pending"
        if any(container.alive or container.restart_at for container in self.containers):
            return "Running"
        codes = [container.ended["exitCode"] if container.ended else 137 for container in self.containers]
        return "Failed" if any(codes) or self.reason else "Succeeded"

    def status(self) -> Obj:
        """Return what the node reports of the pod, but for conditions that others write."""
        status: Obj = {
            "phase": self.phase,
            "containerStatuses": [container.status() for container in self.containers],
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "reason": self.reason or None,
            "message": self.message or None,
        }
        if self.init:
            status["initContainerStatuses"] = [container.status() for container in self.init]
        return status

    def kill(self, reason: str | None = None, sig: int = signal.SIGKILL) -> None:
        for container in self.all:
            container.kill(reason, sig)

    def stop(self) -> None:
        """Ask for the end, once."""
        if self.terminating_at is None:
            self.terminating_at = time.monotonic()
            for container in self.alive:
                container.terminate()

    def press(self) -> None:
        """Kill what has not ended within the pod's grace time."""
        grace = float(self.pod["metadata"].get("deletionGracePeriodSeconds", 30))
        if self.terminating_at is not None and time.monotonic() - self.terminating_at >= grace:
            self.kill()

    def _restart(self, container: ContainerRun, ending: bool, *, init: bool) -> None:
        """Start a container again after its delay, where the pod's policy says so."""
        policy = self.pod["spec"].get("restartPolicy", "Always")
        failed = bool(container.ended and container.ended["exitCode"])
        again = container.ended and (failed if init or policy == "OnFailure" else True) and policy != "Never"
        if not again or ending or is_terminating(self.pod):
            container.restart_at = 0.0
        elif not container.restart_at:
            container.last_end = container.ended
            container.restart_at = time.monotonic() + self.restart_delay * 2**container.restarts
        elif time.monotonic() >= container.restart_at:
            container.restarts += 1
            container.restart_at = 0.0
            container.process = None
            container.start(self.folder)
