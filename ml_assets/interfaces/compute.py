"""What policy says of compute: profiles with a price, who may use them, and what an installation has to share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

OverBudget = Literal["wait", "refuse"]


@dataclass(frozen=True, kw_only=True)
class SpotOffer:
    """What a profile changes for a step that runs on spot nodes.

    Attributes:
        price_per_hour: Price of such a step; None for the profile's own.
        node_selector: Labels that spot nodes have beside those of the profile.
        tolerations: Taints that spot nodes have beside those of the profile, in Kubernetes' form.
    """

    price_per_hour: float | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ComputeProfile:
    """A named size of step, with its price. No step that names it gets more.

    Attributes:
        name: Such as "gpu-small".
        cores: Processor cores, at least 1.
        memory_gib: Memory in GiB.
        gpus: Graphics processors.
        gpu_type: Model of the graphics processors, such as "nvidia-t4"; None for any.
        price_per_hour: What an hour of such a step costs, in the currency of the rules.
        node_selector: Labels that the pod's node must have.
        tolerations: Taints of nodes that the pod accepts, in Kubernetes' form.
        priority: Kubernetes priority class; None for the namespace's default.
        time_limit: Longest a step may run; None for no limit.
        image: Container image; None for that of the code location.
        spot: Whether all its steps run on nodes that can be taken away.
        on_spot: What changes for a step on spot nodes.
        retry_memory_gib: Memory sizes to try after an out-of-memory kill, rising; the largest is the profile's limit.
        file: Where it is declared.
        line: 1-based line in it; 0 when made in Python.
    """

    name: str
    cores: int = 1
    memory_gib: float = 2.0
    gpus: int = 0
    gpu_type: str | None = None
    price_per_hour: float
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    priority: str | None = None
    time_limit: timedelta | None = None
    image: str | None = None
    spot: bool = False
    on_spot: SpotOffer = field(default_factory=SpotOffer)
    retry_memory_gib: tuple[float, ...] = ()
    file: str = ""
    line: int = 0

    @property
    def most_memory_gib(self) -> float:
        """Return the most memory that a step of this profile may ask for, in GiB."""
        return max(self.memory_gib, *self.retry_memory_gib, 0.0)


@dataclass(frozen=True, kw_only=True)
class TeamShare:
    """What one team gets of an installation that teams share.

    Attributes:
        weight: Its share in proportion to the other teams', above 0.
        reserve: Resource ("gpus", "cores") → what is kept for it.
        limit: Resource → the most it may use at once.
        budget_per_month: Most it may spend in a calendar month (UTC); None for no budget.
        over_budget: What becomes of its runs once the budget is spent.
        profiles: Names of the profiles it may use; None for all.
        line: 1-based line in the file of the rules; 0 when made in Python.
    """

    weight: float = 1.0
    reserve: Mapping[str, int] = field(default_factory=dict)
    limit: Mapping[str, int] = field(default_factory=dict)
    budget_per_month: float | None = None
    over_budget: OverBudget = "wait"
    profiles: tuple[str, ...] | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class Ageing:
    """How waiting raises a run's priority.

    Attributes:
        step: Time of waiting after which the priority rises by one.
        longest_wait: Time after which a run holds back the others until it fits.
    """

    step: timedelta = timedelta(minutes=10)
    longest_wait: timedelta = timedelta(hours=4)


@dataclass(frozen=True, kw_only=True)
class ComputeRules:
    """The whole of policies/compute.yaml; without that file there are no profiles and no limits.

    Attributes:
        currency: Of all prices and budgets, such as "EUR".
        capacity: Resource ("gpus", "cores") → what the installation has; a resource that is absent is not bounded.
        profiles: Profiles by name.
        teams: What teams get, by name; a team that is absent has `TeamShare()`.
        ageing: How waiting raises a priority.
        file: Where they were read; empty when there is no such file.
    """

    currency: str = "EUR"
    capacity: Mapping[str, int] = field(default_factory=dict)
    profiles: Mapping[str, ComputeProfile] = field(default_factory=dict)
    teams: Mapping[str, TeamShare] = field(default_factory=dict)
    ageing: Ageing = field(default_factory=Ageing)
    file: str = ""

    def team(self, name: str) -> TeamShare:
        """Return what a team gets."""
        return self.teams.get(name, TeamShare())

    def profiles_of(self, team: str) -> dict[str, ComputeProfile]:
        """Return the profiles that a team may use, by name."""
        allowed = self.team(team).profiles
        return {name: p for name, p in self.profiles.items() if allowed is None or name in allowed}


@dataclass(frozen=True, kw_only=True)
class StepResources:
    """What one step gets, settled: its profile with what the pipeline overrides, and the price.

    Attributes:
        profile: Name of the profile; None without one.
        cores: Processor cores.
        memory_gib: Memory in GiB.
        gpus: Graphics processors.
        gpu_type: Model of the graphics processors; None for any.
        gpu_required: Whether the step cannot run without its GPUs.
        spot: Whether it runs on nodes that can be taken away.
        time_limit: Longest it may run; None for no limit.
        image: Container image; None for that of the code location.
        node_selector: Labels that the pod's node must have.
        tolerations: Taints of nodes that the pod accepts, in Kubernetes' form.
        priority: Kubernetes priority class; None for the namespace's default.
        checkpoint: Whether training is saved on its way.
        retry_memory_gib: Memory sizes to try after an out-of-memory kill, each larger than `memory_gib`, rising.
        price_per_hour: What an hour costs; None when nobody says.
        currency: Of the price.
    """

    profile: str | None = None
    cores: int = 1
    memory_gib: float = 2.0
    gpus: int = 0
    gpu_type: str | None = None
    gpu_required: bool = False
    spot: bool = False
    time_limit: timedelta | None = None
    image: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    priority: str | None = None
    checkpoint: bool = False
    retry_memory_gib: tuple[float, ...] = ()
    price_per_hour: float | None = None
    currency: str = "EUR"

    def cost(self, seconds: float) -> float | None:
        """Return what so many seconds cost, in the currency; None when there is no price."""
        return None if self.price_per_hour is None else seconds / 3600 * self.price_per_hour


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the machine (or pod) of this process has for its steps.

    Attributes:
        gpus: Graphics processors.
    """

    gpus: int = 0
