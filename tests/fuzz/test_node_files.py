"""A node folder full of rubbish: what can be read is handed in once, the rest is put aside with words, no ticket becomes another one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.values import fact_data, json_values, odd_texts
from workers import files, journal, maintenance, reaper, statuses, tickets
from workers.courier import parse_mark
from workers.hooks.calls import older_process_lives
from workers.rawfacts import Damaged, read_fact
from workers.sequences import DiskSequence

BOOT = "boot1"
TICKET = f"{BOOT}-failover1-1-start"
CALM = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

WORDS = (
    "open", "worker", "busy-1-99999999-7", "busy-x", "busy-0-0-0", "busy-1-1-1", "script", "script-1", "done", "void", "alive", "verdict",
    "pulse", "1.start", "1.ok", "99999999999999999999.fail", "-1.lost", ".start", "1.live",
)  # fmt: skip
KEYS = ("commands", "1.service", "1.verb", "2.service", "pid", "born", "boot", "mono", "code", "status", "polling", "wall", "event")
LETTERS = st.characters(blacklist_characters="/\x00", blacklist_categories=["Cs"])

ticket_names = st.builds(
    "{}-{}-{}-{}.{}".format,
    st.sampled_from([BOOT, "other", "", "a-b"]), st.sampled_from(["failover1", "f-1", "*", "[a-z]?"]), st.integers(0, 10**20),
    st.sampled_from(["start", "stop", "move"]), st.sampled_from(WORDS),
)  # fmt: skip
names = st.one_of(st.text(LETTERS, min_size=1, max_size=30).filter(lambda name: name not in (".", "..")), ticket_names)
field_values = st.one_of(
    st.sampled_from(["1", "-1", "99999999999", "nan", "inf", "1e999", "", BOOT, "agent", "start", "１"]), st.text(max_size=10)
)
contents = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from(KEYS), field_values, max_size=6).map(
        lambda fields: files.to_text(dict(fields)).encode("utf-8", "replace")
    ),
)


@contextmanager
def folder_with(**folders: dict[str, bytes | None]) -> Iterator[Path]:
    """A node folder with these files in its folders; None: a folder in place of a file."""
    with tempfile.TemporaryDirectory(prefix="dcsup-fuzz-") as base:
        home = Path(base)
        for folder in ("tickets", "journal", "outbox", "watch"):
            (home / folder).mkdir()
            for name, content in folders.get(folder, {}).items():
                place = home / folder / name
                try:
                    if content is None:
                        place.mkdir()
                    elif not place.exists():
                        place.write_bytes(content)
                except OSError:
                    continue  # a name that this file system does not take
        yield home


@CALM
@given(
    st.dictionaries(names, st.one_of(contents, st.none()), max_size=8), st.dictionaries(names, st.one_of(contents, st.none()), max_size=8)
)
def test_rubbish_among_tickets_and_journal_stops_nobody(found: dict[str, bytes | None], written: dict[str, bytes | None]) -> None:
    """Every reader goes on, and a good ticket beside the rubbish is still found, claimed by one only, and given back (N2)."""
    with folder_with(tickets=found, journal=written) as home:
        files.write_aside(home / "tickets" / f"{TICKET}.open", "commands=1\n1.service=agent\n1.verb=start\n")
        for name in [*found, *written]:
            journal.read(home, name, 1)
            tickets.read_verdict(home, name)
            tickets.is_alive(home, name)
        listed = tickets.listing(home)
        assert [one.commands() for one in listed if one.id == TICKET] == [[tickets.Command(1, "agent", "start")]]
        journal.starts(home)
        good = tickets.find(home, TICKET)
        assert good is not None
        older_process_lives(home, BOOT, good)
        reaper.reap(home, BOOT)
        busy = tickets.claim(good, 1, 99999999, "7")
        assert busy is not None and busy.state == "busy"
        assert tickets.claim(good, 1, 99999998, "7") is None
        [settled] = [one for one in reaper.reap(home, BOOT) if one.ticket == TICKET]
        assert settled.state in ("lost", "ok", "fail")
        again = tickets.find(home, TICKET)
        assert again is not None and again.state == "worker"
        tickets.prune(home, keep=0)
        assert journal.read(home, TICKET, 1) is not None, "what became of a live ticket's command was forgotten"


@CALM
@given(st.dictionaries(st.sampled_from(["agent.status", "server.status", "agent.code"]), contents), st.text(max_size=10))
def test_a_status_file_is_a_status_or_none(written: dict[str, bytes], boot: str) -> None:
    """Whatever stands in a watch file, nobody calls it fresh and healthy unless it says so with this boot's id."""
    with folder_with(watch=dict(written)) as home:
        for service in ("agent", "server"):
            status = statuses.read(home, service, boot)
            if status is not None:
                assert isinstance(status.is_moving(1000.0, 30.0), bool)
                assert status.age_s(1000.0) >= 0


def _fact(kind: str, data: dict[str, Any], more: dict[str, Any]) -> bytes:
    body = {"type": kind, "version": 1, "source": "worker", "boot": BOOT, "mono": 1.0, "wall": 1.0, "data": data, **more}
    return json.dumps(body).encode()


LINE_KEYS = ("type", "source", "n", "1.service", "1.verb", "code", "ran", "")
plain_lines = st.builds("{}={}".format, st.sampled_from(LINE_KEYS), st.text(max_size=12))
fact_files = st.one_of(
    st.binary(max_size=80),
    st.builds(
        _fact,
        st.one_of(st.sampled_from(["NodeJoined", "CommandEnded"]), odd_texts),
        fact_data("CommandEnded", {"n": 1}),
        st.dictionaries(st.sampled_from(["mono", "wall", "boot", "source", "data", "type"]), json_values, max_size=2),
    ),
    st.lists(plain_lines).map(lambda lines: "\n".join(lines).encode("utf-8", "replace")),
)
fact_names = st.builds("{}{}".format, st.text("abc0123456789-", min_size=1, max_size=24), st.sampled_from([".fact", ".line", ".tmp"]))


@CALM
@given(st.dictionaries(fact_names, fact_files, max_size=8))
def test_every_fact_file_is_numbered_or_put_aside(written: dict[str, bytes]) -> None:
    """Numbers are consecutive, each number can be handed in, nothing is there twice and nothing is gone (I5)."""
    with folder_with(outbox=dict(written)) as home:
        sequence = DiskSequence(home)
        words: list[str] = []
        sequence.number_new(words.append)
        offered = list(sequence.after(0, 100))
        assert [number for number, _ in offered] == list(range(1, len(offered) + 1))
        for number, fact in offered:
            fact.envelope(sequence.stream, number, sequence.oldest).model_dump_json()
        facts = {name for name in written if not name.endswith(".tmp")}
        aside = {path.name for path in sequence.damaged.iterdir()}
        assert len(words) == len(aside)
        assert len(offered) + len(aside) == len(facts)
        assert all(written[name] == (sequence.damaged / name).read_bytes() for name in aside)
        again = DiskSequence(home)
        assert (again.stream, again.last) == (sequence.stream, sequence.last)


@CALM
@given(fact_files)
def test_a_fact_file_is_a_fact_or_damaged(content: bytes) -> None:
    """Nothing but `Damaged` comes out of the reader."""
    with folder_with(outbox={"1.fact": content}) as home:
        try:
            read_fact(home / "outbox" / "1.fact")
        except Damaged as damaged:
            assert str(damaged)


@CALM
@given(st.one_of(st.binary(max_size=60), json_values.map(lambda value: json.dumps(value).encode())))
def test_an_unreadable_mark_lets_nothing_go(value: bytes) -> None:
    """A mark key that holds anything else counts as none."""
    assert all(isinstance(seq, int) for seq in parse_mark(value).streams.values())


@CALM
@given(contents)
def test_maintenance_needs_a_whole_file(content: bytes) -> None:
    """A node is in maintenance only when the file says so whole, in this boot and freshly."""
    with folder_with() as home:
        (home / "maintenance").write_bytes(content)
        assert maintenance.reason_of(home, "a boot that no file names", 1.0) is None
