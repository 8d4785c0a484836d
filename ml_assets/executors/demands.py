"""What the steps of one run ask for, and what each therefore takes of the run's worker: its share, or a pod."""

from dataclasses import replace
from typing import Any, NamedTuple

from ml_assets.executors.pods import StepDemand, WorkerSize, demand_of


class Share(NamedTuple):
    """What a step takes of its run's worker while it has a process there.

    Attributes:
        cores: Processor cores.
        memory_mib: Memory in MiB.
    """

    cores: int = 0
    memory_mib: int = 0

    def fits(self, free: "Share") -> bool:
        """Return whether there is as much of both."""
        return self.cores <= free.cores and self.memory_mib <= free.memory_mib


class Demands:
    """The demands of a run's steps by their op tags, with more memory for those that were killed for lack of it.

    Args:
        worker: What the run's worker has.
        has_cluster: Whether a step may have a pod.
    """

    def __init__(self, worker: WorkerSize, *, has_cluster: bool) -> None:
        self.worker = worker
        self._has_cluster = has_cluster
        self._known: dict[str, StepDemand] = {}
        self._raised: dict[str, int] = {}

    @property
    def total(self) -> Share:
        """Return what forked steps share."""
        return Share(self.worker.cores, self.worker.memory_mib or 0)

    def of(self, step: Any) -> StepDemand:
        """Return what a step (an ExecutionStep) asks for now.

        Raises:
            MlAssetsError: If one of its tags is not a whole number.
        """
        if step.key not in self._known:
            self._known[step.key] = demand_of(step.key, step.tags)
        return self._known[step.key]

    def share(self, step: Any) -> Share:
        """Return what a step takes when it is forked: what it asks for, or all there is where it asks for more.

        One that says nothing takes one core and no memory. Where the worker's memory is not known, none is counted.
        """
        return self._share(self.of(step))

    def wants_pod(self, step: Any) -> bool:
        """Return whether a step gets a pod: there is a cluster, and the worker lacks something that it asks for."""
        return self._wants_pod(self.of(step))

    def raised_memory(self, step: Any) -> int | None:
        """Return the memory in MiB that took the place of what the step's tags ask for; None if none did."""
        return self._raised.get(step.key)

    def raise_memory(self, step: Any, memory_mib: int) -> None:
        """Have a step ask for so much memory from now on."""
        self._raised[step.key] = memory_mib
        self._known[step.key] = replace(self.of(step), memory_mib=memory_mib)

    def more_memory(self, step: Any) -> int | None:
        """Return the size in MiB to try after a forked step was killed for lack of memory.

        Returns:
            The next one that its tags allow. None when there is none, or when it would change nothing: the step had
            the worker's whole memory to itself, and there is no cluster.
        """
        demand = self.of(step)
        memory = demand.next_memory(demand.memory_mib)
        if memory is None:
            return None
        after = replace(demand, memory_mib=memory)
        return memory if self._wants_pod(after) or self._share(after) != self._share(demand) else None

    def _share(self, demand: StepDemand) -> Share:
        total = self.total
        return Share(min(demand.cores, total.cores), min(demand.memory_mib or 0, total.memory_mib))

    def _wants_pod(self, demand: StepDemand) -> bool:
        return self._has_cluster and self.worker.lacks(demand) is not None
