"""GPUs of one machine among the steps of its runs: which step gets some, which runs without, which cannot run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ml_assets.compute import GPU_REQUIRED_TAG, GPUS_POOL, gpus_asked, gpus_granted
from ml_assets.errors import MlAssetsError

Tags = Mapping[str, str] | None


class MissingGpusError(MlAssetsError):
    """A run has a step that cannot do without GPUs which the machine does not have."""


def require_gpus(steps: Iterable[tuple[str, Tags]], gpus: int) -> None:
    """Refuse a run that has a step which needs more GPUs than there are, before any of its steps starts.

    Args:
        steps: Key and op tags of every step.
        gpus: GPUs of the machine.

    Raises:
        MissingGpusError: With every such step.
    """
    missing = [
        f"{key} ({gpus_asked(tags)})"
        for key, tags in steps
        if gpus_asked(tags) > gpus and (tags or {}).get(GPU_REQUIRED_TAG) == "true"
    ]
    if missing:
        raise MissingGpusError(
            f"This machine has {_counted(gpus)} for steps, and these need more and cannot run without: "
            f"{', '.join(sorted(missing))}. Nothing was started. Run it where there are enough, set ML_ASSETS_GPUS if "
            "the machine has more than were found, or ask for fewer in the pipeline's `compute`."
        )


def require_gpu_pool(steps: Iterable[tuple[str, Tags, str | None]], gpus: int) -> None:
    """Refuse a run with a step that would get GPUs of this machine and is not in the pool that gives each to one step.

    Args:
        steps: Key, op tags and pool of every step.
        gpus: GPUs of the machine.

    Raises:
        MlAssetsError: With every such step.
    """
    outside = [
        f"{key} ({pool or 'in none'})"
        for key, tags, pool in steps
        if gpus_granted(gpus_asked(tags), gpus) and pool != GPUS_POOL
    ]
    if outside:
        raise MlAssetsError(
            f"These steps ask for GPUs and are not in the pool {GPUS_POOL!r}, so that others would be given the same "
            f"GPUs: {', '.join(sorted(outside))}. Nothing was started. Write pool={GPUS_POOL!r} where the asset is "
            "defined, or ask for no GPUs in its op tags."
        )


def without_gpus(step_key: str, tags: Tags, gpus: int) -> str | None:
    """Return the warning about a step that asks for GPUs and runs without, as text; None for any other step."""
    asked = gpus_asked(tags)
    if not asked or gpus_granted(asked, gpus):
        return None
    return (
        f'Step "{step_key}" asks for {_counted(asked)} and this machine has {gpus} for steps: it runs on the CPU, '
        "which may take much longer, and its result may differ in the last digits. `cpu_fallback: false` in the "
        "variant's `compute` refuses such runs."
    )


@dataclass(frozen=True, kw_only=True)
class MachineGpus:
    """The GPUs of the machine that a run's steps are forked on.

    Attributes:
        ids: As CUDA names them, in order; None when nobody looked for any, which counts as none.
        held: Returns which of them a step holds, as places counted from 0.
    """

    ids: Sequence[str] | None
    held: Callable[[str], Sequence[int]]

    def warning(self, step_key: str, tags: Tags) -> str | None:
        """Return what the run's log says of a step that asks for GPUs and gets none; None for any other."""
        return without_gpus(step_key, tags, len(self.ids or ()))

    def visible(self, step_key: str, tags: Tags) -> str | None:
        """Return CUDA_VISIBLE_DEVICES of a step, so that it sees the GPUs it holds and no other; None to leave it."""
        if self.ids is None:
            return None
        granted = gpus_granted(gpus_asked(tags), len(self.ids))
        # A storage of events that knows no pools gives no step a slot: it sees the first of them.
        places = (self.held(step_key) or range(granted)) if granted else ()
        return ",".join(self.ids[place % len(self.ids)] for place in places)


def _counted(gpus: int) -> str:
    return f"{gpus} GPU{'' if gpus == 1 else 's'}"
