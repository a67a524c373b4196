"""A whole installation on one machine, without a cluster manager: a Redis, an orchestrator, nodes with their worker and scripts.

Everything that decides is a real process: the scripts that CLUSTERPRO runs, the hooks, `dcsup worker` with its RQ workers, the
launchers, the orchestrator, the Redis server. Only DataCoordinator's commands are stand-ins (tests/protocol/bench.py): they record each
call, and wait while a file beside them says so. That is how a test brings a call to an exact point, and holds it there, without sleeping:

    <service>.hold        the verb was begun, and does not return
    <service>.ask-hold    dcstatus was asked, and does not answer
    <service>.late        the verb of a start returns 0, but the service is not up yet
    <service>.stubborn    the verb of a stop returns 0, but the service is still up
    gate-<script>         the script has made its ticket, and its hook has not begun
    a stopped RQ worker   (SIGSTOP) a job waits, or is in its hands, and is not performed

Each node belongs to a cluster of its own, so that many calls stand at many points at once, and one fault meets them all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from orchestrator.embedded import EmbeddedRedis
from statemachines import wire
from statemachines.entries import Entry
from tests.conftest import wait_until
from tests.orchestrator.engine import Site
from tests.protocol.bench import GROUP, ROOT, Node, end_leftovers
from workers import files
from workers.worker import lock_folder

LIMIT_S = 60.0
ACK_S = 5
"""How long a hook waits for its ticket to be taken: here also the time in which a busy machine must bring a call to its point."""

NODE = "n1"
WORKER = "import sys; from workers.worker import run; sys.exit(run(sys.argv[1]))"

ASKED = """\
#!/bin/sh
echo "status {name}" >>'{calls}' 2>/dev/null
while [ -e '{state}.ask-hold' ]; do sleep 0.05; done
[ ! -e '{state}.mute' ] || sleep 300
[ -e '{state}.up' ] || exit 7
"""

GATE = """\
#!/bin/sh
# hook KIND ...
while [ -e "{gate}-$2" ]; do sleep 0.02; done
exec '{dcsup}' "$@"
"""

CONFIG = """\
[redis]
url = "{url}"

[orchestrator]
listen = "127.0.0.1:0"
{tables}"""

CLUSTER = """
[clusters.{cluster}]
group = "{group}"
mode = "supervise"
nodes = ["n1", "n2"]
services = [{{ name = "agent", kind = "agent" }}, {{ name = "server", kind = "server" }}]
ack_timeout = "{ack_s}s"
watch = {{ profile = "fast", interval = "500ms", poll_limit = "{poll_limit_s}s" }}
start = {{ command_limit = "60s", deadline = "60s" }}
stop = {{ command_limit = "60s", deadline = "60s" }}
schedules = {{ probe = "none" }}
"""

OWN = """
[node]
name = "n1"
cluster = "{cluster}"
folder = "{folder}"
boot = ["cat", "{home}/boot"]
{services}"""


SERVICE = """\
[node.services.{name}]
command = ["{bin}/dc{name}"]
status = ["{bin}/dcstatus-{name}"]
"""


class SiteNode(Node):
    """A node with a worker of its own, in a cluster of its own."""

    def __init__(self, home: Path, cluster: str, url: str, poll_limit_s: int = 5) -> None:
        home.mkdir(parents=True)
        super().__init__(home)
        self.cluster, self.url = cluster, url
        self.poll_limit_s = poll_limit_s
        self.worker: subprocess.Popen[bytes] | None = None
        for name in ("agent", "server"):
            self.script(f"dcstatus-{name}", ASKED.format(name=name, calls=self.calls, state=self.home / name))
        gated = self.script("dcsup-gated", GATE.format(gate=self.home / "gate", dcsup=self.dcsup))
        self.configure(DCSUP=gated, DCSUP_ACK_TIMEOUT=ACK_S, DCSUP_POLL_LIMIT=poll_limit_s)
        self.config = self.home / "dcsup.toml"
        self.write_config()

    def write_config(self) -> None:
        services = "".join(SERVICE.format(name=name, bin=self.bin) for name in ("agent", "server"))
        own = OWN.format(cluster=self.cluster, folder=self.folder, home=self.home, services=services)
        self.config.write_text(CONFIG.format(url=self.url, tables=self.cluster_table() + own))

    def cluster_table(self) -> str:
        return CLUSTER.format(cluster=self.cluster, group=GROUP, ack_s=ACK_S, poll_limit_s=self.poll_limit_s)

    # -- its worker

    def begin_worker(self) -> None:
        """Start `dcsup worker`; it is ready some time later (`await_worker`)."""
        with (self.home / "worker.log").open("ab") as log:
            argv = [sys.executable, "-c", WORKER, str(self.config)]
            environment = {**os.environ, "DCSUP_LOG": "json"}
            self.worker = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=log, env=environment, start_new_session=True)
        self._ready_before = self.worker_said().count('"event": "ready"')

    def worker_said(self) -> str:
        path = self.home / "worker.log"
        return path.read_text() if path.exists() else ""

    def await_worker(self) -> None:
        """Until both RQ workers wait for jobs, and the watch has looked at each service."""
        wait_until(lambda: self.worker_said().count('"event": "ready"') >= self._ready_before + 2, "RQ workers that are ready", LIMIT_S)
        for name in ("agent", "server"):
            wait_until(lambda name=name: self.polled(name).get("pid") == str(self.role("watch").pid), "the watch's polls", LIMIT_S)  # type: ignore[misc]

    def polled(self, service: str) -> dict[str, str]:
        """What the watch wrote of a service last."""
        return files.read_fields(self.folder / "watch" / f"{service}.status") or {}

    def role(self, role: str) -> psutil.Process:
        """The worker's child that works this queue: cmd or watch."""
        assert self.worker is not None
        parent = psutil.Process(self.worker.pid)

        def look() -> psutil.Process | None:
            for child in parent.children():
                with suppress(psutil.Error):
                    words = child.cmdline()
                    if "--role" in words and words[words.index("--role") + 1] == role:
                        return child
            return None

        found = wait_until(look, f"the {role} child")
        assert found is not None
        return found

    def worker_tree(self) -> list[psutil.Process]:
        """The parent and the RQ workers, without what these have started."""
        if self.worker is None or self.worker.poll() is not None:
            return []
        parent = psutil.Process(self.worker.pid)
        return [parent, *parent.children()]

    def is_locked(self) -> bool:
        """Whether a worker has the node folder."""
        try:
            lock_folder(self.folder).close()
        except OSError:
            return True
        return False

    def kill_worker(self) -> None:
        """All of it at once, with SIGKILL; launchers under way are processes of their own and go on."""
        for process in self.worker_tree():
            with suppress(psutil.Error):
                process.kill()
        if self.worker is not None:
            self.worker.wait(LIMIT_S)
        self.worker = None

    def end(self) -> None:
        """Whatever of this node still runs."""
        self.kill_worker()
        for path in self.home.glob("*.*hold"):
            path.unlink(missing_ok=True)
        for path in self.home.glob("gate-*"):
            path.unlink()
        end_leftovers(self)

    # -- what is seen of a call

    def entry(self, ticket: str, n: int, state: str) -> bool:
        return (self.folder / "journal" / f"{ticket}.{n}.{state}").exists()

    def await_ticket(self, known: set[str]) -> str:
        """The ticket of a call that was begun just now."""
        return wait_until(lambda: next((one.id for one in self.tickets() if one.id not in known), ""), "the call's ticket", LIMIT_S)

    def state_of(self, ticket: str) -> str:
        return next((one.state for one in self.tickets() if one.id == ticket), "")


class Installation:
    """Redis, orchestrator and nodes."""

    def __init__(self, base: Path, clusters: int, *, poll_limit_s: int = 5) -> None:
        self.base = base
        self._redis_folder = Path(tempfile.mkdtemp(prefix="dcsup-faults-"))
        self.redis = EmbeddedRedis(self._redis_folder)
        self.redis.start()
        self.site = Site(self.redis.url)
        self.nodes = [SiteNode(base / f"home{n}", f"c{n}", self.redis.url, poll_limit_s) for n in range(clusters)]
        self._config = base / "orchestrator.toml"
        self._config.write_text(CONFIG.format(url=self.redis.url, tables="".join(node.cluster_table() for node in self.nodes)))
        self._orchestrator: subprocess.Popen[bytes] | None = None
        self._leads = 0

    # -- what can be taken away, and comes back

    def start_orchestrator(self) -> None:
        self._leads += 1
        identity = f"o{self._leads}"
        command = [sys.executable, "-m", "tests.orchestrator.leader_process", str(self._config), identity]
        with (self.base / "orchestrator.log").open("ab") as log:
            self._orchestrator = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT)
        owners = [wire.owner(node.cluster) for node in self.nodes]
        wait_until(lambda: set(self.site.client.mget(owners)) == {identity.encode()}, "the lead", LIMIT_S)

    def kill_orchestrator(self) -> None:
        if self._orchestrator is not None:
            self._orchestrator.kill()
            self._orchestrator.wait(LIMIT_S)
        self._orchestrator = None

    def start_workers(self) -> None:
        for node in self.nodes:
            node.begin_worker()
        for node in self.nodes:
            node.await_worker()

    def kill_workers(self) -> None:
        for node in self.nodes:
            node.kill_worker()

    def kill_redis(self) -> None:
        self.redis.kill()

    def start_redis(self) -> None:
        self.redis.stop()
        self.redis.start()

    def take(self, target: str) -> None:
        """Let one of redis, orchestrator, worker be gone from now on."""
        {"redis": self.kill_redis, "orchestrator": self.kill_orchestrator, "worker": self.kill_workers}[target]()

    def give_back(self, target: str) -> None:
        {"redis": self.start_redis, "orchestrator": self.start_orchestrator, "worker": self.start_workers}[target]()

    def end(self) -> None:
        self.kill_orchestrator()
        for node in self.nodes:
            node.end()
        self.site.close()
        with suppress(OSError):
            self.redis.kill()
        self.redis.stop()
        shutil.rmtree(self._redis_folder, ignore_errors=True)

    # -- what the log tells

    def log(self, node: SiteNode) -> list[Entry]:
        """The cluster's log, each entry checked against the chain."""
        return self.site.log(node.cluster)

    def settled(self, node: SiteNode, ticket: str, state: str) -> bool:
        """Whether the call's end is in the log, both services are in this state, and no job is left."""
        if not any(entry.type == "ScriptEnded" and entry.data["ticket"] == ticket for entry in self.log(node)):
            return False
        return self.states(node) == {state} and not self.jobs(node)

    def states(self, node: SiteNode) -> set[str]:
        """Those of its services, as the log has them."""
        return {str(service.state) for service in self.site.folded(node.cluster).services.values()}

    def jobs(self, node: SiteNode) -> int:
        """Command jobs that wait, or are in a worker's hands."""
        queue = f"rq:queue:{wire.command_queue(node.cluster, NODE)}"
        return int(self.site.client.llen(queue)) + int(self.site.client.llen(f"{queue}:intermediate"))

    def story(self, node: SiteNode, ticket: str) -> list[str]:
        """What the log tells of a call, in its order: `called`, `fell-back`, `began 1`, `ended 1 ok`, `script 0`."""
        return [words for entry in self.log(node) if entry.data.get("ticket") == ticket and (words := _words(entry))]


def _words(entry: Entry) -> str:
    data = entry.data
    tell: dict[str, Callable[[], str]] = {
        "StartHookCalled": lambda: "called", "StopHookCalled": lambda: "called", "FallbackTaken": lambda: "fell-back",
        "CommandStarted": lambda: f"began {data['n']}", "CommandEnded": lambda: f"ended {data['n']} {data['result']}",
        "CommandIssued": lambda: f"issued {data['n']}", "ScriptEnded": lambda: f"script {data['code']}",
    }  # fmt: skip
    return tell[entry.type]() if entry.type in tell else ""


@contextmanager
def halted(process: psutil.Process) -> Iterator[None]:
    """SIGSTOP while this lasts; if somebody kills it meanwhile, so be it."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)


@contextmanager
def installation(base: Path, clusters: int = 1, **options: Any) -> Iterator[Installation]:
    """An installation with all its parts at work; ended with everything that belongs to it."""
    made = Installation(base, clusters, **options)
    try:
        made.start_orchestrator()
        made.start_workers()
        yield made
    finally:
        made.end()


def ended_in(script: subprocess.Popen[bytes], since: float) -> float:
    """Wait for a script, and say how long it took, in s."""
    script.wait(LIMIT_S)
    return time.monotonic() - since
