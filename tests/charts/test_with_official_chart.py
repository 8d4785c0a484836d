"""Our chart together with the real Dagster chart: every object of the union is held to what ours are held to.

The official chart is no part of the repository. `ML_ASSETS_TEST_DAGSTER_CHART` is the folder of an unpacked one.
"""

import copy
import importlib
import os
import re
import shlex
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from tests.charts.policy import (
    VERSIONS,
    assert_accounts_are_known,
    assert_images_have_versions,
    assert_names_are_unique,
    assert_probed,
    assert_restricted,
    assert_sized,
    assert_valid,
    may_reach,
    needed,
    selects,
)
from tests.charts.rendering import (
    CHART,
    FOLDER,
    RELEASE,
    Object,
    dagster_yaml,
    installation,
    of,
    only,
    pod_specs,
    render,
    rendered,
)

OFFICIAL = os.environ.get("ML_ASSETS_TEST_DAGSTER_CHART")
pytestmark = pytest.mark.skipif(OFFICIAL is None, reason="ML_ASSETS_TEST_DAGSTER_CHART: an unpacked official chart")

WEBSERVER, DAEMON = "ml-assets-dagster-webserver", "dagster-daemon"
MIGRATION = "ml-assets-dagster-webserver-instance-migrate"
BY_HAND = {"dagster-postgresql", "ml-assets"}
"""Secrets that docs/guides/kubernetes.md has people make."""


def with_official_chart(folder: Path) -> Path:
    """Write our chart to a folder, with the official chart as a part of it."""
    chart = Path(shutil.copytree(CHART, folder))
    part = Path(shutil.copytree(str(OFFICIAL), chart / "charts" / "dagster"))
    for schema in part.rglob("values.schema.json"):
        if re.search(r'"\$ref": *"https?://', schema.read_text(encoding="utf-8")):
            schema.unlink()  # it refers to addresses on the network, which Helm would ask
    return chart


@cache
def _together() -> list[Object]:
    values = installation(network=installation()["network"] | {"webserverFrom": ["login-proxy"]})
    values["dagster"] |= {"enabled": True, "migrate": {"enabled": True}}
    with TemporaryDirectory() as folder:
        objects = render(values, with_official_chart(Path(folder) / "chart"))
    for one in objects:
        if one["kind"] not in {"Namespace", "PriorityClass"}:
            one["metadata"].setdefault("namespace", RELEASE)  # Helm puts them there
    return objects


@pytest.fixture
def objects() -> list[Object]:
    """Everything that an installation with the official chart makes, a migration included."""
    return copy.deepcopy(_together())


def official(objects: list[Object]) -> list[Object]:
    """Return those objects that our chart alone does not make."""
    ours = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in rendered()}
    ours |= {("NetworkPolicy", RELEASE, name) for name in ("webserver", "migration")}
    return [o for o in objects if (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) not in ours]


def program(objects: list[Object], name: str) -> tuple[Object, Object]:
    """Return (labels of its pods, its container) of a Deployment of the official chart."""
    template = only(objects, "Deployment", name, namespace=RELEASE)["spec"]["template"]
    [container] = template["spec"]["containers"]
    return template["metadata"]["labels"], container


def test_it_makes_these_objects_and_no_others(objects: list[Object]) -> None:
    """No account, no rights, no Secret, no code server, no database: those are ours, or somebody else's."""
    assert {(o["kind"], o["metadata"]["name"]) for o in official(objects)} == {
        ("ConfigMap", "dagster-daemon-env"),
        ("ConfigMap", "dagster-instance"),
        ("ConfigMap", "dagster-pipeline-env"),
        ("ConfigMap", "dagster-webserver-env"),
        ("Deployment", DAEMON),
        ("Deployment", WEBSERVER),
        ("Job", MIGRATION),
        ("Service", WEBSERVER),
    }
    assert {o["metadata"]["namespace"] for o in official(objects)} == {RELEASE}


@pytest.mark.parametrize("version", VERSIONS)
def test_its_objects_are_valid(objects: list[Object], version: str) -> None:
    assert_valid(official(objects), version)


def test_the_union_passes_what_our_part_passes(objects: list[Object]) -> None:
    assert_names_are_unique(objects)
    assert_restricted(objects)
    assert_sized(objects)
    assert_images_have_versions(objects)
    assert_accounts_are_known(objects)
    assert_probed(objects)


def test_its_pods_have_our_account_and_ask_for_their_token_themselves(objects: list[Object]) -> None:
    found = {what: spec for what, spec in pod_specs(objects) if what.startswith(f"{RELEASE}/")}

    assert len(found) == 4
    for what, spec in found.items():
        assert spec["serviceAccountName"] == "dagster", what
        assert spec["automountServiceAccountToken"] is True, what
        assert not spec.get("imagePullSecrets"), what  # so that those of the account hold


def test_every_secret_and_config_map_of_a_pod_is_there_under_its_name(objects: list[Object]) -> None:
    made = {("ConfigMap", o["metadata"]["namespace"], o["metadata"]["name"]) for o in of(objects, "ConfigMap")}

    wanted = needed(objects)

    assert {name for _, kind, name in wanted if kind == "Secret"} == BY_HAND
    assert {(kind, namespace, name) for namespace, kind, name in wanted if kind == "ConfigMap"} <= made
    for name in (WEBSERVER, DAEMON):
        [password] = [e for e in program(objects, name)[1]["env"] if e["name"] == "DAGSTER_PG_PASSWORD"]
        assert password["valueFrom"] == {"secretKeyRef": {"name": "dagster-postgresql", "key": "postgresql-password"}}


def test_both_write_the_same_instance(objects: list[Object]) -> None:
    """What webserver and daemon read is what people read in their teams' namespaces."""
    assert dagster_yaml(objects, "team-births") == dagster_yaml(objects, RELEASE)


def test_dagster_reads_the_instance_that_the_official_chart_writes(objects: list[Object], tmp_path: Path) -> None:
    """Each class exists and takes its configuration, and what is left is known to Dagster."""
    from dagster._config import validate_config
    from dagster._core.instance.ref import InstanceRef

    text = only(objects, "ConfigMap", "dagster-instance", namespace=RELEASE)["data"]["dagster.yaml"]
    (tmp_path / "dagster.yaml").write_text(text, encoding="utf-8")

    ref = InstanceRef.from_dir(str(tmp_path))

    data = {
        "PostgresRunStorage": ref.run_storage_data,
        "PostgresEventLogStorage": ref.event_storage_data,
        "PostgresScheduleStorage": ref.schedule_storage_data,
        "K8sRunLauncher": ref.run_launcher_data,
        "PromptRunQueue": ref.run_coordinator_data,
        "DagsterDaemonScheduler": ref.scheduler_data,
        "NoOpComputeLogManager": ref.compute_logs_data,
    }
    for name, one in data.items():
        assert one is not None, name
        assert one.class_name == name
        found = getattr(importlib.import_module(one.module_name), one.class_name)
        result = validate_config(found.config_type(), one.config_dict)
        assert result.success, (name, result.errors)
    settings: dict[str, Any] = dict(ref.settings)
    assert settings["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert settings["concurrency"]["pools"]["granularity"] == "op"
    assert settings["telemetry"] == {"enabled": False}


def test_the_programs_read_the_workspace_that_names_our_code_servers(objects: list[Object]) -> None:
    workspace = yaml.safe_load(only(objects, "ConfigMap", "ml-assets-workspace")["data"]["workspace.yaml"])
    for entry in workspace["load_from"]:
        host = entry["grpc_server"]["host"].split(".")
        service = only(objects, "Service", host[0], namespace=host[1])
        assert entry["grpc_server"]["port"] in {port["port"] for port in service["spec"]["ports"]}
    assert [e["grpc_server"]["location_name"] for e in workspace["load_from"]] == ["flights", "births"]
    for name in (WEBSERVER, DAEMON):
        pod = only(objects, "Deployment", name)["spec"]["template"]["spec"]
        [volume] = [v for v in pod["volumes"] if v.get("configMap", {}).get("name") == "ml-assets-workspace"]
        [mount] = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == volume["name"]]
        assert f"{mount['mountPath']}workspace.yaml" in " ".join(pod["containers"][0]["command"])
        assert "subPath" not in mount  # a team that is added arrives without a new pod


def test_the_daemons_command_calls_the_program_that_is_first_on_our_images_path(objects: list[Object]) -> None:
    _, daemon = program(objects, DAEMON)
    shell, option, line = daemon["command"]
    assert (shell, option) == ("/bin/bash", "-c")  # no login shell: that would set the path anew
    assert shlex.split(line) == ["dagster-daemon", "run", "-w", "/dagster-workspace/workspace.yaml"]
    assert (FOLDER / "bin" / "dagster-daemon").is_file()
    assert "PATH=/app/bin:" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert not [e for e in daemon["env"] if e["name"] == "PATH"]
    # Asked for the heartbeats that the official chart says how old they may be.
    assert daemon["livenessProbe"]["exec"]["command"] == ["/venv/bin/dagster-daemon", "liveness-check"]
    assert {"name": "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE", "value": "300"} in daemon["env"]


def test_the_webservers_command_listens_where_its_service_and_our_policy_say(objects: list[Object]) -> None:
    labels, webserver = program(objects, WEBSERVER)
    service = only(objects, "Service", WEBSERVER)["spec"]
    policy = only(objects, "NetworkPolicy", "webserver")["spec"]

    assert shlex.split(webserver["command"][2])[:5] == ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000"]  # noqa: S104
    assert [port["containerPort"] for port in webserver["ports"]] == [service["ports"][0]["port"]] == [3000]
    assert selects({"matchLabels": service["selector"]}, labels)
    assert selects(policy["podSelector"], labels)
    assert policy["ingress"][0]["ports"][0]["port"] == 3000
    # docs/guides/kubernetes.md and the chart's notes have people forward this one.
    assert service["ports"][0].get("targetPort", 3000) == 3000


def test_our_network_policies_select_its_pods(objects: list[Object]) -> None:
    [source] = only(objects, "NetworkPolicy", "code-server", namespace="team-births")["spec"]["ingress"][0]["from"]
    destinations = installation()["network"]["destinations"]
    addresses = {name: {"ipBlock": {"cidr": destinations[name]["cidrs"][0]}} for name in ("postgres", "apiServer")}
    for name in (WEBSERVER, DAEMON):
        labels, _ = program(objects, name)
        rules = may_reach(objects, RELEASE, labels)
        reached = [to for rule in rules for to in rule["to"]]
        assert addresses["postgres"] in reached, name
        assert addresses["apiServer"] in reached, name
        assert 3030 in [port["port"] for rule in rules for port in rule["ports"]], name
        assert selects(source["podSelector"], labels), name
    # Kubernetes gives the pods of a Job this label; the official chart gives them none.
    labels: dict[str, Any] = {"batch.kubernetes.io/job-name": MIGRATION}
    reached = [to for rule in may_reach(objects, RELEASE, labels) for to in rule["to"]]
    assert addresses["postgres"] in reached
    assert addresses["apiServer"] not in reached


def test_no_selector_takes_anothers_pods(objects: list[Object]) -> None:
    pods = {name: labels for name in (WEBSERVER, DAEMON) for labels in [program(objects, name)[0]]}
    reaper = only(objects, "CronJob", "reaper")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    for name in (WEBSERVER, DAEMON):
        deployment = only(objects, "Deployment", name)
        # By which docs/guides/kubernetes.md has people restart both.
        assert deployment["metadata"]["labels"]["app.kubernetes.io/name"] == "dagster"
        selector = deployment["spec"]["selector"]
        assert [other for other, labels in (pods | {"reaper": reaper}).items() if selects(selector, labels)] == [name]


def test_what_it_writes_to_the_environment_is_ours_where_both_write(objects: list[Object]) -> None:
    """`envFrom`: the last one wins, and `ml-assets` comes after the official chart's own."""
    ours = only(objects, "ConfigMap", "ml-assets", namespace=RELEASE)["data"]
    for name, theirs in ((WEBSERVER, "dagster-webserver-env"), (DAEMON, "dagster-daemon-env")):
        sources = [one["configMapRef"]["name"] for one in program(objects, name)[1]["envFrom"] if "configMapRef" in one]
        assert sources == [theirs, "ml-assets"]
        data = only(objects, "ConfigMap", theirs, namespace=RELEASE)["data"]
        assert {key: data[key] for key in set(data) & set(ours)} == {"DAGSTER_HOME": ours["DAGSTER_HOME"]}
