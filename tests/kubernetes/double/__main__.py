"""Start the double by hand: `python -m tests.kubernetes.double --node gpu-1:cpu=8,memory=16Gi,gpus=2`."""

# ruff: noqa: T201 - a program prints where it can be reached

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path

from tests.kubernetes.double import FakeKube, Image, NodeSpec, ProcessKubelet

_DEFAULT_NODES = ("cpu-1:cpu=4,memory=8Gi", "gpu-1:cpu=4,memory=8Gi,gpus=1")
_FIELDS = {"cpu", "memory", "gpus", "pods"}


def node_of(text: str) -> NodeSpec:
    """Read `name:cpu=4,memory=8Gi,gpus=1`; a node with GPUs is tainted as such nodes are, and labelled pool=gpu."""
    name, _, rest = text.partition(":")
    pairs = [entry.partition("=") for entry in rest.split(",") if entry]
    fields = {key: value for key, _, value in pairs}
    unknown = sorted(set(fields) - _FIELDS)
    if not name or unknown or not all(fields.values()):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected NAME:cpu=4,memory=8Gi,gpus=1 with {', '.join(sorted(_FIELDS))}"
        )
    gpus = int(fields.get("gpus", "0"))
    return NodeSpec(
        name,
        cpu=fields.get("cpu", "4"),
        memory=fields.get("memory", "8Gi"),
        gpus=gpus,
        pods=int(fields.get("pods", "110")),
        labels={"pool": "gpu"} if gpus else {},
        taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}] if gpus else [],
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.double", description=__doc__)
    parser.add_argument("--node", action="append", type=node_of, help=f"a node; default: {' '.join(_DEFAULT_NODES)}")
    parser.add_argument("--namespace", action="append", default=[], help="a namespace beside `default`")
    parser.add_argument("--image", action="append", help="an image that can be pulled; default: every name is one")
    parser.add_argument("--folder", type=Path, help="for the kubeconfig and logs; default: a new folder")
    parser.add_argument("--rbac", action="store_true", help="enforce roles; the kubeconfig is the administrator's")
    options = parser.parse_args(arguments)
    nodes = options.node or [node_of(text) for text in _DEFAULT_NODES]
    folder = options.folder or Path(tempfile.mkdtemp(prefix="double-"))
    folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # Every image is this Python environment, run in the present folder.
    image = Image(
        path=(str(Path(sys.executable).parent),), workdir=str(Path.cwd()), env={"PYTHONPATH": str(Path.cwd())}
    )
    with FakeKube(namespaces=("default", *options.namespace), rbac=options.rbac) as kube:
        kubeconfig = kube.write_kubeconfig(folder / "kubeconfig.json")
        with ProcessKubelet(kubeconfig, nodes, dict.fromkeys(options.image or ["*"], image), folder / "nodes"):
            print(f"API server   {kube.url}")
            print(f"nodes        {', '.join(node.name for node in nodes)}")
            print(f"logs         {folder / 'nodes' / 'logs'}")
            print(f"export KUBECONFIG={kubeconfig}", flush=True)
            stop.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
