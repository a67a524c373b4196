"""The list of planted faults fits the product: `make mutants` runs them."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import ROOT
from tests.mutants.faults import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault: Fault) -> None:
    """Its text stands there exactly once, the change changes something, and somebody is there to notice."""
    text = (ROOT / fault.file).read_text("utf-8")
    assert text.count(fault.old) == 1
    assert fault.old != fault.new
    assert fault.sim or fault.tests
    assert all((ROOT / test).exists() for test in fault.tests)


def test_there_are_enough_faults() -> None:
    """At least twenty, each of them once."""
    assert len(FAULTS) >= 20
    assert len({(fault.file, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)
