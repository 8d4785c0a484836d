"""The Job controller: pods for Jobs, what their ends mean, and when a Job is complete, has failed, or goes.

Follows the real controller's order: a finished pod is counted once, when its tracking finalizer is taken away; a Job
that is to fail gets `FailureTarget` at once and `Failed` when its last pod has ended.
"""

import copy
import time

from tests.kubernetes.double.api import Api
from tests.kubernetes.double.objects import (
    TRACKING_FINALIZER,
    ApiError,
    Obj,
    condition,
    is_finished,
    is_terminating,
    key_of,
    now,
    owners,
    phase_of,
    seconds_since,
)

_COMPONENT = "job-controller"
_MESSAGES = {
    "BackoffLimitExceeded": "Job has reached the specified backoff limit",
    "DeadlineExceeded": "Job was active longer than specified deadline",
}


class JobController:
    """Moves every Job one step on each time `sync` is called.

    Args:
        api: The API server.
        backoff: Seconds before a failed pod is replaced, doubled at each failure; a cluster has 10.
    """

    def __init__(self, api: Api, *, backoff: float) -> None:
        self._api = api
        self._backoff = backoff
        self._refused: dict[str, tuple[int, float]] = {}  # Job's uid: refusals so far, when to try again
        self._replace_at: dict[str, float] = {}

    def sync(self) -> None:
        jobs = self._api.store.all("jobs", "batch")
        pods: dict[str, list[Obj]] = {}
        for pod in self._api.store.all("pods"):
            for owner in owners(pod):
                if owner["kind"] == "Job" and owner.get("controller"):
                    pods.setdefault(owner["uid"], []).append(pod)
        known = {job["metadata"]["uid"] for job in jobs}
        for uid, left in pods.items():
            if uid not in known:
                self._release(left)
        for pod in self._api.store.all("pods"):
            if not owners(pod):
                self._release([pod])  # of a Job that was deleted and left its pods
        for job in jobs:
            self._sync_job(job, pods.get(job["metadata"]["uid"], []))

    def _sync_job(self, job: Obj, pods: list[Obj]) -> None:
        if is_terminating(job):
            self._release(pods)
            return
        ended = condition(job, "Complete") or condition(job, "Failed")
        if ended:
            keep = job["spec"].get("ttlSecondsAfterFinished")
            if keep is not None and seconds_since(ended["lastTransitionTime"]) >= keep:
                self._api.delete(key_of(job), propagation="Background")
            return
        status = copy.deepcopy(job.get("status") or {})
        if job["spec"]["suspend"]:
            self._suspend(job, status, pods)
        else:
            self._run(job, status, pods)
        if status != (job.get("status") or {}):
            self._api.set_status(key_of(job), status)

    def _run(self, job: Obj, status: Obj, pods: list[Obj]) -> None:
        spec = job["spec"]
        status.setdefault("startTime", now())
        status.setdefault("uncountedTerminatedPods", {})
        if any(entry["type"] == "Suspended" and entry["status"] == "True" for entry in status.get("conditions") or []):
            _add_condition(status, "Suspended", "JobResumed", "Job resumed", value="False")
            status["startTime"] = now()
        counted = self._count(job, status, pods)
        active = [pod for pod in pods if not is_finished(pod) and not is_terminating(pod)]
        reason, message = self._failure(job, status, pods)
        target = condition({"status": status}, "FailureTarget")
        if target is None and reason:
            _add_condition(status, "FailureTarget", reason, message)
            target = condition({"status": status}, "FailureTarget")
        if target is not None:
            for pod in active:
                self._api.delete(key_of(pod))
            # Whoever has not ended counts as failed, whether or not it ever ran.
            counted += self._count(job, status, pods, all_failed=True)
            active = []
        elif status.get("succeeded", 0) < spec["completions"]:
            active += self._start_pods(job, status, active, counted)
        ending = [pod for pod in self._present(pods) if is_terminating(pod) and not is_finished(pod)]
        _set_counts(status, active, ending)
        if ending:
            return
        if target is not None:
            _add_condition(status, "Failed", target["reason"], target.get("message", ""))
            self._api.event(job, "Warning", target["reason"], target.get("message", ""), _COMPONENT)
        elif status.get("succeeded", 0) >= spec["completions"] and not active:
            text = "Reached expected number of succeeded pods"
            _add_condition(status, "SuccessCriteriaMet", "CompletionsReached", text)
            _add_condition(status, "Complete", "CompletionsReached", text)
            status["completionTime"] = now()
            self._api.event(job, "Normal", "Completed", "Job completed", _COMPONENT)

    def _count(self, job: Obj, status: Obj, pods: list[Obj], *, all_failed: bool = False) -> list[Obj]:
        """Count the pods that ended, once each, and let them go. Returns those that failed."""
        failed = []
        for stale in pods:
            pod = self._api.store.read(key_of(stale))
            if pod is None or TRACKING_FINALIZER not in (pod["metadata"].get("finalizers") or []):
                continue
            if phase_of(pod) == "Succeeded":
                status["succeeded"] = status.get("succeeded", 0) + 1
            elif all_failed or _counts_as_failed(job["spec"], pod):
                if failure_action(job["spec"], pod) != "Ignore":
                    status["failed"] = status.get("failed", 0) + 1
                failed.append(pod)
            else:
                continue
            self._release([pod])
        return failed

    def _failure(self, job: Obj, status: Obj, pods: list[Obj]) -> tuple[str, str]:
        """Return why the Job is to fail, as reason and message; empty when it is not."""
        spec = job["spec"]
        reason = message = ""
        if spec.get("podFailurePolicy"):
            for pod in pods:
                if _counts_as_failed(spec, pod) and failure_action(spec, pod) == "FailJob":
                    reason = "PodFailurePolicy"
                    message = (
                        f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']} matched the pod failure policy"
                    )
        restarts = 0
        if spec["template"]["spec"]["restartPolicy"] == "OnFailure":
            for pod in pods:
                if not is_finished(pod):
                    entries = (pod.get("status") or {}).get("containerStatuses") or []
                    restarts += sum(entry.get("restartCount", 0) for entry in entries)
        limit = spec["backoffLimit"]
        deadline = spec.get("activeDeadlineSeconds")
        if reason:
            return reason, message
        if status.get("failed", 0) > limit or (restarts and restarts >= max(limit, 1)):
            reason = "BackoffLimitExceeded"
        elif deadline is not None and seconds_since(status["startTime"]) >= deadline:
            reason = "DeadlineExceeded"
        return reason, _MESSAGES.get(reason, "")

    def _start_pods(self, job: Obj, status: Obj, active: list[Obj], failed: list[Obj]) -> list[Obj]:
        """Create the pods that are missing, unless it is too early for a replacement or they were refused just now."""
        spec, uid = job["spec"], job["metadata"]["uid"]
        if failed:
            self._replace_at[uid] = time.monotonic() + self._backoff * 2 ** max(status.get("failed", 1) - 1, 0)
        wanted = min(spec["parallelism"], spec["completions"] - status.get("succeeded", 0)) - len(active)
        if spec["podReplacementPolicy"] == "Failed":
            wanted -= sum(is_terminating(pod) and not is_finished(pod) for pod in self._pods_now(uid))
        tries, not_before = self._refused.get(uid, (0, 0.0))
        if wanted <= 0 or time.monotonic() < max(not_before, self._replace_at.get(uid, 0.0)):
            return []
        made = []
        for _ in range(wanted):
            try:
                made.append(self._create_pod(job))
            except ApiError as error:
                self._refused[uid] = (tries + 1, time.monotonic() + min(0.5 * 2**tries, 10.0))
                self._api.event(job, "Warning", "FailedCreate", f"Error creating: {error.message}", _COMPONENT)
                break
        else:
            self._refused.pop(uid, None)
        return made

    def _create_pod(self, job: Obj) -> Obj:
        meta, template = job["metadata"], job["spec"]["template"]
        copied = {name: (template.get("metadata") or {}).get(name) for name in ("labels", "annotations")}
        pod = self._api.create(
            "",
            "pods",
            meta["namespace"],
            {
                "metadata": {
                    **{name: dict(value) for name, value in copied.items() if value},
                    "generateName": f"{meta['name']}-",
                    "namespace": meta["namespace"],
                    "finalizers": [TRACKING_FINALIZER],
                    "ownerReferences": [
                        {
                            "apiVersion": "batch/v1",
                            "kind": "Job",
                            "name": meta["name"],
                            "uid": meta["uid"],
                            "controller": True,
                            "blockOwnerDeletion": True,
                        }
                    ],
                },
                "spec": template["spec"],
            },
        )
        self._api.event(job, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", _COMPONENT)
        return pod

    def _suspend(self, job: Obj, status: Obj, pods: list[Obj]) -> None:
        self._release(pods)
        for pod in pods:
            if not is_finished(pod) and not is_terminating(pod):
                self._api.delete(key_of(pod))
        if condition(job, "Suspended") is None:
            _add_condition(status, "Suspended", "JobSuspended", "Job suspended")
            self._api.event(job, "Normal", "Suspended", "Job suspended", _COMPONENT)
        _set_counts(status, [], [])

    def _release(self, pods: list[Obj]) -> None:
        for pod in pods:
            present = self._api.store.read(key_of(pod))
            if present is not None and TRACKING_FINALIZER in (present["metadata"].get("finalizers") or []):
                rest = [name for name in present["metadata"]["finalizers"] if name != TRACKING_FINALIZER]
                meta = {**present["metadata"], "finalizers": rest}
                self._api.update(key_of(present), {**present, "metadata": meta}, checked=False)

    def _present(self, pods: list[Obj]) -> list[Obj]:
        found = [self._api.store.read(key_of(pod)) for pod in pods]
        return [pod for pod in found if pod is not None]

    def _pods_now(self, uid: str) -> list[Obj]:
        return [pod for pod in self._api.store.all("pods") if any(owner["uid"] == uid for owner in owners(pod))]


def failure_action(spec: Obj, pod: Obj) -> str | None:
    """Return what the Job's podFailurePolicy says of a failed pod: "FailJob", "Ignore", "Count", or None."""
    status = pod.get("status") or {}
    conditions = {(entry["type"], entry["status"]) for entry in status.get("conditions") or []}
    ends = [
        (entry["name"], ((entry.get("state") or {}).get("terminated") or {}).get("exitCode"))
        for entry in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    ]
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        for wanted in rule.get("onPodConditions") or []:
            if (wanted["type"], wanted.get("status", "True")) in conditions:
                return rule["action"]
        codes = rule.get("onExitCodes")
        if codes:
            for name, code in ends:
                named = codes.get("containerName") in (None, name)
                if named and code and (code in codes["values"]) == (codes["operator"] == "In"):
                    return rule["action"]
    return None


def _counts_as_failed(spec: Obj, pod: Obj) -> bool:
    if phase_of(pod) == "Failed":
        return True
    return spec["podReplacementPolicy"] != "Failed" and is_terminating(pod) and phase_of(pod) != "Succeeded"


def _add_condition(status: Obj, type_: str, reason: str, message: str, *, value: str = "True") -> None:
    entry = {
        "type": type_,
        "status": value,
        "lastProbeTime": now(),
        "lastTransitionTime": now(),
        "reason": reason,
        "message": message,
    }
    status["conditions"] = [old for old in status.get("conditions") or [] if old["type"] != type_] + [entry]


def _set_counts(status: Obj, active: list[Obj], ending: list[Obj]) -> None:
    """Write how many pods there are now; a server leaves `active` out when it is 0."""
    status["ready"] = sum(condition(pod, "Ready") is not None for pod in active)
    status["terminating"] = len(ending)
    status.pop("active", None)
    if active:
        status["active"] = len(active)
