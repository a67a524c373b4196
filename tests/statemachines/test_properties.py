"""What must hold whatever facts arrive in whatever order: chaos.py tells them, hypothesis chooses.

CI draws the same stories each time. A longer run with others: `DCSUP_STORIES=20000 pytest tests/statemachines/test_properties.py`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.statemachines.chaos import CONFIGURATIONS, RARE, USUAL, Chaos

STORIES = int(os.environ.get("DCSUP_STORIES", "0"))
"""How many stories a longer run tells; 0: those of CI."""

number = st.integers(0, 83)
act = st.tuples(st.sampled_from([*USUAL, *USUAL, *USUAL, *RARE]), number, number, number)
bounded = settings(
    max_examples=STORIES or 150, derandomize=not STORIES, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)  # fmt: skip


def tell(chaos: Chaos, acts: list[tuple[str, int, int, int]]) -> None:
    for what, a, b, c in acts:
        chaos.do(what, a, b, c)
    chaos.settle()


@bounded
@given(st.sampled_from(CONFIGURATIONS), st.lists(act, max_size=40))
def test_any_story_keeps_every_promise(config: object, acts: list[tuple[str, int, int, int]]) -> None:
    """I1 to I6 after each fact; one command per (ticket, n); everything at rest in the end, whatever was told."""
    tell(Chaos(config), acts)  # type: ignore[arg-type]


@bounded
@given(st.lists(act, min_size=5, max_size=30))
def test_any_story_that_begins_with_a_good_start_keeps_every_promise(acts: list[tuple[str, int, int, int]]) -> None:
    """The same from a group that is up and observed: what most nights begin with."""
    chaos = Chaos()
    chaos.calls.append(chaos.bring_up("node1"))
    chaos.wait(30)
    tell(chaos, acts)
