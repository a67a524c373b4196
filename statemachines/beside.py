"""What stands beside the machines: what clients see of the cluster's addresses.

It moves no service and no node.
"""

from __future__ import annotations

from functools import partial

from statemachines import facts as f
from statemachines import records
from statemachines.manager import Manager


class Beside(Manager):
    """A step that knows what belongs to a failover and has no state of its own."""

    # --- what clients see

    def on_endpoint(self, node: str, fact: f.EndpointChanged) -> None:
        """An outage belongs to every failover that it overlaps, also when it ends after the failover did."""
        for record in self.known_failovers():
            self.amend(record, partial(records.note_outages, self.state))
