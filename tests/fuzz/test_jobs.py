"""Jobs as nobody of ours would queue them: each is refused with a reason and a fact, nothing runs, and the worker lives on."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachines.facts import FACT
from tests.fuzz.values import json_values, odd_numbers, odd_texts, plausible
from workers import jobs, processes
from workers.settings import load_node

CONFIGURATION = """\
[redis]
embedded = "{base}/data"

[clusters.c1]
group = "g1"
nodes = ["n1", "n2"]
mode = "supervise"
services = [{{ name = "server", kind = "server" }}]

[node]
name = "n1"
cluster = "c1"
folder = "{base}/node"

[node.services.server]
command = ["dcserver"]
status = ["dcstatus"]
"""
TICKET = "boot1-g1-1-start"
GOOD: dict[str, Any] = {"kind": "command", "ticket": TICKET, "n": 1, "service": "server", "verb": "recover", "not_after_ms": 10**13}
KINDS = st.sampled_from(["command", "verdict", "watch", "Command", "", None])


class Clock:
    """Redis, as far as a job asks it: for the time."""

    def time(self) -> tuple[int, int]:
        return 1_800_000_000, 0


@pytest.fixture(scope="module")
def context() -> Iterator[tuple[jobs.Context, list[tuple[str, dict[str, Any]]]]]:
    """A node without a ticket, and the facts that it reported."""
    reported: list[tuple[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory(prefix="dcsup-fuzz-") as base:
        (Path(base) / "dcsup.toml").write_text(CONFIGURATION.format(base=base))
        (Path(base) / "data").mkdir()
        client: Any = Clock()
        made = jobs.Context(
            load_node(Path(base) / "dcsup.toml"), "boot1", client, lambda kind, data, *_: reported.append((kind, data)),
            structlog.wrap_logger(mock.Mock()), threading.Event(),
        )  # fmt: skip
        yield made, reported


payloads = st.one_of(
    json_values,
    st.dictionaries(
        st.sampled_from(["kind", "ticket", "n", "service", "verb", "not_after_ms", "code", "reason", "head", "more", "signature"]),
        st.one_of(plausible, odd_texts, odd_numbers, json_values),
        max_size=4,
    ).map(lambda changes: GOOD | changes),
    st.builds(lambda kind, code, ticket: {"kind": kind, "code": code, "ticket": ticket, "reason": "x"}, KINDS, json_values, odd_texts),
)


@settings(max_examples=400, deadline=None)
@given(payloads, st.lists(json_values, max_size=1), st.booleans())
def test_a_job_that_is_none_of_ours_runs_nothing(
    context: tuple[jobs.Context, list[tuple[str, dict[str, Any]]]], payload: object, more: list[object], is_keyed: bool
) -> None:
    """Without a ticket on the disk no payload makes a node act; each refusal is a fact that the orchestrator can read."""
    made, reported = context
    reported.clear()
    keyring = mock.Mock(objection=lambda *_: "it is not signed" if is_keyed else None)
    made.__dict__["keys"] = keyring  # a node with a key, and one without
    with mock.patch.object(jobs, "_context", made), mock.patch.object(processes, "spawn_leader", side_effect=launched):
        said = jobs.perform(payload, *more)
    assert said.startswith("refused: "), said
    [(kind, data)] = reported
    assert kind == "CommandRefused"
    FACT.validate_python({**data, "type": kind})


def launched(argv: list[str], **_: object) -> Any:
    """A well-formed command goes as far as the launcher, which looks for the ticket on the disk; here it finds none."""
    answer = mock.Mock()
    answer.stdout.__enter__ = answer.stdout.__exit__ = mock.Mock(return_value=None)
    answer.stdout.readline.return_value = b'{"outcome": "refused", "reason": "no-ticket"}\n'
    assert "dcserver" in argv[-1], "a launcher runs what the node's own configuration says"
    return answer
