"""ResourceQuota and LimitRange: what a namespace may use, and what its containers get when they say nothing."""

from fractions import Fraction

from tests.kubernetes.double import quantities
from tests.kubernetes.double.objects import ApiError, Obj, Resource, is_finished, key_of
from tests.kubernetes.double.store import Store

_MUST_BE_SAID = {"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}


def apply_limit_ranges(store: Store, pod: Obj) -> None:
    """Fill in the defaults of the namespace's LimitRanges, and refuse what is outside them (ApiError 403)."""
    meta, spec = pod["metadata"], pod["spec"]
    for limit_range in store.all("limitranges", namespace=meta["namespace"]):
        for limit in limit_range["spec"]["limits"]:
            if limit["type"] == "Container":
                for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
                    _fill_in(container["resources"], limit)
                    resources = container["resources"]
                    _within(
                        meta["name"], "Container", limit, resources.get("requests") or {}, resources.get("limits") or {}
                    )
            elif limit["type"] == "Pod":
                requests = {name: quantities.show(value) for name, value in quantities.pod_requests(spec).items()}
                limits = {name: quantities.show(value) for name, value in quantities.pod_limits(spec).items()}
                _within(meta["name"], "Pod", limit, requests, limits)


def used(store: Store, quota: Obj) -> quantities.Amounts:
    """Return what the pods of the quota's namespace and scope use, by the names that quotas have."""
    pods = store.all("pods", namespace=quota["metadata"]["namespace"])
    counted = [_usage(pod["spec"]) for pod in pods if not is_finished(pod) and _in_scope(quota, pod["spec"])]
    amounts = quantities.total(counted)
    for name in quota["spec"].get("hard") or {}:
        if name.startswith("count/") and name != "count/pods":
            plural, _, group = name.removeprefix("count/").partition(".")
            amounts[name] = Fraction(len(store.all(plural, group, quota["metadata"]["namespace"])))
    return amounts


def check_pod(store: Store, pod: Obj) -> None:
    """Refuse a pod that a quota has no room for, or that does not say what a quota counts (ApiError 403)."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    for quota in store.all("resourcequotas", namespace=pod["metadata"]["namespace"]):
        if not _in_scope(quota, spec):
            continue
        hard = quantities.parse_all(quota["spec"].get("hard"))
        asked = _usage(spec)
        unsaid = sorted(amount for amount in hard if amount in _MUST_BE_SAID and not asked.get(amount))
        if unsaid:
            silent = ",".join(container["name"] for container in spec["containers"])
            raise ApiError(
                403,
                f'pods "{name}" is forbidden: failed quota: {quota["metadata"]["name"]}: must specify '
                + "; ".join(f"{amount} for: {silent}" for amount in unsaid),
            )
        _refuse_excess(f'pods "{name}"', quota["metadata"]["name"], hard, asked, used(store, quota))


def check_count(store: Store, resource: Resource, namespace: str, name: str) -> None:
    """Refuse an object beyond a quota on the number of its kind (`count/jobs.batch`). ApiError 403."""
    if not resource.namespaced:
        return
    counted = f"count/{resource.qualified}"
    for quota in store.all("resourcequotas", namespace=namespace):
        hard = quantities.parse_all(quota["spec"].get("hard"))
        if counted in hard:
            about = f'{resource.qualified} "{name}"'
            _refuse_excess(about, quota["metadata"]["name"], hard, {counted: Fraction(1)}, used(store, quota))


def sync_status(store: Store) -> None:
    """Write what is used into the status of every quota."""
    for quota in store.all("resourcequotas"):
        hard = quota["spec"].get("hard") or {}
        amounts = used(store, quota)
        status = {"hard": hard, "used": {name: quantities.show(amounts.get(name, Fraction(0))) for name in hard}}
        if quota.get("status") != status:
            store.put(key_of(quota), {**quota, "status": status})


def _fill_in(resources: Obj, limit: Obj) -> None:
    said = set(resources.get("limits") or {})
    for name, value in (limit.get("default") or {}).items():
        resources.setdefault("limits", {}).setdefault(name, value)
    for name, value in {**(limit.get("default") or {}), **(limit.get("defaultRequest") or {})}.items():
        if name not in said:
            resources.setdefault("requests", {}).setdefault(name, value)


def _within(pod: str, kind: str, limit: Obj, requests: Obj, limits: Obj) -> None:
    for name, most in (limit.get("max") or {}).items():
        if name not in limits:
            raise ApiError(
                403, f'pods "{pod}" is forbidden: maximum {name} usage per {kind} is {most}. No limit is specified'
            )
        if quantities.parse(limits[name]) > quantities.parse(most):
            raise ApiError(
                403,
                f'pods "{pod}" is forbidden: maximum {name} usage per {kind} is {most}, but limit is {limits[name]}',
            )
    for name, least in (limit.get("min") or {}).items():
        if name not in requests:
            raise ApiError(
                403, f'pods "{pod}" is forbidden: minimum {name} usage per {kind} is {least}. No request is specified'
            )
        if quantities.parse(requests[name]) < quantities.parse(least):
            raise ApiError(
                403,
                f'pods "{pod}" is forbidden: minimum {name} usage per {kind} is {least}, '
                f"but request is {requests[name]}",
            )


def _refuse_excess(
    about: str, quota: str, hard: quantities.Amounts, asked: quantities.Amounts, in_use: quantities.Amounts
) -> None:
    over = sorted(name for name in hard if name in asked and in_use.get(name, Fraction(0)) + asked[name] > hard[name])

    def shown(amounts: quantities.Amounts) -> str:
        return ",".join(f"{name}={quantities.show(amounts.get(name, Fraction(0)))}" for name in over)

    if over:
        raise ApiError(
            403,
            f"{about} is forbidden: exceeded quota: {quota}, requested: {shown(asked)}, used: {shown(in_use)}, "
            f"limited: {shown(hard)}",
        )


def _usage(spec: Obj) -> quantities.Amounts:
    amounts: quantities.Amounts = {"pods": Fraction(1), "count/pods": Fraction(1)}
    for name, value in quantities.pod_requests(spec).items():
        amounts[f"requests.{name}"] = value
        if name in ("cpu", "memory"):
            amounts[name] = value
    for name, value in quantities.pod_limits(spec).items():
        amounts[f"limits.{name}"] = value
    return amounts


def _in_scope(quota: Obj, spec: Obj) -> bool:
    name = spec.get("priorityClassName")
    for term in (quota["spec"].get("scopeSelector") or {}).get("matchExpressions") or []:
        if term["scopeName"] == "PriorityClass":
            values = term.get("values") or []
            fits = {"In": name in values, "NotIn": name not in values, "Exists": bool(name), "DoesNotExist": not name}
            if not fits[term["operator"]]:
                return False
    return True
