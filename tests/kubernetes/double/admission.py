"""What happens to a new object before it is kept: defaults, and the refusals that a Job meets only at its pods.

A Job is checked when it is created, but its service account, priority class, quota and pod security only when its
controller creates a pod: then the Job stays without one, and only a `FailedCreate` event tells.
"""

from tests.kubernetes.double import pod_security, quotas, validation
from tests.kubernetes.double.objects import RESOURCES, ApiError, Key, Obj
from tests.kubernetes.double.store import Store

_POD, _JOB = RESOURCES[("", "pods")], RESOURCES[("batch", "jobs")]
NODE_LOST_SECONDS = 300
"""How long a pod stays on a node that is not ready or unreachable, unless it tolerates that for another time."""


class Admission:
    """Defaults and checks new objects; called with the store's lock held."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, key: Key, obj: Obj) -> None:
        """Complete the object in place. Raises ApiError 403 or 422 when it is refused."""
        if key.plural == "jobs":
            self._job(obj)
        elif key.plural == "pods":
            self._pod(obj)
        elif key.plural == "namespaces":
            obj["status"] = {"phase": "Active"}
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = key.name
        elif key.plural == "priorityclasses":
            obj.setdefault("preemptionPolicy", "PreemptLowerPriority")
        elif key.plural == "resourcequotas":
            obj["status"] = {}
        if key.plural != "pods":
            quotas.check_count(self._store, RESOURCES[(key.group, key.plural)], key.namespace, key.name)

    def _job(self, job: Obj) -> None:
        meta, spec = job["metadata"], job["spec"]
        validation.check_job_spec(_JOB, meta["name"], spec)
        spec.setdefault("backoffLimit", 6)
        spec.setdefault("completions", 1)
        spec.setdefault("parallelism", 1)
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("suspend", False)
        spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
        if spec["completionMode"] != "NonIndexed":
            raise ApiError(400, "the double has no Indexed Jobs: use completionMode NonIndexed")
        uid = meta["uid"]
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        spec["template"].setdefault("metadata", {}).setdefault("labels", {}).update(
            {
                "batch.kubernetes.io/controller-uid": uid,
                "batch.kubernetes.io/job-name": meta["name"],
                "controller-uid": uid,
                "job-name": meta["name"],
            }
        )
        _default_pod_spec(spec["template"]["spec"])
        job["status"] = {}

    def _pod(self, pod: Obj) -> None:
        spec, namespace, name = pod["spec"], pod["metadata"]["namespace"], pod["metadata"]["name"]
        validation.check_pod_spec(_POD, name, spec)
        _default_pod_spec(spec)
        for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
            for resource, amount in (container["resources"].get("limits") or {}).items():
                container["resources"].setdefault("requests", {}).setdefault(resource, amount)
        account = spec.setdefault("serviceAccountName", "default")
        if self._store.read(Key("", "serviceaccounts", namespace, account)) is None:
            raise ApiError(
                403,
                f'pods "{name}" is forbidden: error looking up service account {namespace}/{account}: '
                f'serviceaccount "{account}" not found',
            )
        self._priority(name, spec)
        for taint in ("not-ready", "unreachable"):
            _tolerate_for_a_while(spec, f"node.kubernetes.io/{taint}")
        quotas.apply_limit_ranges(self._store, pod)
        pod_security.check(self._store, pod)
        quotas.check_pod(self._store, pod)
        pod["status"] = {"phase": "Pending", "qosClass": _quality_of_service(spec)}

    def _priority(self, name: str, spec: Obj) -> None:
        wanted = spec.get("priorityClassName")
        classes = self._store.all("priorityclasses", "scheduling.k8s.io")
        found = next((c for c in classes if c["metadata"]["name"] == wanted), None)
        if wanted and found is None:
            raise ApiError(403, f'pods "{name}" is forbidden: no PriorityClass with name {wanted} was found')
        if found is None:
            found = next((c for c in classes if c.get("globalDefault")), None)
            if found is not None:
                spec["priorityClassName"] = found["metadata"]["name"]
        spec["priority"] = found["value"] if found else 0
        spec["preemptionPolicy"] = (found or {}).get("preemptionPolicy", "PreemptLowerPriority")


def _default_pod_spec(spec: Obj) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        tag = container["image"].rsplit("/", 1)[-1].partition(":")[2]
        container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("resources", {})


def _tolerate_for_a_while(spec: Obj, taint: str) -> None:
    tolerations = spec.setdefault("tolerations", [])
    if not any(t.get("key") in (taint, None, "") and t.get("effect") in ("NoExecute", None, "") for t in tolerations):
        tolerations.append(
            {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST_SECONDS}
        )


def _quality_of_service(spec: Obj) -> str:
    resources = [container["resources"] for container in spec["containers"]]
    asked = [(r.get("requests") or {}, r.get("limits") or {}) for r in resources]
    if all(
        limits.get(name) and limits[name] == requests.get(name)
        for requests, limits in asked
        for name in ("cpu", "memory")
    ):
        return "Guaranteed"
    return "Burstable" if any({*requests, *limits} & {"cpu", "memory"} for requests, limits in asked) else "BestEffort"
