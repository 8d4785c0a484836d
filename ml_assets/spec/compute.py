"""The part of a pipeline's description about what a training step may use: cores, memory, GPUs, time and place."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from ml_assets.spec.model import Duration, ListOf, SpecModel

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
"""Lower-case letters, digits and hyphens, starting with a letter; at most 63 characters."""

LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]
"""What Kubernetes takes as the value of a label."""

LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9.-]{0,251}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
]
"""What Kubernetes takes as the name of a label, such as pool or cloud.example.com/pool."""

PriorityClass = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""Name of a Kubernetes priority class."""

GpuType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
"""Name of a model of graphics processors, such as nvidia-t4."""


class TolerationSpec(SpecModel):
    """A taint of a node that a pod accepts, in Kubernetes' words."""

    key: LabelKey | None = None
    """Taint to accept; all when absent, and then `operator` must be Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Equal: the taint's value must be `value`; Exists: any value."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; any when absent."""

    @model_validator(mode="after")
    def _fits(self) -> "TolerationSpec":
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("no value beside operator Exists, which takes any")
        if self.key is None and self.operator != "Exists":
            raise ValueError("a key, or operator Exists for all taints")
        return self


class ComputeSpec(SpecModel):
    """What a training step may use. With a profile every other field overrides the profile's, within its limits."""

    profile: ProfileName | None = None
    """Name of a profile in policies/compute.yaml; `compute: gpu-small` says the same as `compute: {profile:
    gpu-small}`."""
    cores: Annotated[int, Field(ge=1, le=512)] = 1
    """Processor cores; numeric libraries use as many threads."""
    memory_gib: Annotated[float, Field(gt=0, le=65536)] = 2.0
    """Memory in GiB."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """Graphics processors; a step that asks for any is scheduled where there are some. Where the policy has
    profiles, only a profile gives any."""
    gpu_type: GpuType | None = None
    """Model of the graphics processors, such as nvidia-t4; any when absent."""
    cpu_fallback: bool = True
    """Whether a step that asks for GPUs may run without on a machine that has too few. If not, such a run is refused
    before it starts."""
    spot: bool = False
    """Whether the step may run on nodes that can be taken away at any time; it is then started again."""
    time_limit: Duration | None = None
    """How long the step may run; no limit when absent."""
    image: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Container image of the step's pod; that of the code location when absent."""
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that the pod's node must have."""
    tolerations: Annotated[tuple[TolerationSpec, ...], ListOf] = ()
    """Taints of nodes that the pod accepts."""
    priority: PriorityClass | None = None
    """Kubernetes priority class of the pod; the namespace's default when absent."""
    checkpoint: bool = False
    """Whether training is saved on its way, so that a step that was killed goes on from there."""


def _as_spec(value: str | ComputeSpec) -> ComputeSpec:
    return ComputeSpec(profile=value) if isinstance(value, str) else value


if TYPE_CHECKING:
    ComputeChoice = ComputeSpec
else:
    ComputeChoice = Annotated[ProfileName | ComputeSpec, AfterValidator(_as_spec)]
"""How a description says what a step may use: a profile's name, or a mapping; read as a `ComputeSpec` either way."""
