"""A site: the sandbox's cluster with dcsup beside it, as an integrator would set it up.

Here, and nowhere else, the two meet: the stand-ins know nothing of dcsup, and dcsup's code has no branch for them. A site is a Redis of its
own (embedded, append-only), one or more orchestrators, a worker on each node, the cluster's scripts, and the configuration files that
say where everything is. `dcsup up --sandbox` brings one up and stays; the demo, the soak and the bench play on one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from deploy.clusterpro import sources
from deploy.sandbox.shapes import BOTH, SHAPES, Shape
from deploy.sandbox.standins import processes
from deploy.sandbox.standins.cluster import GUIDE, SandboxCluster
from orchestrator import keys
from orchestrator.embedded import EmbeddedRedis
from orchestrator.rendering import Site as RenderedSite
from orchestrator.rendering import Target, alerts, site_of
from orchestrator.rendering.scripts import supervised
from orchestrator.rendering.variables import in_whole_seconds
from statemachines import signing
from statemachines.configuration import Configuration

CLUSTER = "demo"


@dataclass(frozen=True)
class Pace:
    """How fast the sandbox's world goes. Everything in seconds; a real site's values are some ten times as long."""

    heartbeat_timeout: float = 3.0
    node_ttl: float = 1.5
    interval: float = 0.6
    first_check_after: float = 0.3
    startup_interval: float | None = 0.4
    """None: the product's own default, twice what the last poll took."""
    verify_confirm: int = 2
    profile: str = "normal"
    ack_timeout: float = 4.0
    agent_start: float = 1.0
    server_start: float = 1.6
    armsleep_scale: float = 0.05
    """The guide's waits of 20 s and 10 s are shortened to this share of theirs."""
    settle: float = 0.5
    schedules_deadline: float = 4.0
    probe_interval: float = 1.5
    probation: float = 3.0
    view_interval: float = 1.0
    command_limit: float = 30.0
    deadline: float = 60.0
    """Of a start and of a stop as a whole."""
    extra_watch: Mapping[str, object] = field(default_factory=dict)


class Site:
    """dcsup on a sandbox cluster.

    Args:
        base: the site's folder; made if it isn't there. `sandbox/` in it is the cluster's.
        pace: how fast the world goes.
        orchestrators: names of the orchestrators that share the cluster.
        language: of what people on a node read: `en` or `ja`.
        nodes: other nodes than the shape's.
        shape: which cluster it is.
        restarts: how often a monitor restarts in place before it fails over.
    """

    def __init__(
        self,
        base: Path,
        pace: Pace | None = None,
        *,
        orchestrators: tuple[str, ...] = ("a", "b"),
        language: str = "en",
        nodes: tuple[str, ...] | None = None,
        shape: Shape = BOTH,
        restarts: int = 0,
    ) -> None:
        self.base = base.resolve()
        self.base.mkdir(parents=True, exist_ok=True)
        self.pace = pace or Pace()
        self.mode = "supervise"
        self.language = language
        self.orchestrators = orchestrators
        self.shape = shape
        self.redis = EmbeddedRedis(self.base / "redis")
        self.cluster = SandboxCluster(
            self.base / "sandbox",
            nodes or shape.nodes,
            armsleep_scale=self.pace.armsleep_scale,
            heartbeat_timeout_s=self.pace.heartbeat_timeout,
            start_seconds={"agent": self.pace.agent_start, "server": self.pace.server_start, "metadata": 0.1, "dbms": 0.3},
            monitor_interval_s=0.3,
            restart_count=restarts,
            failover_count=1000,  # crashes follow each other faster here than a monitor forgets
            **shape.sandbox(),
        )
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.managers: dict[str, subprocess.Popen[bytes]] = {}
        """Node -> its cluster service."""
        self.ways: dict[str, str] = {}
        """Orchestrator or node -> the address by which it reaches Redis, where that is not Redis's own (ways.py)."""

    # --- up and down

    def __enter__(self) -> Site:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End everything; the files stay. What is asked to stop twice stops once."""
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.cluster.shutdown()
            for child in self.running.values():
                _end(child)
            self.redis.stop(even_if_joined=True)
        finally:
            signal.signal(signal.SIGINT, previous)

    def left_over(self) -> list[str]:
        """Command lines of whatever still runs of this site."""
        return self.cluster.processes()

    # --- configuration

    def write_configuration(self, mode: str | None = None) -> None:
        """Write dcsup.toml for the orchestrators and for each node."""
        self.mode = mode or self.mode
        self._write_keys()
        for name in (*self.orchestrators, *self.cluster.nodes):
            self.config(name).write_text(self.toml(name), encoding="utf-8")

    def _write_keys(self) -> None:
        """The cluster's key, which only those outside the nodes hold, and each node's own."""
        cluster_key = keys.make_key(self.base / "keys").read_text("ascii").strip()
        for node in self.cluster.nodes:
            path = self._node_key(node)
            path.touch(mode=0o600)
            path.write_text(signing.node_key(cluster_key, CLUSTER, node) + "\n", "ascii")

    def _node_key(self, node: str) -> Path:
        return self.base / "keys" / f"{node}.key"

    def config(self, name: str) -> Path:
        return self.base / f"dcsup-{name}.toml"

    def node_folder(self, node: str) -> Path:
        return self.cluster.node_dir(node) / "dcsup"

    def toml(self, name: str) -> str:
        """The dcsup.toml of a node, or of an orchestrator or whoever else sits outside the nodes."""
        pace, node = self.pace, name if name in self.cluster.nodes else None
        watch = {"profile": pace.profile, "interval": pace.interval} | dict(pace.extra_watch)
        if pace.profile != "fast":
            watch |= {"first_check_after": pace.first_check_after}
            watch |= {} if pace.startup_interval is None else {"startup_interval": pace.startup_interval}
            watch |= {"verify_confirm": pace.verify_confirm}
        cluster: dict[str, Any] = {
            "mode": self.mode,
            "language": self.language,
            "group": self.cluster.group,
            "nodes": list(self.cluster.nodes),
            "ack_timeout": pace.ack_timeout,
            "node_ttl": pace.node_ttl,
            "probation": pace.probation,
            "watch": watch,
            "start": {"command_limit": pace.command_limit, "deadline": pace.deadline},
            "stop": {"command_limit": pace.command_limit, "deadline": pace.deadline},
            "schedules": {"probe_interval": pace.probe_interval, "settle": pace.settle, "deadline": pace.schedules_deadline},
        }
        lines = [
            "# Written by the sandbox.",
            "",
            "[redis]",
            f"url = {_value(self.ways.get(name) or self.redis.url)}",
            "",
            "[orchestrator]",
            'listen = "127.0.0.1:0"',
        ]
        lines += ["", *_table(f"clusters.{CLUSTER}", cluster | self.shape.cluster_tables(self.cluster, node))]
        for service in self.shape.services:
            lines += ["", f"[[clusters.{CLUSTER}.services]]", *_keys(service.settings())]
        for endpoint in self.shape.endpoints(self.cluster):
            lines += ["", f"[[clusters.{CLUSTER}.endpoints]]", *_keys(endpoint)]
        if node is not None:
            lines += ["", *_table("node", self._node_table(node))]
        else:
            lines += ["", f"[keys.{CLUSTER}]", f"file = {_value(str(self.base / 'keys' / signing.EMBEDDED_FILE))}"]
        return "\n".join(lines) + "\n"

    def _node_table(self, node: str) -> dict[str, Any]:
        def command(path: str) -> list[str]:
            return [str(self.cluster.command(node, path))]

        return {
            "name": node,
            "cluster": CLUSTER,
            "folder": str(self.node_folder(node)),
            "boot": ["cat", str(self.cluster.node_dir(node) / "boot-id")],
            "clpstat": command("clp/bin/clpstat"),
            "clpgrp": command("clp/bin/clpgrp"),
            "view_interval": self.pace.view_interval,
            "dcsup": dcsup_command(),
            "clp_bin": str(self.cluster.node_dir(node) / "clp" / "bin"),
            "key": {"file": str(self._node_key(node))},
            **self.shape.node_tables(self.cluster, node),
        }

    # --- the cluster's scripts

    def install_guide_scripts(self) -> None:
        """The guide's own sequence, which knows nothing of dcsup: what a site in mode observe has."""
        for node in self.cluster.nodes:
            self.cluster.install_scripts(
                node, {name: (GUIDE / name).read_text(encoding="utf-8") for name in ("start.sh", "stop.sh", "watch.sh")}
            )

    def install_supervised_scripts(self, more: Mapping[str, str] | None = None) -> None:
        """The scripts that ask dcsup, and go on with the guide's sequence when it is not there.

        Args:
            more: further settings for `dcsup.env`, such as another verb.
        """
        for node in self.cluster.nodes:
            self.cluster.install_scripts(node, self._rendered(node, more or {}))

    def _rendered(self, node: str, more: Mapping[str, str]) -> dict[str, str]:
        """What `dcsup render clusterpro` writes for this node, without the empty places for a site's own code."""
        site, target = self._rendering(node)
        files = {name: content.decode() for name, content in supervised(site, target, sources("linux"), str).items()}
        # the pause of the plain watch is the guide's, which armsleep shortens here; not the watch job's, which is short already
        own = {"DCSUP_INTERVAL": "10"} | dict(more)
        files["dcsup.env"] += "".join(f"{name}={shlex.quote(value)}\n" for name, value in own.items())
        return {name: text for name, text in files.items() if "/" not in name}

    def _rendering(self, node: str) -> tuple[RenderedSite, Target]:
        target = Target("linux", language="ja" if self.language == "ja" else "en")
        return in_whole_seconds(site_of(Configuration.model_validate(tomllib.loads(self.toml(node)))), target)[0], target

    def install_alerts(self) -> None:
        """Have the cluster manager's alert extension tell dcsup of the events that it wants to hear of."""
        for node in self.cluster.nodes:
            site, target = self._rendering(node)
            ids = [event for category in alerts.WANTED for event in alerts.ids_of(category)]
            lines = {f"{module}@{number}": [alerts.command_line(site, target, module, number)] for module, number in ids}
            self.cluster.install_alert_commands(node, lines)

    # --- processes

    def start_orchestrator(self, name: str) -> subprocess.Popen[bytes]:
        return self._spawn(
            f"orchestrator-{name}", [*dcsup_command(), "orchestrator", "--config", str(self.config(name))], f".orchestrator-{name}"
        )

    def start_worker(self, node: str) -> subprocess.Popen[bytes]:
        child = self.cluster.spawn(node, "worker", [*dcsup_command(), "worker", "--config", str(self.config(node))])
        self.running[f"worker-{node}"] = child
        return child

    def bring_up(self) -> None:
        """Everything at once, in mode supervise, until the group runs."""
        self.redis.start()
        self.write_configuration("supervise")
        self.install_supervised_scripts()
        self.install_alerts()
        for name in self.orchestrators:
            self.start_orchestrator(name)
        self.wait_for("an orchestrator leads", lambda: self.leader() is not None)
        for node in self.cluster.nodes:
            self.power_on(node)
        self.wait_state("the group runs", lambda s: bool(s["services"]) and all(x["state"] == "running" for x in s["services"].values()))

    def power_on(self, node: str) -> None:
        """The node starts as a machine would: its cluster service, and dcsup's worker as a service of the operating system."""
        self.managers[node] = self.cluster.start_node(node)
        self.start_worker(node)

    def _spawn(self, name: str, argv: list[str], mark: str) -> subprocess.Popen[bytes]:
        environment = dict(os.environ) | {processes.MARK: f"{self.cluster.id}/{mark}"}
        log = self.base / "log"
        log.mkdir(exist_ok=True)
        with (log / f"{name}.log").open("ab") as output:
            child = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.running[name] = child
        return child

    def stop(self, name: str) -> None:
        """Ask a process of the site to stop, and wait for it."""
        _end(self.running.pop(name))

    def kill(self, name: str) -> int:
        """Kill a process of the site outright; its pid."""
        child = self.running.pop(name)
        child.kill()
        child.wait()
        return child.pid

    # --- asking

    def dcsup(self, *arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a dcsup command as an operator would."""
        return subprocess.run(
            [*dcsup_command(), *arguments], capture_output=True, text=True, encoding="utf-8", timeout=timeout_s, check=False
        )

    def leader(self) -> str | None:
        """The name of the orchestrator that leads: told by which process holds the owner's lease."""
        pid = self.lease().get("pid")
        return next((name.removeprefix("orchestrator-") for name, child in self.running.items() if child.pid == pid), None)

    def lease(self) -> dict[str, Any]:
        """What the leading orchestrator says of itself; empty while nobody leads, or Redis does not answer."""
        from redis import RedisError

        try:
            with self.client() as client:
                owner = client.get(f"dcsup:{CLUSTER}:owner")
                lease = client.get(f"dcsup:lease:{owner.decode()}") if isinstance(owner, bytes) else None
        except RedisError:
            return {}
        return json.loads(lease) if isinstance(lease, bytes) else {}

    def client(self) -> Any:
        """A connection to Redis itself, which gives up soon and tries nothing again."""
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return Redis.from_url(self.redis.url, socket_timeout=2.0, retry=Retry(NoBackoff(), 0))

    def state(self) -> dict[str, Any]:
        """The cluster's state as the leading orchestrator tells it; empty while nobody answers."""
        try:
            url = self.lease().get("url")
            with urllib.request.urlopen(f"{url}/status", timeout=2) as answer:
                clusters = json.load(answer)["clusters"]
        except (OSError, ValueError, KeyError):
            return {}
        state: dict[str, Any] = clusters.get(CLUSTER, {})
        return state

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.lease()['url']}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def wait_for(self, what: str, condition: Callable[[], bool], timeout_s: float = 40.0) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: it did not in time; the text says what was waited for and what the state was.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout_s:.0f} s; state: {json.dumps(_short(self.state()))}")
            time.sleep(0.05)

    def wait_state(self, what: str, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 40.0) -> dict[str, Any]:
        """Wait until the live state satisfies a condition, and give it."""
        seen: dict[str, Any] = {}

        def holds() -> bool:
            nonlocal seen
            seen = self.state()
            return bool(seen) and condition(seen)

        self.wait_for(what, holds, timeout_s)
        return seen


def dcsup_command() -> list[str]:
    """How dcsup is run from here: the console script beside this Python, or the module where there is none."""
    script = Path(sys.executable).parent / "dcsup"
    return [str(script)] if script.exists() else [sys.executable, "-m", "orchestrator.cli"]


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _short(state: dict[str, Any]) -> dict[str, Any]:
    return {key: state.get(key) for key in ("epoch", "term", "active", "failover", "deadlines")} | {
        "services": {name: service["state"] for name, service in state.get("services", {}).items()},
        "nodes": {name: node["state"] for name, node in state.get("nodes", {}).items()},
    }


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)  # what we write is TOML just as well


def _keys(content: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in content.items()]


def _table(name: str, content: dict[str, Any]) -> Iterator[str]:
    yield f"[{name}]"
    yield from _keys({key: value for key, value in content.items() if not isinstance(value, dict)})
    for key, value in content.items():
        if isinstance(value, dict):
            yield ""
            yield from _table(f"{name}.{key}", value)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that nothing is left behind either way."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def up(argv: list[str]) -> int:
    """`dcsup up --sandbox`: bring the cluster up in mode supervise and stay until Ctrl-C."""
    parser = argparse.ArgumentParser("dcsup up --sandbox")
    parser.add_argument("--folder", type=Path, default=Path("build/sandbox"), help="where the sandbox lives (default: build/sandbox)")
    parser.add_argument("--language", choices=("en", "ja"), default="en", help="of broadcasts and cluster log")
    parser.add_argument("--shape", choices=SHAPES, default=BOTH.name, help="which cluster it is (default: %(default)s)")
    parser.add_argument("--list-shapes", action="store_true", help="show the shapes of a cluster that there are")
    arguments = parser.parse_args(argv)
    if arguments.list_shapes:
        print("\n".join(f"{shape.name:17} {shape.title}" for shape in SHAPES.values()))
        return 0
    shape = SHAPES[arguments.shape]
    with interruptible(), Site(arguments.folder, Pace(), language=arguments.language, shape=shape) as site:
        try:
            print(f"starting Redis, two orchestrators and {len(shape.nodes)} nodes: {shape.title} ...", flush=True)
            site.bring_up()
            _stay(site)
        except KeyboardInterrupt:
            print("\nshutting the sandbox down ...", flush=True)
    return 0


def _stay(site: Site) -> None:
    config, on_node = shlex.quote(str(site.config("a"))), shlex.quote(str(site.config(site.cluster.nodes[0])))
    clp = shlex.quote(str(site.cluster.node_dir("node1") / "clp" / "bin"))
    dcsup = shlex.join(dcsup_command())
    print(
        f"""
The cluster is up. Try, in another terminal:

    {dcsup} status --config {config}
    {dcsup} events --config {config} --follow
    {clp}/clpstat
    {dcsup} move --config {on_node} --to {site.cluster.nodes[1]} --why "to see it"
    {clp}/clpgrp -m {site.cluster.group}            a move without dcsup
    {clp}/clpcl --suspend             maintenance, until --resume
    {dcsup} failovers --config {config}

Its records: {site.cluster.records}
Ctrl-C ends everything.
""",
        flush=True,
    )
    while True:
        time.sleep(3600)
