"""What a server refuses with 422: names, labels, resources of containers, fields that may not change."""

import copy
import functools
import json
import re
from typing import Any

from tests.kubernetes.double import quantities
from tests.kubernetes.double.objects import ApiError, Obj, Resource, invalid

_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_DNS_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_RBAC_NAME = re.compile(r"^[^/%]+$")
_ORDINARY = {"cpu", "memory", "ephemeral-storage"}
_NO_SCHEMA_CHECK = {"Event", "Lease", "Node"}  # written by kubelets, often


def check_metadata(resource: Resource, meta: Obj) -> None:
    """Refuse a name or a label that Kubernetes does not take. Raises ApiError 422."""
    name = meta["name"]
    if resource.group == "rbac.authorization.k8s.io":
        fits, limit = _RBAC_NAME.match(name), 253
    elif resource.kind == "Namespace":
        fits, limit = _DNS_LABEL.match(name), 63
    else:
        fits, limit = _DNS_SUBDOMAIN.match(name), 63 if resource.kind == "Job" else 253
    if not fits or len(name) > limit:
        raise invalid(
            resource,
            name,
            f'metadata.name: Invalid value: "{name}": must be lower case letters, digits, "-" and ".", '
            f"and no more than {limit} characters",
        )
    check_labels(resource, name, "metadata.labels", meta.get("labels"))


def check_labels(resource: Resource, name: str, where: str, labels: Obj | None) -> None:
    for label, value in (labels or {}).items():
        if not isinstance(value, str) or len(value) > 63 or not _LABEL_VALUE.match(value):
            raise invalid(
                resource, name, f'{where}: Invalid value: "{value}": label {label} must be up to 63 characters'
            )


def check_schema(obj: Obj, version: str | None) -> None:
    """Check an object against the schema of a Kubernetes version; unknown fields too, which a server drops silently.

    Raises:
        ApiError: 422, with the path of the field.
    """
    if version is None or obj["kind"] in _NO_SCHEMA_CHECK:
        return
    kubernetes_validate = _validator()
    if version == "latest":
        version = kubernetes_validate.latest_version()
    try:
        kubernetes_validate.validate(obj, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(map(str, error.path))
        raise ApiError(422, f"{obj['kind']} is invalid: {path}: {error.message}") from None


def check_pod_spec(resource: Resource, name: str, spec: Obj, *, path: str = "spec") -> None:
    """Refuse a pod spec as the server does. Raises ApiError 422 with all problems."""
    problems = [] if spec.get("containers") else [f"{path}.containers: Required value"]
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    for kind in ("containers", "initContainers"):
        for position, container in enumerate(spec.get(kind) or []):
            problems += _container_problems(f"{path}.{kind}[{position}]", container, volumes)
    for position, toleration in enumerate(spec.get("tolerations") or []):
        where = f"{path}.tolerations[{position}].operator: Invalid value"
        if toleration.get("operator") == "Exists" and toleration.get("value"):
            problems.append(f"{where}: value must be empty when `operator` is 'Exists'")
        if not toleration.get("key") and toleration.get("operator") != "Exists":
            problems.append(f"{where}: operator must be Exists when `key` is empty")
    if problems:
        raise invalid(resource, name, *problems)


def check_job_spec(resource: Resource, name: str, spec: Obj) -> None:
    template = spec["template"].get("spec") or {}
    restart = template.get("restartPolicy", "Always")
    path = "spec.template.spec"
    if restart not in ("Never", "OnFailure"):
        raise invalid(
            resource, name, f'{path}.restartPolicy: Required value: valid values: "OnFailure", "Never"; got "{restart}"'
        )
    if spec.get("podFailurePolicy") and restart != "Never":
        raise invalid(
            resource, name, f'{path}.restartPolicy: Invalid value: "{restart}": only "Never" with spec.podFailurePolicy'
        )
    if spec.get("podFailurePolicy") and spec.get("podReplacementPolicy", "Failed") != "Failed":
        raise invalid(resource, name, "spec.podReplacementPolicy: only Failed is allowed with spec.podFailurePolicy")
    check_labels(
        resource, name, "spec.template.metadata.labels", (spec["template"].get("metadata") or {}).get("labels")
    )
    check_pod_spec(resource, name, template, path=path)


def check_update(resource: Resource, old: Obj, new: Obj) -> None:
    """Refuse a change of what may not change. Raises ApiError 422."""
    if resource.kind == "Job":
        for field in ("template", "selector", "completions", "podFailurePolicy"):
            if old["spec"].get(field) != new["spec"].get(field):
                if field == "template" and old["spec"].get("suspend"):
                    continue  # a queue may set the node selector of a Job that has not begun
                raise invalid(resource, old["metadata"]["name"], f"spec.{field}: Invalid value: field is immutable")
    if resource.kind == "Pod" and _fixed(old["spec"]) != _fixed(new["spec"]):
        raise invalid(
            resource,
            old["metadata"]["name"],
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`, "
            "`spec.activeDeadlineSeconds`, `spec.tolerations` (only additions)",
        )


def _container_problems(where: str, container: Obj, volumes: set[Any]) -> list[str]:
    problems = []
    if not container.get("image"):
        problems.append(f"{where}.image: Required value")
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name in sorted({*limits, *requests}):
        try:
            limit = quantities.parse(limits[name]) if name in limits else None
            request = quantities.parse(requests[name]) if name in requests else None
        except ValueError:
            problems.append(f"{where}.resources[{name}]: Invalid value: quantities must be like 250m, 2Gi, 1")
            continue
        if name not in _ORDINARY and "/" in name:
            if any(value is not None and value.denominator != 1 for value in (limit, request)):
                problems.append(f"{where}.resources.limits[{name}]: Invalid value: must be an integer")
            if request is not None and limit is None:
                problems.append(
                    f"{where}.resources.limits: Required value: Limit must be set for non overcommitable resources"
                )
            elif request is not None and request != limit:
                problems.append(
                    f"{where}.resources.requests: Invalid value: must be equal to {name} limit of {limits[name]}"
                )
        elif limit is not None and request is not None and request > limit:
            problems.append(
                f'{where}.resources.requests: Invalid value: "{requests[name]}": must be less than or equal to {name} '
                f"limit of {limits[name]}"
            )
    mounted = [mount.get("name") for mount in container.get("volumeMounts") or []]
    return problems + [f'{where}.volumeMounts: Not found: "{name}"' for name in mounted if name not in volumes]


def _fixed(spec: Obj) -> str:
    """The part of a pod's spec that nobody may change, as text."""
    rest = copy.deepcopy(
        {name: value for name, value in spec.items() if name not in ("activeDeadlineSeconds", "tolerations")}
    )
    for container in (rest.get("containers") or []) + (rest.get("initContainers") or []):
        container.pop("image", None)
    return json.dumps(rest, sort_keys=True)


@functools.cache
def _validator() -> Any:
    import kubernetes_validate

    return kubernetes_validate
