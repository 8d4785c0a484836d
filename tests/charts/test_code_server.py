"""The code server as the chart starts it: its own command and variables load the team, and its probe is answered."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.charts.rendering import ROOT, only, rendered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_code_server_of_the_chart_starts_and_answers_its_probe(tmp_path: Path) -> None:
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.types import ListRepositoriesResponse
    from dagster._serdes import deserialize_value
    from grpc import RpcError, insecure_channel
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    deployment = only(rendered(), "Deployment", "code-server", namespace="team-births")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    port, state = free_port(), tmp_path / "state"
    places = {"/app": str(ROOT), "3030": str(port), "0.0.0.0": "127.0.0.1", "/opt/ml-assets": str(state)}  # noqa: S104

    def here(text: str) -> str:
        for there, ours in places.items():
            text = text.replace(there, ours)
        return text

    variables = only(rendered(), "ConfigMap", "ml-assets", namespace="team-births")["data"] | {
        entry["name"]: entry["value"] for entry in container["env"] if "value" in entry
    }
    environment = {name: here(value) for name, value in variables.items()}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    words = [*container["command"], *(here(word) for word in container["args"])]
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(words, env=environment, cwd=ROOT, stdout=output, stderr=output)
    try:
        probe = container["readinessProbe"]["grpc"]
        assert probe["port"] == container["ports"][0]["containerPort"]
        asked = health_pb2.HealthCheckRequest(service=probe["service"])
        with insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(800):
                assert server.poll() is None, log.read_text(encoding="utf-8")
                try:
                    answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=2)
                    break
                except RpcError:
                    time.sleep(0.2)
            else:
                raise AssertionError("the code server does not answer")
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        listed = deserialize_value(
            DagsterGrpcClient(port=port, host="127.0.0.1").list_repositories(), ListRepositoriesResponse
        )
        context = listed.container_context
        assert context is not None
        assert context["k8s"]["namespace"] == "team-births"
        assert listed.container_image == environment["DAGSTER_CURRENT_IMAGE"]
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:  # Dagster's handler raises where it may be swallowed; Kubernetes kills it too
            server.kill()
            server.wait(20)
