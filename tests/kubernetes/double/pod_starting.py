"""From a pod on a node to what can be started: images, environments, and GPUs that belong to one pod at a time."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from tests.kubernetes.double import quantities
from tests.kubernetes.double.containers import ContainerRun, Image, PodRun
from tests.kubernetes.double.node_spec import NodeSpec
from tests.kubernetes.double.objects import GPU, Obj
from tests.kubernetes.double.pod_environment import ConfigError, PodEnvironment

ANY_IMAGE = "*"


class NotYetError(Exception):
    """A pod's containers cannot start now; `reason` is the word that their status gives."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PodStarter:
    """Makes ready-to-run pods.

    Args:
        kubelet: The kubelet's own mark, which every process carries.
        nodes: Its nodes, for their GPUs.
        images: What the names of images stand for.
        environment: Makes the environment of a container.
        folder: Default working directory.
        log_path: Where the log of a container goes: of namespace, pod and container.
        restart_delay: Seconds before a container is started again.

    Attributes:
        broken: Images whose pulls fail.
        max_gpu_in_use: By node, the most GPUs that were in use at once.
    """

    def __init__(
        self,
        kubelet: str,
        nodes: Sequence[NodeSpec],
        images: dict[str, Image],
        environment: PodEnvironment,
        folder: Path,
        log_path: Callable[[str, str, str], Path],
        *,
        restart_delay: float,
    ) -> None:
        self._kubelet, self._images, self._environment = kubelet, images, environment
        self._folder, self._log_path, self._restart_delay = folder, log_path, restart_delay
        self._gpus = {node.name: node.gpus for node in nodes}
        self._free = {node.name: list(range(node.gpus)) for node in nodes}
        self.broken: set[str] = set()
        self.max_gpu_in_use = {node.name: 0 for node in nodes}

    def prepare(self, pod: Obj) -> PodRun | None:
        """Return the pod, ready to be started; None while its GPUs are with a pod that is just ending.

        Raises:
            NotYetError: If an image cannot be pulled, or a Secret or ConfigMap is missing.
        """
        spec = pod["spec"]
        first, node = spec.get("initContainers") or [], spec["nodeName"]
        containers = [*first, *spec["containers"]]
        for container in containers:
            if self._image(container["image"]) is None:
                raise NotYetError("ErrImagePull", f'failed to pull image "{container["image"]}": not found')
        wanted = {c["name"]: int(quantities.container_requests(c).get(GPU, Fraction(0))) for c in spec["containers"]}
        if sum(wanted.values()) > len(self._free[node]):
            return None
        try:
            runs = [self._run_of(pod, container) for container in containers]
        except ConfigError as error:
            raise NotYetError("CreateContainerConfigError", str(error)) from None
        for run in runs:
            run.gpus = [self._free[node].pop(0) for _ in range(wanted.get(run.name, 0))]
            visible = ",".join(map(str, run.gpus))
            run.env["CUDA_VISIBLE_DEVICES"], run.env["NVIDIA_VISIBLE_DEVICES"] = visible, visible or "none"
        in_use = self._gpus[node] - len(self._free[node])
        self.max_gpu_in_use[node] = max(self.max_gpu_in_use[node], in_use)
        return PodRun(
            pod=pod,
            node=node,
            init=runs[: len(first)],
            containers=runs[len(first) :],
            folder=self._folder,
            restart_delay=self._restart_delay,
        )

    def release(self, run: PodRun) -> None:
        """Take the GPUs of a pod back."""
        free = self._free[run.node]
        free += [gpu for container in run.containers for gpu in container.gpus]
        free.sort()

    def _run_of(self, pod: Obj, container: Obj) -> ContainerRun:
        image, meta = self._image(container["image"]), pod["metadata"]
        assert image is not None
        limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        return ContainerRun(
            spec=container,
            env=self._environment.of(pod, container, image.env, image.path),
            image=image,
            mark=f"{self._kubelet}/{meta['uid']}/{container['name']}",
            log=self._log_path(meta["namespace"], meta["name"], container["name"]),
            memory_limit=int(quantities.parse(limit)) if limit else None,
        )

    def _image(self, name: str) -> Image | None:
        if name in self.broken:
            return None
        return self._images.get(name) or self._images.get(ANY_IMAGE)
