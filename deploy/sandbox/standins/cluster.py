"""The driver: builds a sandbox, switches nodes on, cuts their power, sets faults, reads the records.

::

    with SandboxCluster(Path("sandbox")) as cluster:
        cluster.start_node("node1")
        cluster.start_node("node2")
        cluster.wait_group("Online", "node1")
        cluster.kill_node("node1")
        cluster.wait_group("Online", "node2")
        cluster.start_node("node1")
        cluster.clpgrp("-m", "failover1", "-a", "node1")

Folders::

    <base>/sandbox.json           settings and ports
    <base>/shared/                the switchable disk (metadata/metadata.db, agent/, dbms/user.db)
    <base>/records/*.jsonl        what everybody did: verbs status sleeps daemons cluster clusterlog alerts broadcasts network
                                  clients driver
    <base>/faults/                faults of the whole sandbox
    <base>/<node>/boot-id         new at each start of the node, letters and digits
    <base>/<node>/disk            link to ../shared while the disk is attached
    <base>/<node>/server/bin/     dcserver dcstatus dcschedules dcmetaopen
    <base>/<node>/agent/bin/      dcagent dcstatus
    <base>/<node>/metadata/bin/   metastart metastop metastatus
    <base>/<node>/dbms/bin/       dbstart dbstop dbstatus
    <base>/<node>/clp/bin/        clpstat clpgrp clpcl clpmonctrl clplogcmd armsleep armbcast
    <base>/<node>/clp/etc/        alerts.json (commands of the alert extension), api-password
    <base>/<node>/scripts/        start.sh stop.sh watch.sh site.env
    <base>/<node>/faults/ log/ run/
    <base>/dbhost/                only with a remote DBMS: its machine, outside the cluster, with a disk of its own
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from . import dc_metadata, processes, records
from .place import DATABASE_HOST, LOOPBACK, ask, ask_json
from .ports import listens, reserve

GUIDE = Path(__file__).resolve().parent.parent / "guide"
RUN = Path(__file__).resolve().parent / "_run.py"
NODE_COMMANDS = {
    "server/bin/dcserver": "dc_commands server dcserver",
    "server/bin/dcstatus": "dc_commands server dcstatus",
    "server/bin/dcschedules": "dc_commands server dcschedules",
    "server/bin/dcmetaopen": "dc_commands server dcmetaopen",
    "agent/bin/dcagent": "dc_commands agent dcagent",
    "agent/bin/dcstatus": "dc_commands agent dcstatus",
    "metadata/bin/metastart": "dc_commands metadata metastart",
    "metadata/bin/metastop": "dc_commands metadata metastop",
    "metadata/bin/metastatus": "dc_commands metadata metastatus",
    "dbms/bin/dbstart": "dc_commands dbms dbstart",
    "dbms/bin/dbstop": "dc_commands dbms dbstop",
    "dbms/bin/dbstatus": "dc_commands dbms dbstatus",
    "clp/bin/clpstat": "clp_commands clpstat",
    "clp/bin/clpgrp": "clp_commands clpgrp",
    "clp/bin/clpcl": "clp_commands clpcl",
    "clp/bin/clpmonctrl": "clp_commands clpmonctrl",
    "clp/bin/clplogcmd": "clp_commands clplogcmd",
    "clp/bin/armsleep": "clp_commands armsleep",
    "clp/bin/armbcast": "clp_commands armbcast",
}
NODE_PORTS = ("server", "agent", "metadata", "dbms", "control", "rest", "heartbeat")
NETWORK_PORTS = ("control", "server", "agent", "dbms")
API_USER = "operator"


class SandboxCluster:
    """A cluster on one machine.

    Args:
        base: the sandbox's folder. If a sandbox is there already, whatever still runs of it is ended and its shared disk is kept.
        nodes: node names in order of the failover policy, best first.
        group: the failover group's name.
        services: the services that have a resident watch script and a monitor each, in their start order.
        databases: where the DBMS is that the agent connects to: ``local``, ``remote`` or, the agent needs none, None.
        metadata_by_server: whether the server's start and stop are those of the metadata DB too; otherwise somebody else's (G44).
        armsleep_scale: what ``armsleep 1`` really waits, in seconds.
        heartbeat_interval_s: pause between two heartbeats.
        heartbeat_timeout_s: silence after which a node is declared dead.
        monitor_interval_s: pause between two looks at the resident processes.
        monitor_reset_s: how long all must be normal before the recovery actions are counted from 0 again.
        restart_count: how often a monitor restarts in place before it fails over.
        failover_count: how often it fails over before it does nothing more.
        script_timeout_s: time limit of start.sh and stop.sh.
        normal_return_value: the scripts' exit code that means success; None: not judged.
        startup_grace_s: how long a node waits for nodes that it has not heard before it does without them.
        shutdown_is_real: whether a node really loses its power where the product would shut the OS down.
        start_seconds: how long the start of server, agent or metadata takes until it is healthy.
        environment: further variables for everything on the nodes.
    """

    def __init__(
        self,
        base: Path,
        nodes: Iterable[str] = ("node1", "node2"),
        *,
        group: str = "failover1",
        services: Iterable[str] = ("agent", "server"),
        databases: str | None = None,
        metadata_by_server: bool = True,
        armsleep_scale: float = 0.05,
        heartbeat_interval_s: float = 0.2,
        heartbeat_timeout_s: float = 3.0,
        monitor_interval_s: float = 0.5,
        monitor_reset_s: float = 10.0,
        restart_count: int = 0,
        failover_count: int = 1,
        script_timeout_s: float = 1800.0,
        normal_return_value: int | None = 0,
        startup_grace_s: float = 5.0,
        shutdown_is_real: bool = False,
        start_seconds: Mapping[str, float] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.base = base.resolve()
        self.nodes = tuple(nodes)
        self.group = group
        self._environment = dict(environment or {})
        self._children: list[subprocess.Popen[bytes]] = []
        self._network: subprocess.Popen[bytes] | None = None
        self._end_former()
        self.id = "s" + secrets.token_hex(6)
        self._port_guard: int | None
        self._port_guard, ports = reserve()
        self.settings: dict[str, Any] = {
            "id": self.id,
            "driver": os.getpid(),
            "cluster": "sandbox",
            "nodes": {node: {name: next(ports) for name in NODE_PORTS} for node in self.nodes},
            "machines": {DATABASE_HOST: {"dbms": next(ports)}} if databases == "remote" else {},
            "network": {name: next(ports) for name in NETWORK_PORTS},
            "group": group,
            "services": list(services),
            "databases": databases,
            "metadata_by_server": metadata_by_server,
            "rest_user": API_USER,
            "rest_password": secrets.token_hex(8),
            "python": sys.executable,
            "armsleep_scale": armsleep_scale,
            "heartbeat_interval_s": heartbeat_interval_s,
            "heartbeat_timeout_s": heartbeat_timeout_s,
            "monitor_interval_s": monitor_interval_s,
            "monitor_reset_s": monitor_reset_s,
            "restart_count": restart_count,
            "failover_count": failover_count,
            "script_timeout_s": script_timeout_s,
            "normal_return_value": normal_return_value,
            "startup_grace_s": startup_grace_s,
            "shutdown_is_real": shutdown_is_real,
        }
        self._prepare()
        for component, seconds in (start_seconds or {}).items():
            self.set_start_seconds(component, seconds)

    def __enter__(self) -> SandboxCluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()

    # Places

    @property
    def records(self) -> Path:
        """The folder of the stand-ins' own records."""
        return self.base / "records"

    @property
    def shared(self) -> Path:
        """The switchable disk itself, as nobody on a node sees it."""
        return self.base / "shared"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port at which clients reach the server by its floating IP address."""
        return self.address_of("server")

    @property
    def agent_address(self) -> tuple[str, int]:
        """Host and port at which the agent is reached by its floating IP address."""
        return self.address_of("agent")

    def address_of(self, component: str) -> tuple[str, int]:
        """Host and port at which server, agent or dbms is reached by the floating IP address."""
        return LOOPBACK, self.settings["network"][component]

    def api_url(self, node: str) -> str:
        """Where the node's RESTful API is; ``API_USER`` and the password in ``<node>/clp/etc/api-password`` are its account."""
        return f"http://{LOOPBACK}:{self.settings['nodes'][node]['rest']}"

    def node_dir(self, node: str) -> Path:
        """A node's folder."""
        return self.base / node

    def command(self, node: str, path: str) -> Path:
        """The path of a command of the node, such as ``server/bin/dcstatus`` or ``clp/bin/clpgrp``."""
        return self.node_dir(node) / path

    def site(self, node: str) -> dict[str, str]:
        """The content of the node's ``site.env``: where a script finds the commands of this node."""
        return {
            "SERVER_COMMAND": str(self.command(node, "server/bin/dcserver")),
            "SERVER_STATUS": str(self.command(node, "server/bin/dcstatus")),
            "AGENT_COMMAND": str(self.command(node, "agent/bin/dcagent")),
            "AGENT_STATUS": str(self.command(node, "agent/bin/dcstatus")),
            "SCHEDULES_COMMAND": str(self.command(node, "server/bin/dcschedules")),
            "CLP_BIN": str(self.node_dir(node) / "clp" / "bin"),
            "BOOT_ID_FILE": str(self.node_dir(node) / "boot-id"),
            "NODE_NAME": node,
            "NODE_DIR": str(self.node_dir(node)),
        }

    # Preparing

    def _end_former(self) -> None:
        try:
            former = json.loads((self.base / "sandbox.json").read_text(encoding="utf-8"))["id"]
        except FileNotFoundError:
            return
        processes.kill(former, str(self.base))

    def _prepare(self) -> None:
        for folder in ("shared", "records", "faults"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        _write(self.base / "sandbox.json", json.dumps(self.settings, indent=1))
        for node in self.nodes:
            self._prepare_node(node)
        for machine in self.settings["machines"]:
            self._prepare_folders(machine)
            (self.node_dir(machine) / "own-disk").mkdir(exist_ok=True)
            (self.node_dir(machine) / "disk").symlink_to("own-disk")

    def _prepare_folders(self, machine: str) -> None:
        folder = self.node_dir(machine)
        for path in ("faults", "log", "run", "scripts", "clp/etc", *{str(Path(path).parent) for path in NODE_COMMANDS}):
            (folder / path).mkdir(parents=True, exist_ok=True)
        (folder / "disk").unlink(missing_ok=True)
        for path, words in NODE_COMMANDS.items():
            _write(folder / path, self._wrapper(machine, words), executable=True)

    def _prepare_node(self, node: str) -> None:
        self._prepare_folders(node)
        password = self.node_dir(node) / "clp" / "etc" / "api-password"
        _write(password, self.settings["rest_password"] + "\n")
        password.chmod(0o600)
        self.install_scripts(node, {name: (GUIDE / name).read_text(encoding="utf-8") for name in ("start.sh", "stop.sh", "watch.sh")})

    def _wrapper(self, node: str, words: str) -> str:
        module, *rest = words.split()
        argv = [sys.executable, "-I", "-S", str(RUN), module, *rest, str(self.node_dir(node))]
        mark = shlex.quote(self._mark(node))
        return f'#!/bin/sh\n{processes.MARK}={mark}\nexport {processes.MARK}\nexec {shlex.join(argv)} "$@"\n'

    def change_settings(self, **settings: Any) -> None:
        """Change settings by their constructor names: commands follow at once, a cluster service when its node is started again."""
        assert settings.keys() <= self.settings.keys(), settings
        self.settings |= settings
        _write(self.base / "sandbox.json", json.dumps(self.settings, indent=1))

    def install_scripts(self, node: str, files: Mapping[str, str], site: Mapping[str, str] | None = None) -> None:
        """Put scripts (name -> text) into the node's script folder, and ``site.env`` beside them.

        Args:
            node: where.
            files: all are made executable.
            site: further variables for ``site.env``.
        """
        folder = self.node_dir(node) / "scripts"
        for name, text in files.items():
            _write(folder / name, text, executable=True)
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in (self.site(node) | dict(site or {})).items()]
        _write(folder / "site.env", "".join(lines))

    def install_alert_commands(self, node: str, commands: Mapping[str, list[str]]) -> None:
        """Have the node's alert extension run command lines for events: ``rm@9`` -> lines, in which ``%%MSG%%`` is the event's text."""
        _write(self.node_dir(node) / "clp" / "etc" / "alerts.json", json.dumps(dict(commands), indent=1))

    # Power

    def start_node(self, node: str) -> subprocess.Popen[bytes]:
        """Switch a node on: a new boot id, and its cluster service starts, which is returned."""
        self._start_network()
        self._start_machines()
        if self.processes(node):
            raise RuntimeError(f"{node} is on already")
        boot = "b" + secrets.token_hex(8)
        _write(self.node_dir(node) / "boot-id", boot + "\n")
        self._note("node started", node=node, boot=boot)
        return self.spawn(node, "clusterpro", [sys.executable, "-I", "-S", str(RUN), "clusterpro", str(self.node_dir(node))])

    def spawn(self, node: str, name: str, argv: list[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start another process on a node, in a session of its own, with its output appended to ``<node>/log/<name>.log``."""
        environment = dict(os.environ) | self._environment | dict(env or {}) | {processes.MARK: self._mark(node)}
        return self._spawn(self.node_dir(node) / "log" / f"{name}.log", argv, environment)

    def kill_node(self, node: str) -> int:
        """Cut a node's power: everything on it is stopped, then killed. Gives the number of processes that were."""
        self._note("node killed", node=node)
        killed = processes.kill(self._mark(node), str(self.node_dir(node)))
        self._note("node is dead", node=node, killed=killed)
        self._reap()
        return killed

    def pause_node(self, node: str) -> None:
        """Freeze everything on a node."""
        self._note("node paused", node=node)
        processes.pause(self._mark(node), str(self.node_dir(node)))

    def continue_node(self, node: str) -> None:
        """Let a frozen node go on."""
        self._note("node continued", node=node)
        processes.resume(self._mark(node), str(self.node_dir(node)))

    def stop_node(self, node: str, timeout_s: float = 120.0) -> None:
        """Shut a node down in order: its cluster service gives the group away and ends, then the power goes off."""
        self._note("node stopped", node=node)
        ask_json(self.settings["nodes"][node]["control"], {"op": "leave"}, timeout_s)
        processes.kill(self._mark(node), str(self.node_dir(node)))
        self._reap()

    def shutdown(self) -> None:
        """End everything that carries this sandbox's mark; the files stay."""
        processes.kill(self.id, str(self.base))
        for child in self._children:
            child.wait(60)  # killed, and a process that nobody has waited for is not gone for its parent
        self._children.clear()
        self._network = None
        if self._port_guard is not None:
            os.close(self._port_guard)
            self._port_guard = None

    def processes(self, node: str | None = None) -> list[str]:
        """``<pid> <command line>`` of what lives on ``node``, or in the whole sandbox."""
        mark, folder = (self.id, self.base) if node is None else (self._mark(node), self.node_dir(node))
        return processes.command_lines(mark, str(folder))

    def _mark(self, node: str) -> str:
        return f"{self.id}/{node}"

    def _start_network(self) -> None:
        if self._network is not None and self._network.poll() is None:
            return
        environment = dict(os.environ) | {processes.MARK: f"{self.id}/.network"}
        argv = [sys.executable, "-I", "-S", str(RUN), "network", str(self.base)]
        self._network = self._spawn(self.base / "network.log", argv, environment)
        self.wait_for("the network", lambda: listens(self.settings["network"]["control"]))

    def _start_machines(self) -> None:
        """What is outside the cluster is simply there: the remote DBMS runs."""
        for machine in self.settings["machines"]:
            if self.run(machine, "dbms/bin/dbstatus").returncode:
                self.run(machine, "dbms/bin/dbstart")
                self.wait_for("the remote DBMS", lambda machine=machine: self.run(machine, "dbms/bin/dbstatus").returncode == 0)  # type: ignore[misc]

    def _spawn(self, log: Path, argv: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            child = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._children.append(child)
        return child

    def _reap(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]

    # The cluster

    def run(self, node: str, path: str, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run one of the node's commands (``server/bin/dcstatus``, ``clp/bin/clpgrp``, ...) as somebody at that node would."""
        return subprocess.run(
            [str(self.command(node, path)), *arguments], capture_output=True, text=True, encoding="utf-8", timeout=timeout_s, check=False
        )

    def clpgrp(self, *arguments: str, node: str | None = None, timeout_s: float = 120.0) -> str:
        """Run ``clpgrp`` on a node (default: the first one that is on) and give its output.

        Raises:
            RuntimeError: it failed; the text is what it said.
        """
        return self._clp("clpgrp", node, arguments, timeout_s)

    def clpstat(self, *arguments: str, node: str | None = None) -> str:
        """Run ``clpstat`` on a node (default: the first one that is on) and give its output.

        Raises:
            RuntimeError: it failed; the text is what it said.
        """
        return self._clp("clpstat", node, arguments, 30.0)

    def _clp(self, command: str, node: str | None, arguments: tuple[str, ...], timeout_s: float) -> str:
        result = self.run(node or self._node_that_is_on(), f"clp/bin/{command}", *arguments, timeout_s=timeout_s)
        if result.returncode:
            raise RuntimeError(f"{command} {' '.join(arguments)} ended with {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def _node_that_is_on(self) -> str:
        return next((node for node in self.nodes if listens(self.settings["nodes"][node]["control"])), self.nodes[0])

    def view(self, node: str | None = None) -> dict[str, Any]:
        """What ``node``'s cluster service (default: the first that is on) believes: ``node``, ``nodes`` (states) and ``view`` of the group.

        Raises:
            OSError: it does not answer.
        """
        return ask_json(self.settings["nodes"][node or self._node_that_is_on()]["control"], {"op": "status"}, 5.0)

    def wait_group(self, state: str = "Online", owner: str | None = None, timeout_s: float = 30.0) -> None:
        """Wait until the group is in ``state`` on ``owner`` (None: on any node).

        Raises:
            TimeoutError: it was not in time; the text says how things stand.
        """
        self.wait_for(f"group {state} on {owner}", lambda: self._group_is(state, owner), timeout_s)

    def _group_is(self, state: str, owner: str | None) -> bool:
        try:
            view = self.view(owner)["view"]
        except OSError:
            return False
        return bool(view["state"] == state and owner in (None, view["owner"]))

    def wait_node(self, node: str, state: str = "Online", seen_from: str | None = None, timeout_s: float = 30.0) -> None:
        """Wait until the cluster shows ``node`` in ``state`` (Online, Online Pending, Offline).

        Raises:
            TimeoutError: it was not in time.
        """
        self.wait_for(f"{node} {state}", lambda: self._node_is(node, state, seen_from), timeout_s)

    def _node_is(self, node: str, state: str, seen_from: str | None) -> bool:
        try:
            return bool(self.view(seen_from)["nodes"][node] == state)
        except OSError:
            return False

    def wait_for(self, what: str, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Wait until ``condition`` holds.

        Raises:
            TimeoutError: it did not within ``timeout_s``; the text names ``what`` and what the cluster looked like.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} was not reached within {timeout_s} s\n{self._picture()}")
            time.sleep(0.05)

    def _picture(self) -> str:
        try:
            return self.clpstat()
        except (RuntimeError, OSError) as error:
            return str(error)

    # DataCoordinator

    def schedules(self) -> list[dict[str, str]]:
        """The schedules as the metadata DB has them: name, startup_mode, state."""
        rows = _rows(self.shared / "metadata" / "metadata.db", "SELECT name, startup_mode, state FROM schedules ORDER BY rowid")
        return [{"name": name, "startup_mode": mode, "state": state} for name, mode, state in rows]

    def schedule_runs(self) -> list[dict[str, Any]]:
        """Every run of a schedule that the metadata DB still has, oldest first: schedule, node, time."""
        rows = _rows(self.shared / "metadata" / "metadata.db", "SELECT schedule, node, time FROM runs ORDER BY rowid")
        return [{"schedule": schedule, "node": node, "time": when} for schedule, node, when in rows]

    def reset_schedules(self, schedules: Iterable[tuple[str, str, str]] = dc_metadata.DEFAULT_SCHEDULES) -> None:
        """Replace the schedules (name, auto|manual, started|stopped), through the server where one serves, else in the file itself."""
        wanted = [list(row) for row in schedules]
        for node in self.nodes:
            if self._set_schedules(node, wanted):
                return
        (self.shared / "metadata").mkdir(exist_ok=True)
        database = dc_metadata.open_database(str(self.shared / "metadata" / "metadata.db"))
        dc_metadata.replace_schedules(database, wanted)
        database.close()

    def _set_schedules(self, node: str, wanted: list[list[str]]) -> bool:
        try:
            return ask(self.settings["nodes"][node]["server"], "SET " + json.dumps(wanted, ensure_ascii=False)) == "OK"
        except OSError:
            return False

    def user_writes(self) -> list[dict[str, Any]]:
        """What clients had the agent write into the user database, oldest first: text, node (of the agent), time."""
        base = self.shared if self.settings["databases"] == "local" else self.node_dir(DATABASE_HOST) / "own-disk"
        rows = _rows(base / "dbms" / "user.db", "SELECT text, node, time FROM writes ORDER BY rowid")
        return [{"text": text, "node": node, "time": when} for text, node, when in rows]

    def start_clients(self, interval_s: float = 0.1) -> subprocess.Popen[bytes]:
        """Start the client process (not on any node), which writes to the server, or to the agent where the group has no server.

        It ends with ``shutdown``, or by ``terminate`` on what is returned.
        """
        host, port = self.address_of("server" if "server" in self.settings["services"] else "agent")
        argv = [sys.executable, "-I", "-S", str(RUN), "clients", str(self.base), host, str(port), str(interval_s)]
        return self._spawn(self.base / "clients.log", argv, dict(os.environ) | {processes.MARK: f"{self.id}/.clients"})

    # Faults

    def set_fault(self, name: str, content: str | float = "", node: str | None = None) -> None:
        """Set a fault on a node, or on the whole sandbox (None).

        ``start-seconds-<component>``, ``stop-seconds-<component>``: how long it takes (server, agent; start also metadata, dbms).
        ``fail-<component>-<verb>``: the exit code; the verb may be ``dcstatus``, ``dbstatus``, ``metastatus``. ``hang-<component>-<verb>``:
        until cleared.
        ``unhealthy-<component>``: runs, and says that it is not healthy. ``disk-held``: the metadata DB stays when it should go.
        ``schedules-not-resumed``, ``schedules-surprise``: schedule names, one a line. ``attach-fails``: sd1 cannot be attached.
        ``partition``: no heartbeat arrives, nor is one sent.
        """
        self._note("fault set", node=node, fault=name, content=str(content))
        _write(self._fault(name, node), str(content))

    def clear_fault(self, name: str, node: str | None = None) -> None:
        """Take a fault back; nothing happens if it is not set."""
        self._note("fault cleared", node=node, fault=name)
        self._fault(name, node).unlink(missing_ok=True)

    def _fault(self, name: str, node: str | None) -> Path:
        return (self.base if node is None else self.node_dir(node)) / "faults" / name

    def set_start_seconds(self, component: str, seconds: float, node: str | None = None) -> None:
        """How long a start of ``component`` (server, agent, metadata) takes until it is healthy."""
        self.set_fault(f"start-seconds-{component}", seconds, node)

    def fail_command(self, component: str, verb: str, code: int = 1, node: str | None = None) -> None:
        """A verb of ``component`` (or its ``dcstatus``) does nothing and ends with ``code``."""
        self.set_fault(f"fail-{component}-{verb}", code, node)

    def hang_command(self, component: str, verb: str, node: str | None = None) -> None:
        """A verb of ``component`` (or its ``dcstatus``) hangs before it does anything, until the fault is cleared."""
        self.set_fault(f"hang-{component}-{verb}", "", node)

    def sabotage_schedules(self, *names: str, node: str | None = None) -> None:
        """These schedules don't come back at the next starts."""
        self.set_fault("schedules-not-resumed", "\n".join(names), node)

    def surprise_schedules(self, *names: str, node: str | None = None) -> None:
        """These schedules run after the next starts though nobody asked for them."""
        self.set_fault("schedules-surprise", "\n".join(names), node)

    def crash(self, node: str, component: str) -> None:
        """Kill one daemon (server, agent, metadata) with SIGKILL.

        Raises:
            FileNotFoundError: it never ran there.
        """
        pid = int((self.node_dir(node) / "run" / f"{component}.pid").read_text(encoding="ascii"))
        self._note("daemon killed", node=node, component=component, pid=pid)
        processes.kill_one(self._mark(node), str(self.node_dir(node)), pid)

    # Records

    def read_records(self, name: str) -> list[dict[str, Any]]:
        """``records/<name>.jsonl``, oldest first."""
        return records.read(str(self.records / f"{name}.jsonl"))

    def verbs(self) -> list[dict[str, Any]]:
        """Every dcserver and dcagent call as one record, in order of their begin; ``end`` and ``code`` are None where it never ended."""
        calls: dict[tuple[int, float], dict[str, Any]] = {}
        for record in self.read_records("verbs"):
            key = (record["pid"], record["begin"])
            if record["what"] == "begin":
                calls[key] = {name: value for name, value in record.items() if name not in ("time", "what")} | {"end": None, "code": None}
            else:
                calls[key] |= {"end": record["end"], "code": record["code"]}
        return sorted(calls.values(), key=lambda call: float(call["begin"]))

    def _note(self, what: str, **fields: Any) -> None:
        records.append(str(self.records / "driver.jsonl"), {"time": time.time(), "what": what, **fields})


def _write(path: Path, text: str, *, executable: bool = False) -> None:
    """Write aside and rename, so that nobody reads half a file."""
    aside = path.with_name(f".tmp-{path.name}")
    aside.write_text(text, encoding="utf-8")
    if executable:
        aside.chmod(0o755)
    aside.replace(path)


def _rows(path: Path, query: str) -> list[Any]:
    """What a database on the switchable disk has to say; nothing while there is none."""
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()
