"""The form of policies/compute.yaml: profiles with prices, teams' shares, ageing."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ml_assets.policy.schema import Text
from ml_assets.spec.compute import GpuType, LabelKey, LabelValue, PriorityClass, ProfileName, TolerationSpec
from ml_assets.spec.model import Duration, ListOf, SpecModel

Price = Annotated[float, Field(ge=0, le=1_000_000)]
Amount = Annotated[int, Field(ge=0, le=1_000_000)]
Memory = Annotated[float, Field(gt=0, le=65536)]


class AmountsModel(SpecModel):
    """Numbers of what teams share."""

    gpus: Amount | None = None
    """Graphics processors; not bounded when absent."""
    cores: Amount | None = None
    """Processor cores; not bounded when absent."""


class SpotModel(SpecModel):
    """What a profile changes for a step on spot nodes."""

    price_per_hour: Price | None = None
    """Price of an hour there; the profile's own when absent."""
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that spot nodes have beside the profile's."""
    tolerations: Annotated[tuple[TolerationSpec, ...], ListOf] = ()
    """Taints that spot nodes have beside the profile's."""


class ProfileModel(SpecModel):
    """A named size of step."""

    cores: Annotated[int, Field(ge=1, le=512)] = 1
    """Processor cores."""
    memory_gib: Memory = 2.0
    """Memory in GiB."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """Graphics processors, in whole numbers."""
    gpu_type: GpuType | None = None
    """Model of the graphics processors; `node_selector` must then say where they are."""
    price_per_hour: Price
    """Price of an hour, in the file's currency."""
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that the pod's node must have."""
    tolerations: Annotated[tuple[TolerationSpec, ...], ListOf] = ()
    """Taints of nodes that the pod accepts."""
    priority: PriorityClass | None = None
    """Kubernetes priority class."""
    time_limit: Duration | None = None
    """Longest a step may run."""
    image: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Container image."""
    spot: bool = False
    """Whether all its steps run on nodes that can be taken away."""
    on_spot: SpotModel = SpotModel()
    """What changes for a step on spot nodes."""
    retry_memory_gib: Annotated[tuple[Memory, ...], ListOf] = ()
    """Memory sizes to try after an out-of-memory kill, rising; the largest is the most a pipeline may ask for."""


class TeamModel(SpecModel):
    """What one team gets."""

    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share in proportion to the other teams'."""
    reserve: AmountsModel = AmountsModel()
    """What is kept for the team, of what has a capacity; others may borrow what is free of it."""
    limit: AmountsModel = AmountsModel()
    """The most it may use at once."""
    budget_per_month: Annotated[float, Field(ge=0)] | None = None
    """Most it may spend in a calendar month (UTC), in the file's currency."""
    over_budget: Literal["wait", "refuse"] = "wait"
    """What becomes of its runs once the budget is spent."""
    profiles: Annotated[tuple[ProfileName, ...], ListOf] | None = None
    """Profiles it may use; all when absent."""


class AgeingModel(SpecModel):
    """How waiting raises a run's priority."""

    step: Duration | None = None
    """Time of waiting after which the priority rises by one; 10min when absent."""
    longest_wait: Duration | None = None
    """Time after which a run holds back the others until it fits; 4h when absent."""


class ComputeModel(SpecModel):
    """The head of compute.yaml."""

    owner: Text | None = None
    """Who answers for the file."""
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "EUR"
    """Of every price and budget, as an ISO 4217 code."""
    capacity: AmountsModel = AmountsModel()
    """What the installation has."""
    profiles: dict[str, Any] = Field(default_factory=dict)
    """Profiles by name."""
    teams: dict[str, Any] = Field(default_factory=dict)
    """Teams by name. Any entry, also one that only names profiles, turns fair sharing on for all teams."""
    ageing: AgeingModel = AgeingModel()
    """How waiting raises a run's priority."""
