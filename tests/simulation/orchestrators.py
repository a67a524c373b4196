"""The orchestrators of a world: the real loop, each on a machine of its own, on its own way to Redis."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.lease import Lease
from orchestrator.loop import Orchestrator
from orchestrator.ports import Core
from statemachines.configuration import ClusterSettings
from tests.simulation.engine import Kernel, Machine, Process
from tests.simulation.redis import Net


class Host:
    """One orchestrator: a process that can be killed, stopped, paused and started again."""

    def __init__(self, kernel: Kernel, net: Net, name: str, clusters: dict[str, ClusterSettings], lease_ttl_s: float, core: Core) -> None:
        self.name = name
        self.machine = Machine(kernel, name)
        self.machine.start()
        self.orchestrator: Orchestrator | None = None
        self.lives = 0
        """How often it was started."""
        self._kernel, self._net, self._clusters, self._ttl_s, self._core = kernel, net, clusters, lease_ttl_s, core
        self._process: Process | None = None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self, snapshot_every: int) -> None:
        if self.is_alive:
            return
        self.lives += 1
        lease = Lease(f"{self.name}-{self.lives}", self._ttl_s, "{}")
        self.orchestrator = Orchestrator(self._net.store(self.name), self._clusters, lease, core=self._core, snapshot_every=snapshot_every)
        self._process = self._kernel.spawn(self.name, self.machine, self.orchestrator.run)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def tell_to_stop(self) -> None:
        """It hands over and ends."""
        if self.orchestrator is not None:
            self.orchestrator.stop()

    @property
    def leads(self) -> bool:
        return self.is_alive and self.orchestrator is not None and bool(self.orchestrator.states()["leads"])


Wrapped = Callable[[Core], Core]
