"""The watch: when it asks, what the answers mean, and that only changes become facts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.embedded import EmbeddedRedis
from statemachines import wire
from statemachines.configuration import WatchSettings
from statemachines.facts import FACT
from tests.conftest import wait_until
from tests.workers.conftest import BOOT, CLUSTER, NODE, NodeFixture, Reports, make_node, write_config
from workers import rqworker
from workers.polls import ServicePolls
from workers.redisclient import connect
from workers.watch import Watch, enqueue_window, queue, run_window

STARTING = 'interval = "60s"\nfirst_check_after = "10ms"\nstartup_interval = "20ms"'
FAST = 'profile = "fast"\ninterval = "200ms"'


def watch_of(node: NodeFixture, reports: Reports) -> Watch:
    return Watch(node.settings(), BOOT, node.client, reports)


def until(watch: Watch, condition: Callable[[], Any], what: str) -> Any:
    """Step the watch until the condition holds."""

    def look() -> Any:
        watch.step()
        return condition()

    return wait_until(look, what)


def seen(reports: Reports, service: str) -> list[tuple[str, bool, str | None]]:
    """(status, verified, ticket) of each fact about the service, all of them valid facts."""
    for told in reports.of("ServicePolled"):
        FACT.validate_python({**told, "type": "ServicePolled"})
    return [(one["status"], one["verified"], one["ticket"]) for one in reports.of("ServicePolled") if one["service"] == service]


def test_only_changes_become_facts(node: NodeFixture, reports: Reports) -> None:
    """Many polls with one answer are one fact; each change is one more."""
    write_config(node, watch=FAST + "\nverify_confirm = 2", services="server")
    watch = watch_of(node, reports)
    until(watch, lambda: node.asked("server") >= 4, "four polls")
    assert seen(reports, "server") == [("unhealthy", False, None)]
    node.dcstatus("server", 0)
    until(watch, lambda: node.status("server").get("verified") == "1", "verified")
    asked = node.asked("server")
    until(watch, lambda: node.asked("server") >= asked + 3, "three polls more")
    assert seen(reports, "server") == [("unhealthy", False, None), ("healthy", False, None), ("healthy", True, None)]
    watch.discard()


def test_a_started_service_is_verified_by_polls_that_began_afterwards(node: NodeFixture, reports: Reports) -> None:
    """A poll that was under way when the command ended says nothing about it, whatever its answer; the first waits first_check_after."""
    write_config(node, watch=STARTING.replace('"10ms"', '"300ms"') + "\nverify_confirm = 2", services="server")
    node.dcstatus("server", "hang")
    watch = watch_of(node, reports)
    until(watch, lambda: node.asked("server") == 1, "the poll that hangs")
    node.dcstatus("server", 0)
    ticket = node.ticket(1, "start", [("server", "recover")])
    ended = time.monotonic()
    node.journal(ticket, 1, "ok", "server")
    until(watch, lambda: node.status("server").get("polls") == "1", "the first poll of the ticket")
    assert float(node.status("server")["mono_started"]) >= ended + 0.3
    until(watch, lambda: node.status("server").get("verified") == "1", "verified")
    assert seen(reports, "server") == [("healthy", False, ticket), ("healthy", True, ticket)]
    assert node.status("server")["ticket"] == ticket
    assert reports.of("ServicePolled")[-1]["code"] == 0
    watch.discard()


def test_coming_up_is_watched_closely_until_verified(node: NodeFixture, reports: Reports) -> None:
    """Bad answers while a service comes up bring the next poll soon, though the interval is a minute; after it, peace."""
    write_config(node, watch=STARTING + "\nverify_confirm = 1", services="server")
    watch = watch_of(node, reports)
    ticket = node.ticket(1, "start", [("server", "recover")])
    node.journal(ticket, 1, "ok", "server")
    until(watch, lambda: node.asked("server") >= 5, "five polls")
    node.dcstatus("server", 0)
    until(watch, lambda: node.status("server").get("verified") == "1", "verified")
    assert watch.services["server"].phase == "steady"
    assert float(node.status("server")["next"]) > time.monotonic() + 30
    watch.discard()


def test_a_ticket_that_is_over_ends_the_haste(node: NodeFixture, reports: Reports) -> None:
    """Its script gave up: the service is polled at its interval again."""
    write_config(node, watch=STARTING, services="server")
    watch = watch_of(node, reports)
    ticket = node.ticket(1, "start", [("server", "recover")])
    node.journal(ticket, 1, "ok", "server")
    until(watch, lambda: node.asked("server") >= 3, "polls")
    node.close(ticket)
    until(watch, lambda: watch.services["server"].phase == "steady", "no haste")
    watch.discard()


def test_a_stopped_service_is_checked_at_once(node: NodeFixture, reports: Reports) -> None:
    """The stop hook waits for a poll that began after the stop command ended; the start's ticket is history then."""
    write_config(node, watch=STARTING + "\nverify_confirm = 1", services="server")
    node.dcstatus("server", 0)
    watch = watch_of(node, reports)
    start = node.ticket(1, "start", [("server", "recover")])
    node.journal(start, 1, "ok", "server")
    until(watch, lambda: node.status("server").get("verified") == "1" and node.status("server")["ticket"] == start, "verified")
    node.close(start)
    stop = node.ticket(2, "stop", [("server", "faststop")])
    node.dcstatus("server", 5)
    ended = time.monotonic()
    node.journal(stop, 1, "fail", "server")
    until(watch, lambda: node.status("server").get("status") == "unhealthy", "down")
    assert float(node.status("server")["mono_started"]) >= ended
    assert (node.status("server")["ticket"], node.status("server")["code"]) == ("", "5")
    assert seen(reports, "server")[-1] == ("unhealthy", False, None)
    watch.discard()


def test_a_poll_without_an_answer_is_unknown_and_not_a_failure(node: NodeFixture, reports: Reports) -> None:
    """The guide would only wait; the status says unknown, with no code."""
    write_config(node, watch=FAST + '\npoll_limit = "200ms"', services="server")
    node.dcstatus("server", "hang")
    watch = watch_of(node, reports)
    until(watch, lambda: node.asked("server") >= 3, "three polls")
    assert seen(reports, "server") == [("unknown", False, None)]
    assert reports.of("ServicePolled")[0]["code"] is None
    watch.discard()


def test_a_site_may_count_unknown_polls_as_a_failure(node: NodeFixture, reports: Reports) -> None:
    """unknown_confirm in a row are one bad answer."""
    write_config(node, watch=FAST + '\npoll_limit = "200ms"\nunknown_confirm = 2', services="server")
    node.dcstatus("server", "hang")
    watch = watch_of(node, reports)
    until(watch, lambda: node.asked("server") >= 4, "four polls")
    assert seen(reports, "server") == [("unknown", False, None), ("unhealthy", False, None)]
    watch.discard()


def test_a_dcstatus_that_cannot_be_run_is_unknown(node: NodeFixture, reports: Reports) -> None:
    """A wrong path is no evidence that the service is down."""
    write_config(node, watch=FAST, services="server")
    node.config.write_text(node.config.read_text().replace(f'status = ["sh", "{node.base}/server-status"]', 'status = ["/nowhere"]'))
    watch = watch_of(node, reports)
    until(watch, lambda: seen(reports, "server"), "a fact")
    assert seen(reports, "server") == [("unknown", False, None)]
    watch.discard()


def test_one_that_hangs_delays_nobody_else(node: NodeFixture, reports: Reports) -> None:
    """Services are polled side by side."""
    write_config(node, watch=FAST + '\npoll_limit = "60s"')
    node.dcstatus("agent", "hang")
    watch = watch_of(node, reports)
    until(watch, lambda: node.asked("server") >= 4, "polls of the other service")
    assert (node.asked("agent"), node.status("agent")["polling"]) == (1, "1")
    watch.discard()


def test_a_verified_service_is_unhealthy_after_confirm_bad_polls(node: NodeFixture, reports: Reports) -> None:
    """Two bad answers of three are none; a good one in between begins the count anew."""
    write_config(node, watch='profile = "fast"\ninterval = "50ms"\nconfirm = 3', services="server")
    node.dcstatus("server", 0)
    watch = watch_of(node, reports)
    until(watch, lambda: seen(reports, "server") == [("healthy", True, None)], "verified")
    polls = watch.services["server"]
    for answers in ((7, 7, 0), (7, 7, 0)):
        for answer in answers:
            node.dcstatus("server", answer)
            until(watch, lambda answer=answer: polls.code == answer and not polls._run, f"the answer {answer}")  # type: ignore[misc]
            if polls._bad >= 2:
                break
        node.dcstatus("server", 0)
        until(watch, lambda: polls._bad == 0 and polls.code == 0, "a good answer")
    assert seen(reports, "server") == [("healthy", True, None)]
    node.dcstatus("server", 7)
    until(watch, lambda: len(seen(reports, "server")) == 2, "the change")
    assert (seen(reports, "server")[-1], polls._bad) == (("unhealthy", False, None), 3)
    watch.discard()


def test_a_new_process_goes_on_where_the_last_one_was(node: NodeFixture, reports: Reports) -> None:
    """No fact twice, counters go on, and what was verified stays so; of another boot only the counters are still true."""
    write_config(node, watch=FAST, services="server")
    node.dcstatus("server", 0)
    ticket = node.ticket(1, "start", [("server", "recover")])
    node.journal(ticket, 1, "ok", "server")
    first = watch_of(node, reports)
    until(first, lambda: ("healthy", True, ticket) in seen(reports, "server"), "verified")
    polls = int(node.status("server")["polls"])
    first.discard()
    second = watch_of(node, reports)
    until(second, lambda: int(node.status("server")["polls"]) >= polls + 2, "polls of the second process")
    assert seen(reports, "server").count(("healthy", True, ticket)) == 1
    assert seen(reports, "server")[-1] == ("healthy", True, ticket)
    second.discard()
    third = Watch(node.settings(), "boot2", node.client, reports).services["server"]
    assert (third.verified, third.ticket, third.status) == (False, None, "unknown")
    assert third.polls >= polls + 2


@pytest.mark.parametrize(
    ("settings", "last_took_s", "pause_s"),
    [
        (WatchSettings(), 0.2, 1.0),
        (WatchSettings(), 3.0, 6.0),
        (WatchSettings(profile="fast"), 3.0, 0.1),
        (WatchSettings(startup_interval=2.5), 3.0, 2.5),
    ],
)
def test_pace_while_coming_up(node: NodeFixture, reports: Reports, settings: WatchSettings, last_took_s: float, pause_s: float) -> None:
    """Twice as long as the last poll took and at least 1 s, unless the site says otherwise."""
    polls = ServicePolls(node.folder, "server", ["true"], settings, BOOT, reports)
    polls.phase = "starting"
    assert polls._pause_s(last_took_s) == pause_s
    polls.phase = "steady"
    assert polls._pause_s(last_took_s) == settings.interval


def schedules(*states: str) -> str:
    return "".join(json.dumps({"name": f"s{i}", "startup_mode": "auto", "state": state}) + "\n" for i, state in enumerate(states))


def test_schedules_are_observed_after_each_verification_and_when_they_change(node: NodeFixture, reports: Reports) -> None:
    """The first observation later than `settle` is always told, with the ticket; else only changes; a failing probe once."""
    printed, probed = node.base / "schedules", node.base / "probed"
    printed.write_text(schedules("started", "stopped"))
    write_config(
        node, watch=FAST, services="server", extra_node=f'probe = ["sh", "-c", "echo probed >> {probed}; cat {printed}"]',
        schedules='settle = "300ms"\nprobe_interval = "100ms"\ndeadline = "1s"',
    )  # fmt: skip
    watch = watch_of(node, reports)
    until(watch, lambda: node.asked("server") >= 2, "polls")
    assert reports.all == [one for one in reports.all if one[0] == "ServicePolled"]
    node.dcstatus("server", 0)
    ticket = node.ticket(1, "start", [("server", "recover")])
    node.journal(ticket, 1, "ok", "server")
    until(watch, lambda: len(reports.of("SchedulesObserved")) == 2, "the first and the settled observation")
    assert all(one["ticket"] == ticket and len(one["schedules"]) == 2 for one in reports.of("SchedulesObserved"))
    printed.write_text(schedules("started", "started"))
    until(watch, lambda: len(reports.of("SchedulesObserved")) == 3, "the change")
    printed.write_text("database is down\n")
    until(watch, lambda: reports.of("ProbeFailed"), "the failure")
    printed.write_text(schedules("started", "started"))
    until(watch, lambda: len(reports.of("SchedulesObserved")) == 4, "the observation after the failure")
    assert len(reports.of("ProbeFailed")) == 1
    watch.discard()
    told = Reports()
    again, before = watch_of(node, told), len(probed.read_text())
    until(again, lambda: len(probed.read_text()) > before + 20, "probes of the next process")
    assert told.all == []
    again.discard()


def test_the_managers_view_is_told_when_it_changes(node: NodeFixture, reports: Reports) -> None:
    """Online on n1, then a failing clpstat (what clpgrp says counts alone), then both failing, then back; each failure is told once."""
    listing, active = node.base / "clpstat.txt", node.base / "clpgrp.txt"
    active.write_text("n1\n")
    listing.write_text("  <server>\n   *n1 ....: Online\n  <group>\n    g1 ....: Online\n      current        : n1\n")
    extra = f'clpstat = ["sh", "-c", "cat {listing}"]\nclpgrp = ["sh", "-c", "cat {active}"]\nview_interval = "50ms"'
    write_config(node, watch=FAST, services="server", extra_node=extra)
    watch = watch_of(node, reports)
    until(watch, lambda: reports.of("ClusterViewed"), "the view")
    until(watch, lambda: node.asked("server") >= 3, "some rounds")
    listing.unlink()
    until(watch, lambda: len(reports.of("ClusterViewed")) == 2, "the view of clpgrp alone")
    active.unlink()
    until(watch, lambda: len(reports.of("ClusterViewFailed")) == 2, "the failure of both")
    active.write_text("\n")
    listing.write_text("  <server>\n   *n1 ....: Online\n  <group>\n    g1 ....: Offline\n      current        : None\n")
    until(watch, lambda: reports.of("ClusterViewed")[-1]["group_state"] == "offline", "the next view")
    views = [(one["group_state"], one["current"]) for one in reports.of("ClusterViewed")]
    assert views[:2] + views[-1:] == [("online", "n1"), ("unknown", "n1"), ("offline", None)]
    reasons = [one["reason"] for one in reports.of("ClusterViewFailed")]
    assert reasons[:2] == ["clpstat ended with code 1", "clpstat ended with code 1; clpgrp ended with code 1"]
    for kind, data, _ in reports.all:
        FACT.validate_python({**data, "type": kind})
    watch.discard()


def test_the_sign_of_life_carries_the_counters(node: NodeFixture, reports: Reports) -> None:
    """A key that expires, with polls, errors and the last success of each service."""
    write_config(node, watch=FAST, services="server")
    watch = watch_of(node, reports)
    key = wire.watch_alive(CLUSTER, NODE)

    def counters() -> Any:
        value = node.client.get(key)
        return value and json.loads(value)["services"]["server"]

    until(watch, lambda: (counters() or {}).get("errors", 0) >= 2, "the counters")
    assert counters()["last_success_wall"] is None
    assert 0 < int(node.client.pttl(key)) <= 2000
    watch.discard()


def test_the_last_act_of_a_window_is_to_enqueue_the_next(node: NodeFixture, reports: Reports) -> None:
    """Exactly one job of the same queue; told to stop, none."""
    write_config(node, watch=FAST, services="server")
    watch, own = watch_of(node, reports), queue(node.client, CLUSTER, NODE)
    run_window(watch, lambda: enqueue_window(own, CLUSTER, NODE), lambda: True, window_s=0.0)
    assert own.count == 0
    run_window(watch, lambda: enqueue_window(own, CLUSTER, NODE), lambda: False, window_s=0.2)
    assert own.count == 1
    assert own.jobs[0].func_name == wire.JOB_FUNCTION
    watch.discard()


def test_without_redis_the_window_goes_on(
    own_redis: EmbeddedRedis, tmp_path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls continue through the outage, and the successor is enqueued after it."""
    monkeypatch.setattr("workers.watch.REDIS_PAUSE_S", 0.1)
    with connect(own_redis.url, timeout_s=0.3) as client:
        node = make_node(tmp_path, own_redis.url, client)
        write_config(node, watch=FAST, services="server")
        watch, own = watch_of(node, reports), queue(client, CLUSTER, NODE)
        assert own_redis.pid is not None
        os.kill(own_redis.pid, signal.SIGKILL)
        restarted: list[int] = []

        def looks() -> bool:
            if not restarted and node.asked("server") >= 4:
                own_redis.stop()
                own_redis.start()
                restarted.append(1)
            return False

        run_window(watch, lambda: enqueue_window(own, CLUSTER, NODE), looks, window_s=0.0)
        assert restarted
        assert own.count == 1
        watch.discard()


def test_what_the_disk_did_not_take_is_handed_in_while_the_window_lasts(node: NodeFixture) -> None:
    """I5: with a full disk the watch's facts go straight to Redis, and do not wait for the end of a window, or for Redis to fail."""
    write_config(node, watch=FAST, services="server")
    process = rqworker.Process("watch", node.settings(), os.getpid())
    assert process.watch is not None
    shutil.rmtree(node.folder / "outbox", ignore_errors=True)
    (node.folder / "outbox").write_text("no folder")  # takes nothing, whoever we are
    until(process.watch, lambda: node.client.xlen(wire.inbox(CLUSTER, NODE)), "a fact in the inbox")
    process.watch.discard()
    assert node.inbox()[0].type == "ServicePolled"
