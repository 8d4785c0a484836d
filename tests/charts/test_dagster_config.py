"""What Dagster and dagster-k8s make of the chart's configuration: the instance, and the pods of runs and of steps."""

from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.instance.config import dagster_instance_config
from dagster_k8s import K8sRunLauncher

from ml_assets.compute import op_tags
from ml_assets.interfaces import StepResources
from resources.run_queue import PromptRunQueue
from tests.charts.pods import container_context, job_of, made_launcher
from tests.charts.rendering import ROOT, dagster_yaml, installation, of, only, render, rendered

TEAM = "team-flights"


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> K8sRunLauncher:
    return made_launcher(monkeypatch)


def test_the_instance_configuration_is_one_that_dagster_takes(tmp_path: Path) -> None:
    """Storage classes are those of the image and not installed here; all the rest is read as Dagster reads it."""
    config = dagster_yaml(rendered(), TEAM)
    for name in ("run_storage", "event_log_storage", "schedule_storage"):
        assert config[name]["module"].startswith("dagster_postgres.")
        assert config[name]["config"]["postgres_db"]["scheme"] == "postgresql+psycopg2"
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    read, _ = dagster_instance_config(str(tmp_path))

    assert read["run_monitoring"]["max_resume_run_attempts"] == 1
    assert read["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert config["run_monitoring"] == read["run_monitoring"]


def test_the_queue_is_ours_with_the_limits_of_the_local_instance(tmp_path: Path) -> None:
    config = dagster_yaml(rendered(), TEAM)
    local = yaml.safe_load((ROOT / "deployments" / "local" / "dagster.yaml").read_text(encoding="utf-8"))
    kept = {name: config[name] for name in ("run_coordinator", "concurrency", "telemetry", "nux")}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")

    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_coordinator, PromptRunQueue)
        limits = instance.get_concurrency_config().run_queue_config
        assert limits is not None
        assert limits.tag_concurrency_limits == local["concurrency"]["runs"]["tag_concurrency_limits"]
    assert config["concurrency"]["pools"]["granularity"] == "op"


def test_the_launcher_leaves_the_image_to_the_code_location(launcher: K8sRunLauncher) -> None:
    """One of its own would win over it in the pods of steps."""
    assert launcher.job_image is None
    assert launcher.job_namespace == "ml-assets"
    assert launcher.instance_config_map == "dagster-instance"


def test_every_config_map_and_account_that_a_run_needs_is_in_its_namespace() -> None:
    objects = rendered()
    for namespace in (TEAM, "team-births"):
        context = container_context(objects, namespace)["k8s"]
        assert context["namespace"] == namespace
        maps = {one["metadata"]["name"] for one in of(objects, "ConfigMap", namespace=namespace)}
        assert set(context["env_config_maps"]) <= maps
        only(objects, "ServiceAccount", context["service_account_name"], namespace=namespace)


def test_a_runs_pod_is_held_to_the_restricted_standard(launcher: K8sRunLauncher) -> None:
    template = job_of(launcher).spec.template
    pod, [container] = template.spec, template.spec.containers

    assert template.metadata.labels["app.kubernetes.io/component"] == "run_worker"
    assert pod.service_account_name == "run-worker"
    assert pod.automount_service_account_token is True
    assert (pod.security_context.run_as_non_root, pod.security_context.run_as_user) == (True, 10001)
    assert pod.security_context.seccomp_profile.type == "RuntimeDefault"
    assert container.security_context.read_only_root_filesystem is True
    assert container.security_context.allow_privilege_escalation is False
    assert container.security_context.capabilities.drop == ["ALL"]
    assert container.resources.requests == {"cpu": "2000m", "memory": "4096Mi"}
    assert container.resources.limits == {"memory": "4096Mi"}
    assert {"name": "ML_ASSETS_CORES", "value": "2"} in [{"name": e.name, "value": e.value} for e in container.env]
    writable = {volume.name for volume in pod.volumes if volume.empty_dir}
    assert {m.mount_path: m.name in writable for m in container.volume_mounts} == {
        "/tmp": True,  # noqa: S108 - the container's
        "/opt/ml-assets/dagster": True,
    }


def test_a_step_in_a_pod_of_its_own_gets_what_its_profile_says_and_may_do_nothing(launcher: K8sRunLauncher) -> None:
    """The run worker's size must not hold back a larger step: no limit of cores may be merged into it."""
    tags = op_tags(StepResources(cores=8, memory_gib=32, gpus=1, node_selector={"pool": "gpu"}, price_per_hour=1.0))
    template = job_of(launcher, tags).spec.template
    pod, [container] = template.spec, template.spec.containers

    assert container.resources.requests == {"cpu": "8", "memory": "32768Mi"}
    assert container.resources.limits == {"memory": "32768Mi", "nvidia.com/gpu": "1"}
    assert pod.node_selector == {"pool": "gpu"}
    assert pod.service_account_name == "step"
    assert container.security_context.read_only_root_filesystem is True
    assert pod.security_context.run_as_non_root is True
    rights = {s["name"] for binding in of(rendered(), "RoleBinding", namespace=TEAM) for s in binding["subjects"]}
    assert rights == {"dagster", "run-worker"}


def test_a_teams_settings_are_laid_over_those_of_all() -> None:
    values = installation(
        secrets=["ml-assets"],
        teams=[
            {
                "name": "flights",
                "environment": {"ML_ASSETS_DATA": "s3://flights", "OMP_NUM_THREADS": 2},
                "secrets": ["flights-only", "ml-assets"],
                "runWorker": {"cores": 3},
                "serviceAccountAnnotations": {"cloud/role": "flights"},
            }
        ],
    )
    objects = render(values)

    variables = only(objects, "ConfigMap", "ml-assets", namespace=TEAM)["data"]
    assert variables["ML_ASSETS_DATA"] == "s3://flights"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["ML_ASSETS_LANDING"] == "s3://landing-example"
    assert variables["ML_ASSETS_STATE"] + "/dagster" == variables["DAGSTER_HOME"]
    context = container_context(objects, TEAM)["k8s"]
    assert context["env_secrets"] == ["ml-assets", "flights-only"]
    assert context["resources"]["requests"] == {"cpu": "3000m", "memory": "4096Mi"}
    assert {a["metadata"]["annotations"]["cloud/role"] for a in of(objects, "ServiceAccount", namespace=TEAM)} == {
        "flights"
    }


def test_a_person_in_a_code_server_finds_the_instance() -> None:
    server = only(rendered(), "Deployment", "code-server", namespace=TEAM)["spec"]["template"]["spec"]
    [mount] = [m for m in server["containers"][0]["volumeMounts"] if m["name"] == "instance"]
    variables = only(rendered(), "ConfigMap", "ml-assets", namespace=TEAM)["data"]

    assert mount["mountPath"] == f"{variables['DAGSTER_HOME']}/dagster.yaml"
    assert {"name": "instance", "configMap": {"name": "dagster-instance"}} in server["volumes"]


def test_the_workspace_names_each_teams_code_server() -> None:
    text = only(rendered(), "ConfigMap", "ml-assets-workspace")["data"]["workspace.yaml"]

    assert yaml.safe_load(text)["load_from"] == [
        {"grpc_server": {"host": f"code-server.team-{name}.svc", "port": 3030, "location_name": name}}
        for name in ("flights", "births")
    ]
