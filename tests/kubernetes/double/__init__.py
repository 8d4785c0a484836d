"""A Kubernetes cluster for tests: an API server that speaks the real protocol, and nodes that run processes.

Two halves that know each other only through HTTP, so that each can be held against a real one: `FakeKube` is the
control plane, `ProcessKubelet` the nodes. `tests/kubernetes/test_contract.py` says what both have to do, and runs
against any cluster.
"""

from tests.kubernetes.double.cluster import FakeKube
from tests.kubernetes.double.containers import Image
from tests.kubernetes.double.kubelet import ProcessKubelet
from tests.kubernetes.double.node_spec import NodeSpec

__all__ = ["FakeKube", "Image", "NodeSpec", "ProcessKubelet"]
