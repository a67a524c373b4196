"""From inbox entries to the next commit: order, duplicates, gaps, quarantine (I5)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.intake import Batch, in_order, take_in
from orchestrator.ports import Core, InboxEntry
from statemachines import wire
from statemachines.cluster import StepResult
from statemachines.facts import Envelope
from statemachines.states import ClusterState, new_state
from tests.orchestrator.engine import BUGGY, C, envelope, joined

NOW_MS = 1_700_000_000_000


def entry(raw: str | None, ms: int = 0, inbox: str = "n1", seq: int = 0) -> InboxEntry:
    return InboxEntry(C, inbox, f"{NOW_MS + ms}-{seq}", raw.encode() if raw is not None else None)


def take(*raw: str | None, core: Core | None = None) -> Batch:
    entries = [entry(one, ms) for ms, one in enumerate(raw)]
    return take_in(core or Core(), new_state(C), {"n1": "0-0", "n2": "3-3"}, entries, NOW_MS)


def applied(batch: Batch) -> list[str | None]:
    return [sealed.entry.source_id for sealed in batch.entries if sealed.entry.type != "FactQuarantined"]


def test_facts_are_taken_in_order_of_arrival() -> None:
    """Over all inboxes by id; among facts of one millisecond the leader's own come last."""
    mixed = [entry("a", 5), entry("b", 7), entry("l", 5, wire.LEADER_INBOX), entry("c", 5, "n2", 9), entry("d", 1, "n2")]
    ready, more = in_order(mixed, 100)
    assert [one.raw for one in ready] == [b"d", b"a", b"c", b"l", b"b"]
    assert not more


def test_nothing_overtakes_what_was_not_read_yet() -> None:
    """When an inbox gave as many as were asked for, nothing later than what was seen of it is taken."""
    read = [entry("1", 1), entry("2", 2), entry("late", 9, wire.LEADER_INBOX)]
    ready, more = in_order(read, 2)
    assert [one.raw for one in ready] == [b"1", b"2"]
    assert more


def test_a_commit_takes_at_most_a_hundred() -> None:
    """The rest stays for the next commit."""
    ready, more = in_order([entry(str(ms), ms) for ms in range(101)], 500)
    assert (len(ready), more) == (100, True)


@given(
    st.lists(st.tuples(st.sampled_from(["n1", "n2", wire.LEADER_INBOX]), st.integers(0, 6)), max_size=60),
    st.integers(1, 7),
)
def test_reading_on_takes_everything_once_and_in_order(arrivals: list[tuple[str, int]], count: int) -> None:
    """However little is read at a time, each entry is taken exactly once, and time never goes back."""
    inboxes: dict[str, list[InboxEntry]] = defaultdict(list)
    for inbox, ms in sorted(arrivals, key=lambda arrival: arrival[1]):
        inboxes[inbox].append(entry(f"{inbox}{len(inboxes[inbox])}", ms, inbox, len(inboxes[inbox])))
    taken: list[InboxEntry] = []
    more = True
    while more:
        left = {inbox: [one for one in entries if one not in taken] for inbox, entries in inboxes.items()}
        ready, more = in_order([one for entries in left.values() for one in entries[:count]], count)
        taken += ready
        assert ready or not more
    assert len(taken) == len(arrivals)
    assert [one.ms for one in taken] == sorted(one.ms for one in taken)
    for inbox, entries in inboxes.items():
        assert [one for one in taken if one.inbox == inbox] == entries


def test_next_facts_are_applied_and_cursors_move() -> None:
    """Consecutive facts go into the log; the inbox's cursor stands on the last, the others' stay."""
    batch = take(joined(1), envelope(2), envelope(3))
    assert [one for one in applied(batch) if one] == ["s:1", "s:2", "s:3"]
    assert batch.cursors == {"n1": f"{NOW_MS + 2}-0", "n2": "3-3"}
    assert batch.inboxes == {"n1"}


def test_a_duplicate_is_skipped_and_counted() -> None:
    """A number that was applied already makes no entry."""
    batch = take(envelope(1), envelope(1), envelope(2))
    assert applied(batch) == ["s:1", "s:2"]
    assert batch.skipped == {"duplicate": 1}


def test_behind_a_gap_nothing_is_taken_until_it_is_filled() -> None:
    """The fact behind a gap, and those after it, are skipped; offered again in order, they are taken."""
    batch = take(envelope(1), envelope(3), envelope(4), envelope(2), envelope(3))
    assert applied(batch) == ["s:1", "s:2", "s:3"]
    assert batch.skipped == {"gap": 2}
    assert batch.state.sources["n1"]["s"] == 3


def test_a_gap_that_nobody_can_fill_is_stepped_over() -> None:
    """When the producer's oldest fact lies behind the gap, its facts go on, and the loss is in the log."""
    batch = take(envelope(1), envelope(5, oldest=5))
    assert [one for one in applied(batch) if one] == ["s:1", "s:5"]
    assert batch.skipped == {}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "unreadable"),
        ("", "unreadable"),
        ("{", "unreadable"),
        ("[1]", "unreadable"),
        ('{"type":"NodeLeft"}', "unreadable"),
        (envelope(1, "NoSuchFact", {}), "unknown fact type 'NoSuchFact'"),
        (envelope(1, "ProbeFailed", {}), "invalid"),
        (envelope(1, "ProbeFailed", {"service": "srv", "reason": "x", "more": 1}), "invalid"),
        (envelope(1, "NodeLeft", {}, version=2), "newer than this dcsup understands"),
        (envelope(1, "LeadTaken", {"epoch": 9, "owner": "me"}), "this inbox may not write"),
        (envelope(1, "ProbeFailed", {"service": "srv", "reason": "boom"}), "step raised RuntimeError: a bug"),
    ],
)
def test_what_cannot_be_digested_is_put_aside(raw: str | None, reason: str) -> None:
    """It is quarantined with its reason and its bytes, an entry says so, and the next fact proceeds."""
    batch = take(raw, envelope(1, stream="other"), core=BUGGY)
    [quarantined] = batch.quarantined
    assert reason in quarantined.reason
    assert quarantined.raw == (raw or "").encode()
    assert [sealed.entry.type for sealed in batch.entries] == ["FactQuarantined", "ProbeFailed"]


def test_a_quarantined_number_counts_as_applied() -> None:
    """The stream goes on behind a fact that was put aside, and the same fact offered again is a duplicate."""
    bad = envelope(1, "ProbeFailed", {"service": "srv", "reason": "boom"})
    batch = take(bad, bad, envelope(2), core=BUGGY)
    assert applied(batch) == ["s:2"]
    assert len(batch.quarantined) == 1
    assert batch.skipped == {"duplicate": 1}


def test_an_id_from_the_future_begins_its_inbox_anew() -> None:
    """An inbox id more than 5 s ahead of Redis is put aside, once; its number does not count, the inbox is dropped, the log stays in the
    present (I5)."""
    entries = [entry(envelope(1), 1), entry(envelope(2), 5_001), entry(envelope(3), 5_002), entry("rubbish", 5_003)]
    batch = take_in(Core(), new_state(C), {"n1": "0-0"}, entries, NOW_MS)
    assert [one.reason for one in batch.quarantined] == ["its inbox id is 5 s ahead of Redis TIME: the inbox is begun anew"]
    assert (applied(batch), batch.spoilt, batch.cursors) == (["s:1"], {"n1"}, {"n1": "0-0"})
    assert batch.state.last_id < str(NOW_MS + 2)
    again = take_in(Core(), batch.state, batch.cursors, [entry(envelope(2), 2), entry(envelope(3), 5_000)], NOW_MS)
    assert (applied(again), again.spoilt) == (["s:2", "s:3"], set())


def test_what_nobody_would_say_again_is_taken_whatever_its_id() -> None:
    """The leader's facts and a person's count even with ids from the future; a person's does not move the log's clock."""
    asked = envelope(1, "PauseRequested", {"by": "a", "why": ""})
    batch = take_in(Core(), new_state(C), {}, [entry(asked, 60_000, wire.OPERATOR_INBOX, 2**64 - 1)], NOW_MS)
    assert (applied(batch), batch.spoilt, batch.state.last_id) == (["s:1"], set(), f"{NOW_MS}-0")
    ahead = envelope(1, "NodeLost", {"node": "n1"})
    batch = take_in(Core(), new_state(C), {}, [entry(ahead, 60_000, wire.LEADER_INBOX)], NOW_MS)
    assert (applied(batch), batch.spoilt, batch.state.last_id) == (["s:1"], set(), f"{NOW_MS + 60_000}-0")


def test_a_used_up_sequence_does_not_stop_the_log() -> None:
    """An inbox id with the largest sequence is sound for Redis, and the log goes on behind it with ids that Redis takes."""
    batch = take_in(Core(), new_state(C), {}, [entry(envelope(1), 0, seq=2**64 - 1), entry("rubbish", 1, "n2")], NOW_MS)
    assert [sealed.entry.id for sealed in batch.entries] == [f"{NOW_MS}-{2**64 - 1}", f"{NOW_MS + 1}-0"]


def test_a_core_that_cannot_even_quarantine_kills_nobody() -> None:
    """The fact is still kept in the quarantine stream, and the next one proceeds."""

    def broken(state: ClusterState, inbox: str, inbox_id: str, reason: str, envelope: Envelope | None) -> StepResult:
        raise RuntimeError("worse")

    batch = take("rubbish", envelope(1), core=replace(Core(), quarantine=broken))
    assert [one.raw for one in batch.quarantined] == [b"rubbish"]
    assert applied(batch) == ["s:1"]


def test_the_state_that_was_given_stays() -> None:
    """Taking facts in leaves the given state as it was, so that a commit that fails leaves nothing to undo."""
    state = new_state(C)
    take_in(Core(), state, {}, [entry(envelope(1))], NOW_MS)
    assert state == new_state(C)
