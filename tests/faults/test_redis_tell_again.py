"""A log that lost its data does not know any more what a node told it long ago; what is told only when it changes is told again then."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.embedded import EmbeddedRedis
from tests.conftest import wait_until
from tests.workers.conftest import BOOT, Reports, make_node, write_config
from workers import watch as watching
from workers.redisclient import connect
from workers.watch import Watch

TOLD = ("ServicePolled", "SchedulesObserved", "ClusterViewed", "MetadataObserved")


def test_the_watch_tells_everything_once_more(redis_server: EmbeddedRedis, tmp_path: Path) -> None:
    """Polls, schedules, the manager's view, the metadata DB: each once after it was asked for, also by the next process, and not again."""
    with connect(redis_server.url) as client:
        node, reports = make_node(tmp_path, redis_server.url, client), Reports()
        printed, active, asked = tmp_path / "schedules", tmp_path / "active", tmp_path / "asked"
        printed.write_text(json.dumps({"name": "s1", "startup_mode": "auto", "state": "started"}) + "\n")
        active.write_text("n1\n")
        write_config(
            node, watch='profile = "fast"\ninterval = "100ms"', services="server",
            extra_node=f'probe = ["cat", "{printed}"]\nclpgrp = ["sh", "-c", "echo x >> {asked}; cat {active}"]\nview_interval = "50ms"\n'
            'metadata_status = ["true"]',
            schedules='settle = "10ms"\nprobe_interval = "50ms"\ndeadline = "100ms"', extra_cluster="metadata = { port = 1 }",
        )  # fmt: skip
        node.dcstatus("server", 0)

        def settled(watch: Watch) -> None:
            """Everything has been looked at often enough for any change to be told."""
            before = node.asked("server"), len(asked.read_text()) if asked.exists() else 0

            def look() -> bool:
                watch.step()
                return node.asked("server") > before[0] + 15 and asked.exists() and len(asked.read_text()) > before[1] + 30

            wait_until(look, "many looks")

        watch = Watch(node.settings(), BOOT, client, reports)
        settled(watch)
        assert {kind for kind, _, _ in reports.all} >= set(TOLD)
        for again in range(2):
            told = len(reports.all)
            watching.ask_to_tell_again(node.folder)
            settled(watch)
            new = [kind for kind, _, _ in reports.all[told:]]
            assert {kind: new.count(kind) for kind in TOLD if kind != "SchedulesObserved"} == dict.fromkeys(
                (kind for kind in TOLD if kind != "SchedulesObserved"), 1
            )
            assert "SchedulesObserved" in new, again
            assert not (node.folder / watching.TELL_AGAIN).exists()
        watch.discard()
        watching.ask_to_tell_again(node.folder)
        told, next_one = len(reports.all), Watch(node.settings(), BOOT, client, reports)
        settled(next_one)
        assert {kind for kind, _, _ in reports.all[told:]} >= set(TOLD)
        next_one.discard()
