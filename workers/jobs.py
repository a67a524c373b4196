"""What a node's RQ workers do: one entry, three kinds of job.

    command   run command n of a ticket: a launcher of its own is started, which claims, runs and records (NODE.md N2-N5)
    verdict   lay the orchestrator's word beside a ticket, where the hook reads it (N9)
    watch     one window of the watch

A job comes from Redis, so nothing in it is believed. First its signature (workers/keys.py): a job that was not signed for this node under
this id is read no further. A signed one may still be old or doubled: the payload is checked against its model, (service, verb) against
this node's configuration, the time against Redis TIME, the ticket's name against the form of ticket names; and the launcher checks the
rest against the disk. What is refused runs nothing, is logged and becomes a fact (`CommandRefused`) with its reason; `perform` never
raises.

The journal, not RQ, knows whether a command has run; a job that is delivered twice finds it there. That is why this process may be
stopped or killed while a launcher works: the launcher writes its own end.
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import redis
from pydantic import ValidationError
from redis import Redis
from rq import get_current_job

from statemachines import signing
from statemachines.commands import JOB, PutVerdict, RunCommand, WatchWindow
from statemachines.configuration import Verb
from workers import launcher, processes, tickets
from workers.keys import Keyring
from workers.settings import NodeConfiguration
from workers.watch import Watch, enqueue_window, run_window
from workers.watch import queue as watch_queue

ANSWER_AFTER_END_S = 2.0
"""How long a launcher that has answered may take to end."""

_TICKET = re.compile(r"[A-Za-z0-9]+-[a-z0-9-]+-[0-9]+-(?:start|stop)")
_START_VERBS = ("start", "recover")


class Refused(Exception):
    """A job that must not run, with the reason as the fact tells it."""

    def __init__(self, reason: str, detail: str = "", ticket: str | None = None, n: int | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.ticket, self.n = reason, detail, ticket, n


@dataclass(frozen=True)
class Context:
    """What jobs need of the process they run in; set once by workers/rqworker.py."""

    settings: NodeConfiguration
    boot: str
    client: Redis
    """Answers quickly or not at all; not RQ's own connection."""
    report: Callable[..., None]
    log: Any
    stopping: threading.Event
    watch: Watch | None = None
    """Only in the process that works the watch queue."""

    @property
    def folder(self) -> Path:
        return Path(self.settings.node.folder)

    @cached_property
    def keys(self) -> Keyring:
        return Keyring(self.settings.whole, self.settings.node)


_context: Context | None = None


def configure(context: Context) -> None:
    """Set the context of all jobs of this process."""
    global _context
    _context = context


def perform(payload: object = None, *more: object, **named: object) -> str:
    """The one function that RQ may call (statemachines.wire.JOB_FUNCTION). Returns what became of the job, in words."""
    context = _context
    if context is None:
        return "refused: this process is no dcsup worker"
    try:
        if more or named:
            raise Refused("bad-job", "more than one argument")
        job = _validated(_believed(context, payload))
        return HANDLERS[job.kind](context, job)
    except Refused as refusal:
        refuse(context, refusal, current_job_id())
        return f"refused: {refusal}"
    except Exception as error:  # our own mistake or a failing disk: the worker must live on, and somebody must hear of it
        context.log.exception("job failed", job_id=current_job_id())
        refuse(context, Refused("failed", f"{type(error).__name__}: {error}"[:300]), current_job_id())
        return f"failed: {error}"


def refuse(context: Context, refusal: Refused, job_id: str) -> None:
    """Log a refusal and make it a fact."""
    said = {"reason": refusal.reason, "detail": refusal.detail, "ticket": refusal.ticket, "n": refusal.n}
    context.log.warning("job refused", job_id=job_id, **said)
    context.report("CommandRefused", {"job_id": job_id, **said})


def current_job_id() -> str:
    """Id of the RQ job that is being performed; empty outside of one."""
    job = get_current_job()
    return job.id if job is not None else ""


def _believed(context: Context, payload: object) -> object:
    """The payload without its signature, which is good if this node has a key."""
    fields = payload if isinstance(payload, dict) else {}
    objection = context.keys.objection(fields, current_job_id())
    if objection is not None:
        raise Refused("bad-signature", objection)
    return signing.unsigned(payload) if isinstance(payload, dict) else payload


def _validated(payload: object) -> RunCommand | PutVerdict | WatchWindow:
    try:
        return JOB.validate_python(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        detail = f"{'.'.join(map(str, first['loc'])) or 'payload'}: {first['msg']}"
        fields = payload if isinstance(payload, dict) else {}
        ticket, n = fields.get("ticket"), fields.get("n")
        raise Refused(
            _reason(fields, first["loc"]), detail[:300], ticket if isinstance(ticket, str) else None, n if type(n) is int else None
        ) from None


def _reason(fields: dict[str, object], where: tuple[int | str, ...]) -> str:
    unknown_verb = "verb" in where and isinstance(fields.get("verb"), str) and fields["verb"] not in get_args(Verb)
    return "unknown-verb" if unknown_verb else "bad-job"


# -- commands


def _command(context: Context, job: RunCommand) -> str:
    _check_form(job.ticket, job.n)
    _check_time(context, job)
    spec = _spec(context, job)
    answer = _launch(context, spec)
    if answer is None:
        return "left running"  # told to stop: the launcher goes on and records its own end
    if answer.get("outcome") == "refused":
        raise Refused(str(answer.get("reason", "")), str(answer.get("detail", "")), job.ticket, job.n)
    return str(answer.get("outcome"))


def _check_form(ticket: str, n: int | None) -> None:
    if not _TICKET.fullmatch(ticket):
        raise Refused("bad-job", "not the name of a ticket", ticket[:200], n)


def _check_time(context: Context, job: RunCommand) -> None:
    try:
        seconds, microseconds = context.client.time()
    except redis.RedisError as error:
        raise Refused("no-time", str(error), job.ticket, job.n) from None
    late_ms = seconds * 1000 + microseconds // 1000 - job.not_after_ms
    if late_ms > 0:
        raise Refused("late", f"{late_ms} ms after its time", job.ticket, job.n)


def _spec(context: Context, job: RunCommand) -> launcher.Spec:
    node, cluster = context.settings.node, context.settings.cluster
    paths = node.services.get(job.service)
    if paths is None or cluster.service(job.service) is None:
        raise Refused("unknown-service", job.service, job.ticket, job.n)
    try:
        command = paths.argv(job.verb)
    except ValueError as error:
        raise Refused("unknown-verb", f"{job.service}: {error}", job.ticket, job.n) from None
    return launcher.Spec(
        folder=str(context.folder.absolute()), ticket=job.ticket, n=job.n, service=job.service, verb=job.verb, boot=context.boot,
        command=command, status=list(paths.status),
        limit_s=(cluster.start if job.verb in _START_VERBS else cluster.stop).command_limit,
        poll_limit_s=cluster.watch.poll_limit, encoding=node.encoding, agent=_agent_before(context.settings, job.service),
    )  # fmt: skip


def _agent_before(settings: NodeConfiguration, service: str) -> dict[str, Any] | None:
    """The agent that must be healthy before this service's start (I2, G23): for a server, the last agent listed before it."""
    names = [one.name for one in settings.cluster.services]
    kind = {one.name: one.kind for one in settings.cluster.services}
    before = [name for name in names[: names.index(service)] if kind[name] == "agent"]
    if kind[service] != "server" or not before:
        return None
    return {"service": before[-1], "status": list(settings.node.services[before[-1]].status)}


def _launch(context: Context, spec: launcher.Spec) -> dict[str, Any] | None:
    """The launcher's answer; None when this process was told to stop before it came."""
    try:
        child = processes.spawn_leader(launcher.argv(spec), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except OSError as error:
        raise Refused("launcher-failed", str(error), spec.ticket, spec.n) from None
    answers: queue.Queue[bytes] = queue.Queue()
    # A thread, because a pipe cannot be waited for with a time-out everywhere; only one line, because a daemon may keep the pipe open.
    threading.Thread(target=_read_line, args=(child, answers), daemon=True).start()
    while not context.stopping.is_set():
        try:
            line = answers.get(timeout=0.1)
        except queue.Empty:
            continue
        return _answer(child, line, spec)
    return None


def _read_line(child: subprocess.Popen[bytes], answers: queue.Queue[bytes]) -> None:
    assert child.stdout is not None
    with child.stdout:
        answers.put(child.stdout.readline())


def _answer(child: subprocess.Popen[bytes], line: bytes, spec: launcher.Spec) -> dict[str, Any]:
    try:
        child.wait(ANSWER_AFTER_END_S)
    except subprocess.TimeoutExpired:
        pass  # its answer counts; it is another group and nobody's zombie for long
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Refused("launcher-failed", f"it ended with {child.returncode} and said nothing", spec.ticket, spec.n)
    return answer


# -- verdicts and windows


def _verdict(context: Context, job: PutVerdict) -> str:
    _check_form(job.ticket, None)
    if not tickets.write_verdict(context.folder, job.ticket, job.code, job.reason):
        raise Refused("no-ticket", "nobody waits for this verdict", job.ticket)
    return "put"


def _watch(context: Context, job: WatchWindow) -> str:
    if context.watch is None:
        raise Refused("bad-job", "a watch job on the command queue")
    node = context.settings.node
    own = watch_queue(context.client, node.cluster, node.name)

    def enqueue_successor() -> None:
        if own.count == 0:  # a second watch job ends here: two would never become one again
            enqueue_window(own, node.cluster, node.name, context.keys.signed)

    run_window(context.watch, enqueue_successor, context.stopping.is_set)
    return "window ended"


HANDLERS: dict[str, Callable[[Context, Any], str]] = {"command": _command, "verdict": _verdict, "watch": _watch}
