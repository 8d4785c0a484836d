"""A simulated node, and how it presents itself to the API server."""

from dataclasses import KW_ONLY, dataclass, field

from tests.kubernetes.double.objects import GPU, Obj, now
from tests.kubernetes.double.streams import LOG_URL

_NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
)


@dataclass
class NodeSpec:
    """What a node has, and who may come.

    Attributes:
        name: Name, also its label `kubernetes.io/hostname`.
        cpu, memory: What pods may ask for, as quantities ("4", "8Gi").
        gpus: Pieces of `nvidia.com/gpu`.
        labels: Further labels.
        taints: Taints, as Kubernetes writes them.
        pods: The most pods at once.
    """

    name: str
    _: KW_ONLY
    cpu: str = "4"
    memory: str = "8Gi"
    gpus: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[Obj] = field(default_factory=list)
    pods: int = 110


def node_object(node: NodeSpec, log_url: str) -> Obj:
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        **node.labels,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels, "annotations": {LOG_URL: log_url}},
        "spec": {"taints": list(node.taints)},
    }


def node_status(node: NodeSpec, log_port: int) -> Obj:
    capacity = {"cpu": node.cpu, "memory": node.memory, "pods": str(node.pods), "ephemeral-storage": "50Gi"}
    if node.gpus:
        capacity[GPU] = str(node.gpus)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "process kubelet",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [ready],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": node.name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": log_port}},
        "nodeInfo": {**dict.fromkeys(_NODE_INFO, "double"), "operatingSystem": "linux", "architecture": "amd64"},
    }
