"""What a person reads in a run's log about the pods of its steps: what, where, what was expected, and what is next."""

from ml_assets.executors.pods import PodEnd, PodLaunch, PodLook, PodRules, StepDemand

_SIGNALS = {134: "SIGABRT", 135: "SIGBUS", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}


def span(seconds: float) -> str:
    """Return a time span in words, such as "10 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def place(look: PodLook, job: str) -> str:
    """Return where a step was, as far as that is known."""
    if look.pod is None:
        return f"Job {job} (no pod)"
    return f"pod {look.pod}" + (f" on node {look.node}" if look.node else "")


def waiting(step: str, job: str, look: PodLook, waited: float, limit: float) -> str:
    """Return what is said of a pod that has not started."""
    for_what = "a place that others use now" if look.queued else "its start"
    return (
        f"Step {step}: {place(look, job)} waits for {for_what} since {span(waited)}. The cluster says: "
        f"{look.why or 'nothing'}. It is given up in {span(max(limit - waited, 0))} unless it starts."
    )


def never_started(step: str, job: str, look: PodLook, limit: float) -> str:
    """Return what is said of a pod that the watchdog ended."""
    setting = "queue_seconds" if look.queued else "pending_seconds"
    return (
        f"Step {step} did not start: {place(look, job)} waited longer than {span(limit)} and is given up. "
        f"The cluster says: {look.why or 'nothing'}. Expected a running pod. Remove the cause and execute the run "
        f"again from the failed step; the limit is `{setting}` of ML_ASSETS_PODS."
    )


def lost(step: str, look: PodLook, launch: PodLaunch, rules: PodRules) -> str:
    """Return what is said of a step that is started again after it lost its pod."""
    return (
        f"Step {step} lost its {place(look, launch.job)}: {look.why or 'the pod is gone'}. That is no fault of the "
        f"step: it starts again ({launch.free_starts + 1} of {rules.free_starts} such starts), goes on from its "
        "checkpoint if it keeps one, and uses up no retry."
    )


def lost_too_often(step: str, look: PodLook, launch: PodLaunch) -> str:
    """Return what is said of a step that lost one pod too many."""
    return (
        f"Step {step} lost its pod {launch.free_starts + 1} times, at last {place(look, launch.job)}: "
        f"{look.why or 'the pod is gone'}. Ask for nodes that are not taken away (`spot: false`) or for a higher "
        "`priority`, or have the step keep checkpoints, and execute the run again from the failed step."
    )


def more_memory(step: str, look: PodLook, launch: PodLaunch, had: int | None, memory: int) -> str:
    """Return what is said of a step that is started again with more memory."""
    return (
        f"Step {step}: {place(look, launch.job)} was killed because it used more than its {_mib(had)} of memory. It "
        f"starts again with {memory} MiB, the next size that its compute profile allows, and uses up no retry. Give "
        "the step that much from the beginning if this happens often."
    )


def crashed(step: str, look: PodLook, launch: PodLaunch, demand: StepDemand, output: str) -> str:
    """Return what is said of a step whose pod ended without telling how the step ended."""
    where = place(look, launch.job)
    if look.end == PodEnd.OUT_OF_MEMORY:
        had = _mib(launch.memory_mib or demand.memory_mib)
        said = (
            f"Step {step}: {where} was killed because it used more than its {had} of memory, and its compute "
            "profile has no larger size left. Raise `memory_gib` of its `compute`, or the profile's `retry_memory_gib`."
        )
    elif look.end == PodEnd.TIME_LIMIT:
        said = over_time(step, where, demand)
    elif look.end == PodEnd.COMPLETED:
        said = f"Step {step}: {where} ended without an error and without telling how the step ended."
    else:
        code = look.exit_code
        signal = f" ({_SIGNALS[code]})" if code in _SIGNALS else ""
        how = f"with exit code {code}{signal}" if code is not None else "in an unknown way"
        reason = f" The cluster says: {look.why}." if look.why else ""
        said = f"Step {step}: {where} ended {how} and did not tell how the step ended.{reason}"
    return said + (f"\nIts last lines:\n{output}" if output else "")


def over_time(step: str, where: str, demand: StepDemand) -> str:
    """Return what is said of a step that ran into its time limit, in a pod or in a forked process."""
    limit = "its time limit" if demand.time_limit_seconds is None else span(demand.time_limit_seconds)
    return (
        f"Step {step}: {where} ran longer than {limit} and was ended. Raise `time_limit` of its `compute` within "
        "the profile's, or have it do less; with `checkpoint: true` a retry goes on where it stopped."
    )


def _mib(memory: int | None) -> str:
    return "limit" if memory is None else f"{memory} MiB"
