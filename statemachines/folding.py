"""The fold: how an entry changes the state. Nothing else ever does."""

from __future__ import annotations

from statemachines.entries import Sealed
from statemachines.states import ClusterState


def fold(state: ClusterState, sealed: Sealed) -> None: ...
