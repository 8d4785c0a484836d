"""The contract of the API itself: reads, writes, watches, selectors, refusals. No pod runs, so this is fast.

See `contract_cluster.py` for how to point it at a cluster.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes.contract_cluster import Cluster, contract_cluster, refused

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with contract_cluster(tmp_path_factory.mktemp("cluster"), with_nodes=False) as cluster:
        yield cluster


@pytest.fixture
def k(cluster: Cluster) -> Iterator[Cluster]:
    with cluster.own_namespace():
        yield cluster


def _map(name: str, *, labels: dict[str, str] | None = None, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}, **meta}, "data": {"key": name}}


def _create(k: Cluster, name: str, **meta: Any) -> Any:
    return k.core.create_namespaced_config_map(k.namespace, _map(name, **meta))


def _names(k: Cluster, **selectors: Any) -> list[str]:
    # The namespace's own certificate map, which a cluster adds, is none of ours.
    items = k.core.list_namespaced_config_map(k.namespace, **selectors).items
    return [item.metadata.name for item in items if item.metadata.name != "kube-root-ca.crt"]


def _idle(k: Cluster, name: str, **fields: Any) -> Any:
    """Create a Job that gets no pod."""
    return k.job(name, **{**fields, "job": {"suspend": True, **fields.get("job", {})}})


# ---------------------------------------------------------------------- reads and writes


def test_an_object_is_created_read_and_deleted_once(k: Cluster) -> None:
    made = _create(k, "one")
    assert made.metadata.uid
    assert made.metadata.resource_version
    assert made.metadata.creation_timestamp
    assert refused(_create, k, "one")[0] == 409
    assert k.core.read_namespaced_config_map("one", k.namespace).data == {"key": "one"}
    k.core.delete_namespaced_config_map("one", k.namespace)
    assert refused(k.core.read_namespaced_config_map, "one", k.namespace)[0] == 404
    assert refused(k.core.delete_namespaced_config_map, "one", k.namespace)[0] == 404


def test_a_refusal_is_a_status_object_with_a_reason(k: Cluster) -> None:
    code, body = refused(k.batch.read_namespaced_job_status, "missing", k.namespace)
    assert code == 404
    assert '"kind":"Status"' in body.replace(" ", "")
    assert '"reason":"NotFound"' in body.replace(" ", "")
    assert 'jobs.batch \\"missing\\" not found' in body


def test_a_kind_that_is_not_served_is_not_found(k: Cluster) -> None:
    from kubernetes import client

    custom = client.CustomObjectsApi(k.api)
    assert refused(custom.list_namespaced_custom_object, "example.test", "v1", k.namespace, "widgets")[0] == 404


def test_a_namespace_must_be_there(k: Cluster) -> None:
    code, body = refused(k.core.create_namespaced_config_map, "ml-assets-nowhere", _map("x"))
    assert code == 404
    assert 'namespaces \\"ml-assets-nowhere\\" not found' in body


def test_a_name_can_be_generated(k: Cluster) -> None:
    made = k.core.create_namespaced_config_map(k.namespace, {"metadata": {"generateName": "made-"}})
    assert made.metadata.name.startswith("made-")
    assert len(made.metadata.name) == len("made-") + 5


def test_a_write_from_an_old_reading_is_a_conflict(k: Cluster) -> None:
    old = _create(k, "shared")
    new = k.core.replace_namespaced_config_map("shared", k.namespace, {**_map("shared"), "data": {"key": "newer"}})
    assert int(new.metadata.resource_version) > int(old.metadata.resource_version)
    assert refused(k.core.replace_namespaced_config_map, "shared", k.namespace, old)[0] == 409
    assert k.core.read_namespaced_config_map("shared", k.namespace).data == {"key": "newer"}


@pytest.mark.parametrize(
    ("content_type", "patch"),
    [
        ("application/merge-patch+json", {"data": {"key": None, "other": "1"}}),
        ("application/strategic-merge-patch+json", {"data": {"key": None, "other": "1"}}),
        (
            "application/json-patch+json",
            [{"op": "remove", "path": "/data/key"}, {"op": "add", "path": "/data/other", "value": "1"}],
        ),
    ],
    ids=["merge", "strategic", "json"],
)
def test_an_object_is_patched_in_three_ways(k: Cluster, content_type: str, patch: Any) -> None:
    _create(k, "patched", labels={"kept": "yes"})
    made = k.core.patch_namespaced_config_map("patched", k.namespace, patch, _content_type=content_type)
    assert made.data == {"other": "1"}
    assert made.metadata.labels == {"kept": "yes"}


def test_a_strategic_patch_merges_lists_by_their_key(k: Cluster) -> None:
    _create(k, "owned", finalizers=["ml-assets.test/hold"])  # so that nobody collects it for its invented owners
    for uid in ("u-1", "u-2"):
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": f"owner-{uid}", "uid": uid}
        made = _patch_strategically(k, "owned", {"ownerReferences": [owner]})
    assert [owner.uid for owner in made.metadata.owner_references] == ["u-1", "u-2"]
    _patch_strategically(k, "owned", {"finalizers": None})


def _patch_strategically(k: Cluster, name: str, meta: dict[str, Any]) -> Any:
    kind = "application/strategic-merge-patch+json"
    return k.core.patch_namespaced_config_map(name, k.namespace, {"metadata": meta}, _content_type=kind)


def test_status_and_the_rest_are_written_apart(k: Cluster) -> None:
    k.quota(pods="5")
    write = k.core.patch_namespaced_resource_quota
    assert (write("quota", k.namespace, {"status": {"used": {"pods": "7"}}}).status.used or {}).get("pods") != "7"
    write_status = k.core.patch_namespaced_resource_quota_status
    assert write_status("quota", k.namespace, {"spec": {"hard": {"pods": "9"}}}).spec.hard == {"pods": "5"}


def test_a_delete_can_name_the_very_object(k: Cluster) -> None:
    made = _create(k, "this")
    delete = k.core.delete_namespaced_config_map
    assert refused(delete, "this", k.namespace, body={"preconditions": {"uid": "another"}})[0] == 409
    delete("this", k.namespace, body={"preconditions": {"uid": made.metadata.uid}})
    assert _names(k) == []


def test_a_collection_is_deleted_by_label(k: Cluster) -> None:
    for name, side in (("a", "left"), ("b", "left"), ("c", "right")):
        _create(k, name, labels={"side": side})
    k.core.delete_collection_namespaced_config_map(k.namespace, label_selector="side=left")
    assert _names(k) == ["c"]


def test_a_finalizer_holds_an_object(k: Cluster) -> None:
    _create(k, "held", finalizers=["ml-assets.test/hold"])
    k.core.delete_namespaced_config_map("held", k.namespace)
    assert k.core.read_namespaced_config_map("held", k.namespace).metadata.deletion_timestamp
    k.core.patch_namespaced_config_map("held", k.namespace, {"metadata": {"finalizers": None}})
    assert _names(k) == []


# ---------------------------------------------------------------------- lists, selectors, watches


def test_objects_are_selected_by_label(k: Cluster) -> None:
    _create(k, "a", labels={"tier": "web", "zone": "1"})
    _create(k, "b", labels={"tier": "db", "zone": "2"})
    _create(k, "c", labels={"zone": "1"})
    expected = {
        "tier=web": ["a"],
        "tier!=web": ["b", "c"],
        "tier in (web,db)": ["a", "b"],
        "tier notin (web)": ["b", "c"],
        "tier": ["a", "b"],
        "!tier": ["c"],
        "tier,zone=1": ["a"],
    }
    assert {terms: _names(k, label_selector=f"zone,{terms}") for terms in expected} == expected


def test_objects_are_selected_by_field(k: Cluster) -> None:
    _create(k, "a")
    _create(k, "b")
    assert _names(k, field_selector="metadata.name=b") == ["b"]
    assert _names(k, field_selector="metadata.name!=b") == ["a"]
    assert refused(_names, k, field_selector="data.key=a")[0] == 400


def test_events_are_found_by_what_they_are_about(k: Cluster) -> None:
    for name in ("first", "second"):
        about = {"kind": "Job", "apiVersion": "batch/v1", "name": name, "namespace": k.namespace, "uid": f"uid-{name}"}
        body = {
            "metadata": {"generateName": "e-"},
            "involvedObject": about,
            "reason": "Tested",
            "message": name,
            "type": "Normal",
        }
        k.core.create_namespaced_event(k.namespace, body)
    found = k.core.list_namespaced_event(k.namespace, field_selector="involvedObject.name=second,reason=Tested").items
    assert [event.message for event in found] == ["second"]


def test_a_long_list_comes_in_pages(k: Cluster) -> None:
    for number in range(5):
        _create(k, f"item-{number}", labels={"paged": "yes"})
    names: list[str] = []
    page = k.core.list_namespaced_config_map(k.namespace, label_selector="paged", limit=2)
    pages = 1
    while True:
        names += [item.metadata.name for item in page.items]
        if not page.metadata._continue:
            break
        page = k.core.list_namespaced_config_map(
            k.namespace, label_selector="paged", limit=2, _continue=page.metadata._continue
        )
        pages += 1
    assert pages == 3
    assert names == [f"item-{number}" for number in range(5)]


def _watched(k: Cluster, changes: Any, **options: Any) -> list[tuple[str, str]]:
    """Return what a watch sees while `changes()` is made: kinds of events and names, until one named "last" comes.

    The changes begin once the watch has told of something that was there: then it is on. One that goes on from a
    resource version tells of all changes after it, so they begin at once.
    """
    from kubernetes import watch

    seen: list[tuple[str, str]] = []
    worker = threading.Thread(target=changes, daemon=True)
    if "resource_version" in options:
        worker.start()
    stream = watch.Watch()
    event: Any
    for event in stream.stream(k.core.list_namespaced_config_map, k.namespace, timeout_seconds=120, **options):
        if worker.ident is None:
            worker.start()
        name = event["object"].metadata.name
        if name != "kube-root-ca.crt":
            seen.append((event["type"], name))
        if name == "last":
            stream.stop()
    worker.join()
    return seen


def test_a_watch_tells_what_is_there_and_what_changes(k: Cluster) -> None:
    _create(k, "before")

    def changes() -> None:
        _create(k, "a")
        k.core.patch_namespaced_config_map("a", k.namespace, {"data": {"key": "new"}})
        k.core.delete_namespaced_config_map("before", k.namespace)
        _create(k, "last")

    seen = _watched(k, changes)
    assert seen == [("ADDED", "before"), ("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "before"), ("ADDED", "last")]


def test_a_watch_goes_on_from_a_list(k: Cluster) -> None:
    _create(k, "listed")
    version = k.core.list_namespaced_config_map(k.namespace).metadata.resource_version
    assert _watched(k, lambda: _create(k, "last"), resource_version=version) == [("ADDED", "last")]


def test_an_object_that_leaves_the_selection_is_deleted_to_its_watch(k: Cluster) -> None:
    _create(k, "moving", labels={"side": "left"})

    def changes() -> None:
        k.core.patch_namespaced_config_map("moving", k.namespace, {"metadata": {"labels": {"side": "right"}}})
        k.core.patch_namespaced_config_map("moving", k.namespace, {"metadata": {"labels": {"side": "left"}}})
        _create(k, "last", labels={"side": "left"})

    seen = _watched(k, changes, label_selector="side=left")
    assert seen == [("ADDED", "moving"), ("DELETED", "moving"), ("ADDED", "moving"), ("ADDED", "last")]


def test_a_watch_ends_in_time(k: Cluster) -> None:
    from kubernetes import watch

    began = time.monotonic()
    assert list(watch.Watch().stream(k.core.list_namespaced_secret, k.namespace, timeout_seconds=1)) == []
    assert 0.9 < time.monotonic() - began < 60  # of the 300 s that a watch lasts without a word


def test_a_watch_from_a_forgotten_time_is_refused(k: Cluster) -> None:
    kube = k.need_double()
    from kubernetes import watch
    from kubernetes.client import ApiException

    version = k.core.list_namespaced_config_map(k.namespace).metadata.resource_version
    kube.forget_changes()
    _create(k, "later")
    stream = watch.Watch().stream(
        k.core.list_namespaced_config_map, k.namespace, resource_version=version, timeout_seconds=5
    )
    with pytest.raises(ApiException) as caught:
        list(stream)
    assert caught.value.status == 410


# ---------------------------------------------------------------------- Jobs, as far as they go without a pod


def test_a_job_gets_its_defaults_and_labels(k: Cluster) -> None:
    job = _idle(k, "defaults", limits={"cpu": "1"}, job={"backoffLimit": None})
    assert (job.spec.backoff_limit, job.spec.completions, job.spec.parallelism) == (6, 1, 1)
    assert job.spec.selector.match_labels == {"batch.kubernetes.io/controller-uid": job.metadata.uid}
    assert job.spec.template.metadata.labels["job-name"] == "defaults"
    container = job.spec.template.spec.containers[0]
    assert container.image_pull_policy == "IfNotPresent"
    assert container.resources.requests is None


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("BAD_NAME", {}, "metadata.name"),
        ("a" * 64, {}, ""),
        ("restart", {"pod": {"restartPolicy": "Always"}}, "spec.template.spec.restartPolicy"),
        ("half", {"limits": {"nvidia.com/gpu": "500m"}}, "must be an integer"),
        ("unlimited", {"requests": {"nvidia.com/gpu": "1"}}, "resources.limits"),
        ("unequal", {"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "1"}}, "resources.requests"),
        ("less", {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}, "must be less than or equal to cpu limit"),
        (
            "tol",
            {"pod": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
            "tolerations[0].operator",
        ),
        ("vol", {"container": {"volumeMounts": [{"name": "nope", "mountPath": "/x"}]}}, "volumeMounts"),
        ("label", {"job": {"template": {"metadata": {"labels": {"a": "not valid"}}}}}, ""),
        (
            "policy",
            {
                "pod": {"restartPolicy": "OnFailure"},
                "job": {"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": []}]}},
            },
            "spec.template.spec.restartPolicy",
        ),
    ],
)
def test_a_job_that_cannot_work_is_refused(k: Cluster, name: str, fields: dict[str, Any], field: str) -> None:
    code, body = refused(_idle, k, name, **fields)
    assert code == 422
    assert field in body


def test_what_a_job_runs_cannot_be_changed(k: Cluster) -> None:
    k.job("fixed", pod={"serviceAccountName": "ghost"})
    template = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "another:1"}]}}}}
    code, body = refused(k.batch.patch_namespaced_job, "fixed", k.namespace, template)
    assert code == 422
    assert "field is immutable" in body
    assert k.batch.patch_namespaced_job("fixed", k.namespace, {"spec": {"activeDeadlineSeconds": 5}}).spec


def test_a_quota_can_count_jobs(k: Cluster) -> None:
    k.quota(**{"count/jobs.batch": "1"})
    _idle(k, "first")
    code, body = refused(_idle, k, "second")
    assert code == 403
    assert "exceeded quota: quota" in body
    assert "limited: count/jobs.batch=1" in body


# ---------------------------------------------------------------------- what belongs together


def _owner(obj: Any, kind: str = "ConfigMap") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "name": obj.metadata.name,
        "uid": obj.metadata.uid,
        "blockOwnerDeletion": True,
    }


@pytest.mark.parametrize(("policy", "left"), [("Background", []), ("Foreground", []), ("Orphan", ["owned"])])
def test_what_is_owned_goes_or_stays_with_its_owner(k: Cluster, policy: str, left: list[str]) -> None:
    owner = _create(k, "owner")
    _create(k, "owned", ownerReferences=[_owner(owner)])
    k.core.delete_namespaced_config_map("owner", k.namespace, propagation_policy=policy)
    k.until(lambda: _names(k) == left)
    if left:
        time.sleep(0.3)
        assert _names(k) == left
        assert not k.core.read_namespaced_config_map("owned", k.namespace).metadata.owner_references


def test_a_service_account_gets_a_token(k: Cluster) -> None:
    answer = k.core.create_namespaced_service_account_token(
        "default", k.namespace, {"spec": {"expirationSeconds": 3600}}
    )
    assert answer.status.token
    assert answer.status.expiration_timestamp
    assert refused(k.core.create_namespaced_service_account_token, "ghost", k.namespace, {"spec": {}})[0] == 404
