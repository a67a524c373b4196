"""Commands over the event log: events, failovers, export, replay."""

from __future__ import annotations

import argparse
import heapq
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator.cli import options, output
from orchestrator.cli.connection import chosen, configured, redis_of, states
from orchestrator.cli.stopping import BAD_ANSWER, WRONG_USE, Stop
from orchestrator.said import say
from workers.messages import _

if TYPE_CHECKING:
    from redis import Redis

    from orchestrator.replay import Replayed
    from statemachines.configuration import Configuration
    from statemachines.entries import Entry, Sealed

USUAL_LIMIT = 50
"""Entries that `events` shows when nothing else is asked for."""

KEPT = 20
"""Failovers that the state itself remembers; for more the log is read, backwards."""

_PAGE = 500
_FOLLOW_MS = 1000
"""One wait for a new entry; shorter than the connection's time-out."""

_ID = re.compile(r"\d{10,16}(-\d+)?")
_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add(commands: options.Commands) -> None:
    events = options.add_command(commands, "events", _("show the entries of the event log"), run_events)
    options.config(events)
    options.cluster(events)
    options.as_json(events)
    when = _("an id, a time (2026-08-01T10:00, local unless it says otherwise), or how long ago (30m, 2h, 1d)")
    events.add_argument("--from", dest="begin", metavar=_("WHEN"), help=_("the first: {when}").format(when=when))
    events.add_argument("--to", dest="end", metavar=_("WHEN"), help=_("the last, likewise"))
    events.add_argument("--type", action="append", metavar=_("TYPE"), help=_("only this type (may be repeated)"))
    events.add_argument("--limit", type=int, metavar="N", help=_("at most N, the latest (default: 50, or all if --from is given)"))
    events.add_argument("--follow", action="store_true", help=_("go on with new entries as they come, until Ctrl-C"))
    failovers = options.add_command(commands, "failovers", _("show the latest failovers with their phases"), run_failovers)
    options.config(failovers)
    options.cluster(failovers)
    options.as_json(failovers)
    failovers.add_argument("--limit", type=int, metavar="N", default=KEPT, help=_("at most N, the latest (default: 20)"))
    export = options.add_command(commands, "export", _("write a cluster's whole event log, one JSON object a line"), run_export)
    options.config(export)
    options.cluster(export)
    export.add_argument("-o", "--output", metavar=_("FILE"), default="-", help=_("the file to write (default: standard output)"))
    replay = options.add_command(commands, "replay", _("replay an exported log"), run_replay)
    replay.add_argument("file", metavar=_("FILE"), help=_("the exported file; - is the standard input"))
    replay.add_argument("--verify", action="store_true", help=_("decide everything again with today's rules and compare"))
    replay.add_argument("--state", action="store_true", help=_("show the state that the log leads to, as `status` does"))
    options.as_json(replay)


# --- events -------------------------------------------------------------------------------------------------------------------------------


def run_events(arguments: argparse.Namespace) -> int:
    configuration = configured(arguments)
    clusters = chosen(arguments, configuration)
    begin, end = _bound(arguments.begin, "-"), _bound(arguments.end, "+")
    if arguments.limit is not None and arguments.limit < 0:
        raise Stop(WRONG_USE, say("--limit is 0 or more"))
    limit = arguments.limit if arguments.limit is not None or arguments.begin else USUAL_LIMIT
    show = _show_line if arguments.json else _show_event
    with redis_of(configuration) as client:
        last = {cluster: _newest(client, cluster) for cluster in clusters}
        several = [_window(client, cluster, begin, end, arguments.type, limit) for cluster in clusters]
        merged = list(heapq.merge(*several, key=_place))
        for sealed in merged if limit is None else merged[len(merged) - min(limit, len(merged)) :]:
            show(sealed)
        if arguments.follow:
            _follow(client, last, arguments.type, show)
    return 0


def _bound(text: str | None, default: str) -> str:
    """A stream id for Redis.

    Raises:
        Stop: it is none of the forms.
    """
    if text is None or _ID.fullmatch(text):
        return text or default
    if match := _AGO.fullmatch(text):
        then = datetime.now().astimezone() - timedelta(**{_UNITS[match[2]]: int(match[1])})
        return str(int(then.timestamp() * 1000))
    try:
        return str(int(datetime.fromisoformat(text).astimezone().timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise Stop(WRONG_USE, say("'{text}' is neither an id, nor a time such as 2026-08-01T10:00, nor 30m, 2h, 1d", text=text)) from error


def _place(sealed: Sealed) -> tuple[tuple[int, int], str]:
    from statemachines.entries import id_key

    return id_key(sealed.entry.id), sealed.entry.cluster


def _newest(client: Redis, cluster: str) -> str:
    from statemachines import wire

    rows: Any = client.xrevrange(wire.log(cluster), count=1)
    return rows[0][0].decode() if rows else "0-0"


def _window(client: Redis, cluster: str, begin: str, end: str, types: list[str] | None, limit: int | None) -> list[Sealed]:
    """The latest entries of a window, in order."""
    backwards = (sealed for sealed in _backwards(client, cluster, begin, end) if not types or sealed.entry.type in types)
    return list(islice(backwards, limit))[::-1]


def _backwards(client: Redis, cluster: str, begin: str, end: str) -> Iterator[Sealed]:
    from statemachines import wire

    while True:
        rows: Any = client.xrevrange(wire.log(cluster), end, begin, count=_PAGE)
        if not rows:
            return
        for entry_id, fields in rows:
            yield _sealed(entry_id, fields)
        end = f"({rows[-1][0].decode()}"


def _sealed(entry_id: bytes, fields: dict[bytes, bytes]) -> Sealed:
    """A stored entry without its predecessors: its place in the chain is not checked here (`export` does)."""
    from orchestrator.chain import Damaged, why
    from statemachines import wire
    from statemachines.entries import ChainBroken, Sealed, decode

    body, digest = fields.get(wire.ENTRY_FIELD.encode(), b""), fields.get(wire.HASH_FIELD.encode(), b"")
    try:
        return Sealed(decode(body), body, digest.decode("ascii", "replace"))
    except ChainBroken as error:
        raise Damaged(say("entry {id}: {why}", id=entry_id.decode(), why=why(error))) from error


def _follow(client: Redis, last: dict[str, str], types: list[str] | None, show: Callable[[Sealed], None]) -> None:
    from statemachines import wire

    streams: dict[Any, Any] = {wire.log(cluster): after for cluster, after in last.items()}
    while True:
        answer: Any = client.xread(streams, count=_PAGE, block=_FOLLOW_MS)
        for key, rows in answer or ():
            for entry_id, fields in rows:
                streams[key.decode()] = entry_id.decode()
                sealed = _sealed(entry_id, fields)
                if not types or sealed.entry.type in types:
                    show(sealed)
        sys.stdout.flush()


def _show_line(sealed: Sealed) -> None:
    from statemachines.entries import to_line

    print(to_line(sealed).decode())


def _show_event(sealed: Sealed) -> None:
    print(event_line(sealed.entry))


def event_line(entry: Entry) -> str:
    """`2026-08-01T10:00:00.000Z  pair  n1/db  ServicePolled  S110  starting -> running  status=healthy`."""
    place = "/".join(part for part in (entry.node, entry.service) if part) or "-"
    moves = ", ".join(f"{one.get('machine')}: {one.get('from')} -> {one.get('to')}" for one in entry.transitions)
    plain = {key: value for key, value in entry.data.items() if not isinstance(value, (dict, list)) and value not in (None, "")}
    words = " ".join(f"{key}={_brief(value)}" for key, value in plain.items())
    indent = "  " if entry.cause else ""
    parts = (entry.time, entry.cluster, place, indent + entry.type, f"[{entry.rule}]" if entry.rule else "", moves, words)
    return "  ".join(part for part in parts if part.strip())


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- failovers ----------------------------------------------------------------------------------------------------------------------------


def run_failovers(arguments: argparse.Namespace) -> int:
    from orchestrator.cli.showing import show_failovers

    configuration = configured(arguments)
    clusters = chosen(arguments, configuration)
    if arguments.limit < 1:
        raise Stop(WRONG_USE, say("--limit is 1 or more"))
    told = states(configuration, clusters)
    found = {cluster: _latest(configuration, state, arguments.limit) for cluster, state in told.items()}
    if arguments.json:
        output.show_json({"clusters": found})
        return 0
    for cluster, failovers in found.items():
        output.show(
            say("cluster {name}: {count} of {total} failovers", name=cluster, count=len(failovers), total=told[cluster]["failover_count"])
        )
        if failovers:
            show_failovers(failovers)
    return 0


def _latest(configuration: Configuration, state: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """The latest failovers, the oldest first: what the state remembers, and where more are asked for, what the log says."""
    ended, present = state["failovers"], [state["failover"]] if state["failover"] is not None else []
    if limit - len(present) > len(ended) == KEPT:
        with redis_of(configuration) as client:
            ended = _ended(client, state["cluster"], limit - len(present))
    return [*ended, *present][-limit:]


def _ended(client: Redis, cluster: str, limit: int) -> list[dict[str, Any]]:
    """The latest failovers that ended, the oldest first; the log is read backwards until there are enough."""
    from orchestrator.replay import ended_failover

    failovers: dict[str, dict[str, Any]] = {}
    for sealed in _backwards(client, cluster, "-", "+"):
        if (record := ended_failover(sealed.entry)) is not None:
            if record["id"] not in failovers and len(failovers) == limit:
                break
            failovers.setdefault(record["id"], record)
    return sorted(failovers.values(), key=lambda record: record["points"].get("symptom", 0.0))


# --- export, replay -----------------------------------------------------------------------------------------------------------------------


def run_export(arguments: argparse.Namespace) -> int:
    from orchestrator.export import checked, exported, stored

    configuration = configured(arguments)
    clusters = chosen(arguments, configuration)
    if len(clusters) != 1:
        raise Stop(WRONG_USE, say("a file holds one cluster: choose with --cluster among {known}", known=", ".join(clusters)))
    count = 0
    with redis_of(configuration) as client, _written(arguments.output) as file:
        for line in exported(checked(stored(client, clusters[0]), clusters[0])):
            file.write(line)
            count += 1
        if count == 0:
            raise Stop(BAD_ANSWER, say("cluster '{cluster}' has no event log yet", cluster=clusters[0]))
    output.remark(say("{count} entries of cluster {cluster}", count=count, cluster=clusters[0]))
    return 0


@contextmanager
def _written(path: str) -> Iterator[BinaryIO]:
    """A file that is there whole or not at all: written aside, then renamed."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    aside = target.with_name(f".tmp-{target.name}")
    try:
        with aside.open("wb") as file:
            yield file
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def run_replay(arguments: argparse.Namespace) -> int:
    from orchestrator.reading import entries
    from orchestrator.replay import replay

    replayed = replay(_counted(entries(arguments.file)), again=arguments.verify)
    assert replayed.state is not None, "a file without entries is refused while it is read"
    state = replayed.state.model_dump(mode="json")
    if arguments.json:
        output.show_json({"clusters": {replayed.state.cluster: state}} if arguments.state else _summary(replayed, arguments.verify))
    else:
        _show_replayed(replayed, arguments.verify)
        if arguments.state:
            from orchestrator.cli.showing import show_state

            show_state(state)
    return BAD_ANSWER if replayed.differences else 0


def _counted(entries: Iterable[Sealed]) -> Iterator[Sealed]:
    """The file's own troubles in words: it is missing, a folder, not readable."""
    try:
        yield from entries
    except OSError as error:
        raise Stop(WRONG_USE, say("{file} cannot be read: {why}", file=error.filename or "-", why=error.strerror or error)) from error


def _summary(replayed: Replayed, verified: bool) -> dict[str, Any]:
    state = replayed.state
    assert state is not None
    summary = {
        "cluster": state.cluster, "entries": replayed.count, "head": {"id": state.last_id, "hash": state.last_hash},
        "failovers": list(replayed.failovers.values()),
    }  # fmt: skip
    differences = [vars(difference) for difference in replayed.differences]
    return {**summary, "differences": differences} if verified else summary


def _show_replayed(replayed: Replayed, verified: bool) -> None:
    from orchestrator.cli.showing import show_failovers

    state = replayed.state
    assert state is not None
    output.show(say("cluster {name}: {count} entries, every hash is right", name=state.cluster, count=replayed.count))
    output.show(say("log head {id} {hash}", id=state.last_id, hash=state.last_hash))
    if replayed.failovers:
        show_failovers(list(replayed.failovers.values()))
    if verified and not replayed.differences:
        output.show(say("decided again: the same decisions"))
    for difference in replayed.differences:
        output.show(say("decided otherwise now: {difference}", difference=difference))
