"""The RQ worker of a node: `python -m workers.rqworker --role cmd|watch --config dcsup.toml`.

One process per queue, started and kept alive by `dcsup worker` (workers/worker.py). It is RQ's SimpleWorker, which runs a job in its
own process: what a command needs of isolation, the launcher gives it. What is different from RQ's own:

- **Allow-list.** RQ calls whatever importable name stands in Redis. `DcsupJob` calls `workers.jobs.perform` and nothing else: no other
  function, no method, no callback, no webhook, no retry. What asks for one is refused, logged and becomes a fact; the worker lives on.
- **Half-open connections.** A blocking pop that Redis answers into a dead connection leaves the job in `<queue>:intermediate`, where
  RQ would find it after a minute or more. Each queue has exactly one consumer, so at the start and after every connection error it moves
  what lies there back to the consuming end. (Harmless if the job ran already: ticket and journal say so.)
- **Outages.** RQ's worker ends when Redis goes away between two jobs, and waits up to a minute before it looks again. This one
  stays, tries again within 2 s, and the watch goes on looking meanwhile.
- **A job that cannot be read** ends RQ's worker, and would again after each restart. Here it is taken out of the way and reported.
- **Time.** RQ's job timer is not used: the launcher holds a command's limit, and a timer could not interrupt a wait anyway.
- **Ends at once** on SIGTERM and within a second of its parent's death. A launcher under way goes on; it writes its own end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import redis
from redis import Redis
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.timeouts import TimerDeathPenalty
from rq.utils import as_text, now
from rq.worker_registration import clean_worker_registry

from statemachines import wire
from workers import jobs, logs, outbox
from workers.courier import Courier
from workers.forwarder import Reporter
from workers.redisclient import client_of
from workers.settings import NodeConfiguration, load_node
from workers.throttle import Throttle
from workers.watch import Watch

WORKER_TTL_S = 20
"""RQ's: a blocking pop then lasts 5 s, and an answer may take 15 s."""

CONNECTION_WAIT_FIRST_S = 0.05
CONNECTION_WAIT_LAST_S = 2.0
HEARTBEAT_EVERY_S = 1.0
PARENT_EVERY_S = 0.5
REFUSALS_MAX, REFUSALS_PERIOD_S = 100, 60.0
"""So many refused jobs are told as facts: whoever can write to the queue must not be able to fill this node's disk, or the log."""

QUICK_S = 0.3
"""Time-out of the connection that a loop uses which must not stand still."""

Idle = Callable[[float], None]
"""idle(seconds): spend this time usefully; returns early when told to stop."""


class RefusedFunction(PermissionError):
    """A job that asks for something else than our own entry."""


class DcsupJob(Job):
    """A job that can call one function and do nothing else.

    The check is made where RQ asks for the function, inside its handling of failed jobs; raising earlier, while the job is read
    from Redis, would end the worker.
    """

    def objection(self) -> str | None:
        """What this job asks for and must not; None: nothing."""
        named = (self._success_callback_name, self._failure_callback_name, self._stopped_callback_name)
        if self.func_name != wire.JOB_FUNCTION:
            return f"function {str(self.func_name)[:200]!r}"
        if self.instance is not None:
            return "a method"
        if any(named):
            return f"callback {next(filter(None, named))[:200]!r}"
        if self.webhooks:
            return "a webhook"
        if self.repeats_left or self.retries_left:
            return "to be repeated"
        return None

    @property
    def func(self) -> Callable[..., Any]:
        objection = self.objection()
        if objection is not None:
            raise RefusedFunction(f"refused: {objection}")
        return jobs.perform

    @property
    def success_callback(self) -> None:
        return None

    @property
    def failure_callback(self) -> None:
        return None

    @property
    def stopped_callback(self) -> None:
        return None

    @property
    def should_retry(self) -> bool:
        return False

    def send_webhooks(self, *_status: object, **_more: object) -> None:
        """Nobody is called."""


class NodeWorker(SimpleWorker):
    """The one consumer of one queue of this node."""

    death_penalty_class = TimerDeathPenalty
    job_class = DcsupJob
    max_connection_wait_time = CONNECTION_WAIT_LAST_S

    def __init__(self, queue_name: str, name: str, client: Redis, *, log: Any, idle: Idle, refused: Callable[[str, str], None]) -> None:
        """`client` must be this worker's own: RQ changes its time-outs. `refused(job_id, why)` is told of jobs that run nothing."""
        super().__init__(
            [queue_name], name=name, connection=client, serializer="json", worker_ttl=WORKER_TTL_S, job_class=DcsupJob,
            log_job_description=False,
        )  # fmt: skip
        self._say, self._idle, self._refused = log, idle, refused
        self._waiting = False
        self._unsettled = True
        """Something may lie in the intermediate list: at the start, and after each connection error."""
        self._beat = 0.0

    # -- stopping

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM: end as soon as a job under way has heard of it; a wait for jobs is broken off."""
        self._stop_requested = True
        if self._waiting:
            raise StopRequested()

    def _install_signal_handlers(self) -> None:
        """The process has installed its own, which calls `request_stop`."""

    def teardown(self) -> None:
        try:
            self.register_death()  # type: ignore[no-untyped-call]
        except redis.RedisError:
            pass  # its keys have a TTL

    # -- what RQ does more of than a node needs

    def subscribe(self) -> None:
        """RQ's remote commands (stop a job, shut down) are not obeyed: nothing listens."""

    def check_for_suspension(self, burst: bool) -> None:
        """`rq suspend` is one key that would stop polls and verdicts of all nodes; dcsup's own pause is `dcsup pause`."""

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Kept here only: nobody reads it, and it would be two round trips per job."""
        self._state = state

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        now = time.monotonic()
        if pipeline is None and now - self._beat < HEARTBEAT_EVERY_S:
            return
        self._beat = now
        try:
            super().heartbeat(timeout, pipeline)
        except redis.RedisError:
            self._unsettled = True  # the next pop finds out for itself

    def run_maintenance_tasks(self) -> None:
        """Forget what is past its time in RQ's books, and who is not there any more.

        RQ's own maintenance does more: a job that it takes for abandoned it fails, repeats, or makes others follow. What became
        of a command the ticket and the journal know, and its launcher may well be at work.
        """
        queue = self.queues[0]
        books = (queue.started_job_registry, queue.finished_job_registry, queue.failed_job_registry)
        with self.connection.pipeline(transaction=False) as pipe:
            for book in books:
                pipe.zremrangebyscore(book.key, 0, int(time.time()))
            pipe.execute()
        clean_worker_registry(queue)
        self._recover_intermediate()
        self.last_cleaned_at: Any = now()

    # -- taking jobs

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> tuple[Job, Queue] | None:
        """The next job; waits for it, through outages too. None: the queue is empty and nobody wants to wait (burst)."""
        wait_s, away = CONNECTION_WAIT_FIRST_S, False
        while not self._stop_requested:
            try:
                taken = self._take(timeout)
            except DequeueTimeout:
                continue
            except redis.RedisError as error:
                if not away:
                    self._say.warning("Redis does not answer; waiting", error=str(error))
                away, self._unsettled = True, True
                self._idle(wait_s)
                wait_s = min(2 * wait_s, CONNECTION_WAIT_LAST_S)
                continue
            except StopRequested:
                raise
            except Exception as error:
                self._put_away(error)
                continue
            if away:
                self._say.info("Redis answers again")
            return taken
        raise StopRequested()

    def _take(self, timeout: int | None) -> tuple[Job, Queue] | None:
        if self._unsettled:
            self._recover_intermediate()
        self.heartbeat()
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()
        self._waiting = True
        try:
            if self._stop_requested:
                raise StopRequested()
            return self.queue_class.dequeue_any(
                self.queues, timeout, connection=self.connection, job_class=self.job_class, serializer=self.serializer,
                death_penalty_class=self.death_penalty_class,
            )  # fmt: skip
        finally:
            self._waiting = False

    def _recover_intermediate(self) -> None:
        """Move what a lost connection left behind back to the consuming end, in its order; ids whose job is gone are dropped."""
        queue = self.queues[0]
        moved = 0
        while (job_id := self.connection.lindex(queue.intermediate_queue_key, -1)) is not None:
            if self._is_there(as_text(job_id)):
                moved += self.connection.rpoplpush(queue.intermediate_queue_key, queue.key) is not None
            else:
                self.connection.lrem(queue.intermediate_queue_key, -1, as_text(job_id))
        self._unsettled = False
        if moved:
            self._say.warning("jobs of a lost connection taken back", count=moved)

    def _is_there(self, job_id: str) -> bool:
        try:
            return bool(self.connection.exists(self.job_class.key_for(job_id)))
        except redis.exceptions.NoPermissionError as error:
            self._refused(job_id, f"it is not this node's: {error}")
            return False

    def _put_away(self, error: Exception) -> None:
        """A job whose record cannot be read: out of the way with it, or it would come back for ever."""
        job_id = str(getattr(error, "job_id", ""))
        self._refused(job_id, f"its record cannot be read: {type(error).__name__}: {error}")
        if not job_id:
            self._unsettled = True
            self._idle(CONNECTION_WAIT_LAST_S)
            return
        try:
            self.connection.lrem(self.queues[0].intermediate_queue_key, 0, job_id)
        except redis.RedisError:
            self._unsettled = True

    # -- performing them

    def execute_job(self, job: Job, queue: Queue) -> None:
        job.timeout = -1
        job.origin = queue.name  # its record may say something else, and then it would stay in the intermediate list for ever
        try:
            super().execute_job(job, queue)
        except redis.RedisError as error:
            # The job's own work is done or not begun; what RQ keeps about it is lost, and that is all.
            self._unsettled = True
            self._say.warning("Redis did not take the job's record", job_id=job.id, error=str(error))

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """A job failed, which our own entry never does: it was refused, or cannot be performed at all."""
        error = exc_info[1]
        if isinstance(error, RefusedFunction):
            self._refused(job.id, str(error))
        elif not isinstance(error, redis.RedisError):
            self._refused(job.id, f"it cannot be performed: {type(error).__name__}: {error}")


class Process:
    """What surrounds the worker in its process: signals, the parent, what is done while there is nothing to do."""

    def __init__(self, role: str, settings: NodeConfiguration, parent: int) -> None:
        node = settings.node
        self.role, self.settings = role, settings
        self.log = logs.configure(role, node.name)
        self.stopping = threading.Event()
        self.folder = Path(node.folder)
        self.boot = outbox.boot_id(list(node.boot) if node.boot else None)
        self.reporter = Reporter(self.folder, self.boot, self.log)
        self.quick = client_of(settings.whole.redis, timeout_s=QUICK_S)
        self.direct: Courier = self.reporter.courier(node.cluster, node.name, self.quick)
        self.watch = Watch(settings, self.boot, self.quick, self.reporter.report, self._hand_in_directly) if role == "watch" else None
        self.worker: NodeWorker | None = None
        self._refusals = Throttle(REFUSALS_MAX, REFUSALS_PERIOD_S)
        self._parent = parent

    def run(self) -> int:
        """Work until told to stop; returns the exit code."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer
        threading.Thread(target=self._end_with_parent, daemon=True).start()
        jobs.configure(
            jobs.Context(self.settings, self.boot, client_of(self.settings.whole.redis), self._report, self.log, self.stopping, self.watch)
        )
        try:
            self._work()
        finally:
            if self.watch is not None:
                self.watch.discard()
        return 0

    def _work(self) -> None:
        away = False
        while not self.stopping.is_set():
            try:
                self.worker = self._new_worker()
                self.log.info("ready", queue=self.worker.queues[0].name)
                away = False
                self.worker.work(logging_level="WARNING")
                self.idle(0.5)  # it ends without having been told to only after an error that RQ has logged
            except redis.RedisError as error:
                if not away:
                    self.log.warning("Redis does not answer; waiting", error=str(error))
                away = True
                self.idle(1.0)
            finally:
                self.worker = None

    def _new_worker(self) -> NodeWorker:
        node = self.settings.node
        name = f"{wire.prefix(node.cluster, node.name)}-{self.role}-{uuid.uuid4().hex[:12]}"
        queue = (wire.watch_queue if self.role == "watch" else wire.command_queue)(node.cluster, node.name)
        client = client_of(self.settings.whole.redis)
        return NodeWorker(queue, name, client, log=self.log, idle=self.idle, refused=self._refused)

    def idle(self, seconds: float) -> None:
        """Nothing to do for a while: the watch goes on looking, facts that the disk did not take are handed in."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.stopping.is_set():
            if self.watch is not None:
                self.watch.step()
                self.watch.pause()
            else:
                self.stopping.wait(min(0.1, seconds))
            self._hand_in_directly()

    def _report(self, kind: str, data: dict[str, Any], source: str = "worker") -> None:
        if kind == "CommandRefused":
            if not self._refusals.lets_through(time.monotonic()):
                return
            data = self._with_those_held_back(data)
        self.reporter.report(kind, data, source)
        self._hand_in_directly()

    def _with_those_held_back(self, data: dict[str, Any]) -> dict[str, Any]:
        held_back, self._refusals.held_back = self._refusals.held_back, 0
        return data if not held_back else {**data, "detail": f"{data['detail']} (and {held_back} more since the last one told)"}

    def _hand_in_directly(self) -> None:
        if self.reporter.direct.pending:
            self.direct.step()

    def _refused(self, job_id: str, why: str) -> None:
        self.log.warning("job refused", job_id=job_id, reason="bad-job", detail=why)
        self._report("CommandRefused", {"job_id": job_id, "ticket": None, "n": None, "reason": "bad-job", "detail": why[:300]})

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.stopping.set()
        if self.worker is not None:
            self.worker.request_stop(signum, frame)

    def _end_with_parent(self) -> None:
        """A worker whose parent is gone has no forwarder: it must make way for the next one."""
        parent_alive = _parent_check(self._parent)
        while parent_alive():
            time.sleep(PARENT_EVERY_S)
        self.log.warning("the parent process is gone; ending")
        self.stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2.0)
        os._exit(1)


def _parent_check(parent: int) -> Callable[[], bool]:
    if sys.platform == "win32":  # getppid() stays the same there when the parent is gone
        try:
            return psutil.Process(parent).is_running
        except psutil.NoSuchProcess:
            return lambda: False
    return lambda: os.getppid() == parent


def main(arguments: list[str] | None = None) -> int:
    """Entry of the child process. Exit codes: 0 told to stop, 2 the configuration or the folder is not usable."""
    parser = argparse.ArgumentParser(prog="workers.rqworker", description="One RQ worker of a node; started by `dcsup worker`.")
    parser.add_argument("--role", choices=("cmd", "watch"), required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process whose end is this one's end too")
    chosen = parser.parse_args(arguments)
    try:
        process = Process(chosen.role, load_node(chosen.config), chosen.parent)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return process.run()


if __name__ == "__main__":
    sys.exit(main())
