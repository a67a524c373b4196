"""Facts as no node would hand them in: each is applied, skipped, or put aside with its reason, and the next one proceeds (I5)."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.intake import take_in
from orchestrator.ports import Core, InboxEntry
from statemachines import wire
from statemachines.configuration import ClusterSettings
from statemachines.entries import GENESIS_HASH, unseal
from statemachines.facts import TYPES
from statemachines.folding import fold
from statemachines.invariants import check
from statemachines.states import ClusterState, new_state
from tests.fuzz.values import NODES, SERVICES, TICKETS, fact_data, json_values, odd_texts
from tests.statemachines.story import START_MS, schedule_list
from tests.statemachines.story import settings as cluster_settings

COMMANDS = [{"n": 1, "service": "agent", "verb": "recover"}, {"n": 2, "service": "server", "verb": "recover"}]
CALLED: dict[str, Any] = {"ticket": TICKETS[0], "event": "FAILOVER", "commands": COMMANDS}
COMMAND: dict[str, Any] = {"ticket": TICKETS[0], "n": 1, "service": "agent", "verb": "recover", "by": "worker"}
VALID: dict[str, dict[str, Any]] = {
    "NodeJoined": {"boot": "b", "version": "1"},
    "StartHookCalled": CALLED,
    "StopHookCalled": {**CALLED, "ticket": TICKETS[1], "factor": "GROUPFAILOVER"},
    "CommandStarted": COMMAND,
    "CommandEnded": {**COMMAND, "result": "ok", "ran": True, "code": 0, "duration_s": 1.0},
    "ServicePolled": {"service": "agent", "status": "healthy", "verified": True, "code": 0, "ticket": TICKETS[0]},
    "SchedulesObserved": {"service": "server", "schedules": schedule_list()},
    "ScriptEnded": {"ticket": TICKETS[0], "script": "start", "code": 0},
    "FallbackTaken": {"ticket": TICKETS[0], "reason": "hook-75"},
    "ClusterViewed": {"group_state": "online", "current": "node1", "servers": {}, "suspended": False},
    "AlertReceived": {"module": "rc", "id": 60},
    "LogTailLost": {"seen_id": "1-1", "found_id": "0-0"},
    "FactsDropped": {"count": 1, "reason": "disk"},
    "DeadlinePassed": {"deadline": "failover"},
    "PauseRequested": {"by": "suzuki"},
    "ConfigurationChanged": {"settings": cluster_settings().model_dump(mode="json")},
}
INBOXES = (*NODES, "stranger", wire.LEADER_INBOX, wire.OPERATOR_INBOX)
SOURCE = {wire.LEADER_INBOX: "leader", wire.OPERATOR_INBOX: "operator"}


@st.composite
def raw_facts(draw: st.DrawFn) -> tuple[str, bytes | None]:
    """(inbox, what stands in it), from nearly right to noise."""
    inbox = draw(st.sampled_from(INBOXES))
    kind = draw(st.one_of(st.sampled_from(sorted(VALID)), st.sampled_from(sorted(TYPES)), odd_texts))
    data = draw(fact_data(kind, VALID.get(kind, {})))
    body: dict[str, Any] = {
        "type": kind,
        "source": SOURCE.get(inbox, "worker"),
        "stream": "s",
        "seq": draw(st.integers(1, 6)),
        "data": data,
    }
    body["oldest"] = draw(st.integers(1, 6))
    if draw(st.integers(0, 4)) == 0:
        body[draw(st.sampled_from(["type", "version", "source", "stream", "seq", "oldest", "mono", "wall", "at_ms", "data", "more"]))] = (
            draw(json_values)
        )
    what = draw(st.integers(0, 9))
    if what == 0:
        return inbox, draw(st.one_of(st.none(), st.binary(max_size=40), st.just(b"[" * 300)))
    text = json.dumps(body).encode()
    return (inbox, text[: draw(st.integers(0, len(text)))]) if what == 1 else (inbox, text)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(raw_facts(), min_size=1, max_size=12))
def test_every_inbox_entry_is_applied_or_put_aside(told: list[tuple[str, bytes | None]]) -> None:
    """Whatever stands in an inbox: nothing raises, each entry is accounted for, and the log folds to the state (I5, I6)."""
    state = new_state("demo")
    first = json.dumps({"type": "ConfigurationChanged", "source": "leader", "stream": "l", "seq": 1, "data": VALID["ConfigurationChanged"]})
    entries = [
        InboxEntry("demo", inbox, f"{START_MS + ms}-0", raw) for ms, (inbox, raw) in enumerate([(wire.LEADER_INBOX, first.encode()), *told])
    ]
    batch = take_in(Core(), state, {}, entries, START_MS + 1000)
    taken = [sealed for sealed in batch.entries if sealed.entry.cause is None]
    assert len(taken) + batch.skipped.total() == len(entries)
    aside = [sealed for sealed in taken if sealed.entry.type == "FactQuarantined"]
    assert len(aside) == len(batch.quarantined)
    assert all(one.reason and not one.reason.startswith("step raised") for one in batch.quarantined)
    assert not [sealed for sealed in batch.entries if sealed.entry.type == "InvariantViolated"]
    assert not check(batch.state, batch.entries)
    folded, last = new_state("demo"), GENESIS_HASH
    for sealed in batch.entries:
        fold(folded, unseal(sealed.body, sealed.hash, last))
        last = sealed.hash
    assert folded == batch.state
    assert ClusterState.model_validate_json(batch.state.model_dump_json()) == batch.state


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(sorted(ClusterSettings.model_fields)), json_values), min_size=1, max_size=3))
def test_a_configuration_from_the_log_is_whole_or_refused(changes: list[tuple[str, Any]]) -> None:
    """A configuration fact that does not fit is put aside with a reason; the one that stood stays."""
    good = VALID["ConfigurationChanged"]["settings"]
    bodies = [{"settings": good}, {"settings": good | dict(changes)}]
    entries = [
        InboxEntry("demo", wire.LEADER_INBOX, f"{START_MS + n}-0", json.dumps(
            {"type": "ConfigurationChanged", "source": "leader", "stream": "l", "seq": n + 1, "data": data}).encode())
        for n, data in enumerate(bodies)
    ]  # fmt: skip
    batch = take_in(Core(), new_state("demo"), {}, entries, START_MS)
    assert batch.state.settings is not None
    assert len(batch.quarantined) <= 1
    assert {service.name for service in batch.state.settings.services} == set(batch.state.services) or batch.quarantined == []
    assert SERVICES[0] in batch.state.services or not batch.quarantined
