"""`helm upgrade` on a cluster double: what a new image, and a team that leaves and returns, do to what runs.

`ML_ASSETS_TEST_HELM` as in test_with_helm.py. Helm keeps its releases in PostgreSQL here: it writes Secrets in a form
that the double does not read.
"""

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.charts.rendering import RELEASE, Object, chart_with_stand_in, installation
from tests.charts.test_with_helm import HELMS, run
from tests.kubernetes.double import FakeKube

pytestmark = [
    pytest.mark.skipif(not HELMS, reason="ML_ASSETS_TEST_HELM: the path of a helm"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]
TEAM = "team-births"
GUARDS = {
    "/apis/networking.k8s.io/v1/networkpolicies/default-deny",
    "/api/v1/resourcequotas/team",
    "/api/v1/resourcequotas/no-system-priority",
    "/api/v1/limitranges/team",
}
KINDS = (
    *("/api/v1/" + kind for kind in ("configmaps", "limitranges", "resourcequotas", "serviceaccounts", "services")),
    *("/apis/rbac.authorization.k8s.io/v1/" + kind for kind in ("rolebindings", "roles")),
    *("/apis/" + kind for kind in ("apps/v1/deployments", "networking.k8s.io/v1/networkpolicies", "batch/v1/jobs")),
)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release on a double.

    Attributes:
        helm: Path of the program.
        url: Address of the cluster.
        folder: For files.
        storage: URL of Helm's database.
    """

    helm: str
    url: str
    folder: Path
    storage: str

    def upgrade(self, values: Object) -> None:
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        words = ["upgrade", "--install", RELEASE, self.folder / "chart", "--namespace", RELEASE, "--values", file]
        if run(self.helm, "version", "--short", folder=self.folder).stdout.startswith("v4."):
            words.append("--server-side=false")
        environment = {"HELM_DRIVER": "sql", "HELM_DRIVER_SQL_CONNECTION_STRING": self.storage}
        environment["KUBECONFIG"] = str(self.folder / "kubeconfig.json")
        done = run(self.helm, *words, "--disable-openapi-validation", folder=self.folder, environment=environment)
        assert done.returncode == 0, done.stderr

    def start_a_run(self) -> None:
        from kubernetes import config, utils

        container = {"name": "dagster", "image": "x", "resources": {"limits": {"memory": "1Gi"}}}
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        metadata = {"name": "run", "namespace": TEAM}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}
        utils.create_from_dict(config.new_client_from_config(str(self.folder / "kubeconfig.json")), job)

    def of_the_team(self) -> dict[str, str]:
        """Return path → UID of each object in the team's namespace: an object that was made anew has another one."""
        found = {}
        for kind in KINDS:
            group, _, plural = kind.rpartition("/")
            page = self.ask(f"{group}/namespaces/{TEAM}/{plural}")
            found |= {f"{kind}/{one['metadata']['name']}": one["metadata"]["uid"] for one in page["items"]}
        return found

    def ask(self, path: str) -> Object:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310 the double's own address
            return json.load(answer)


@pytest.fixture(params=HELMS, ids=[f"helm-{n}" for n in range(len(HELMS))])
def release(request: pytest.FixtureRequest, postgres_database: str, tmp_path: Path) -> Iterator[Release]:
    chart_with_stand_in(tmp_path / "chart")
    with FakeKube(namespaces=("default", RELEASE)) as kube:
        kube.write_kubeconfig(tmp_path / "kubeconfig.json")
        storage = f"{postgres_database}?sslmode=disable"
        yield Release(helm=request.param, url=kube.url, folder=tmp_path, storage=storage)


def test_what_runs_outlives_upgrades_and_its_teams_entry(release: Release) -> None:
    release.upgrade(installation())
    release.start_a_run()
    first = release.of_the_team()
    assert set(first) > GUARDS | {"/apis/batch/v1/jobs/run"}

    release.upgrade(installation(image={"repository": "registry.example/ml-assets", "tag": "0.2.0"}))

    assert release.of_the_team() == first  # all of them changed in place
    server = release.ask(f"/apis/apps/v1/namespaces/{TEAM}/deployments/code-server")
    assert server["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":0.2.0")

    release.upgrade(installation(teams=[{"name": "flights"}]))

    left = release.of_the_team()
    own = {path for path in left if not path.endswith(("/default", "/kube-root-ca.crt"))}
    assert own == GUARDS | {"/apis/batch/v1/jobs/run"}
    assert {path: first[path] for path in own} == {path: left[path] for path in own}

    release.upgrade(installation())

    again = release.of_the_team()
    assert set(again) == set(first)
    assert {path: again[path] for path in own} == {path: first[path] for path in own}
