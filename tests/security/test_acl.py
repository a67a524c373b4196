"""The rendered ACL file on a real server: enough for everything that dcsup does, and not more for a node than its own."""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from redis.exceptions import NoPermissionError
from rq import Queue

from orchestrator.embedded import find_server
from orchestrator.rendering import redis_acl
from statemachines import wire
from tests.conftest import wait_until
from tests.security.certificates import Authority
from tests.security.installation import CLUSTER, CLUSTERS, dcsup, put_certificates, redis_of, render, server_of, tables_of
from tests.security.servers import Server, debian_redis, free_port
from tests.workers.conftest import BOOT, NodeFixture, make_node, write_config
from workers import outbox

C, NODE = "c1", "n1"


@pytest.fixture(scope="module", params=["plain", "tls"])
def site(request: pytest.FixtureRequest) -> Iterator[tuple[Path, Server]]:
    """The rendered folder, and a server that runs with it: Valkey, and a Redis of the distribution that speaks TLS only."""
    tls = request.param == "tls"
    binary = debian_redis() if tls else find_server()
    if binary is None:
        pytest.skip("needs the Debian package redis-server")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        out = render(Path(folder), f'url = "redis://127.0.0.1:{port}/0"', *(["--tls"] if tls else []))
        server = server_of(out, Path(folder) / "server", port, binary)
        if tls:
            put_certificates(out, server, Authority.new(Path(folder) / "authority"))
        yield out, server.start()
        server.kill()


def admin_of(server: Server) -> Any:
    return server.client(username="admin", password="any")


def as_user(site: tuple[Path, Server], machine: str) -> Any:
    out, server = site
    table = redis_of(out, machine)
    return server.client(username=table["username"], password=Path(table["password_file"]).read_text().strip())


# --- enough -------------------------------------------------------------------------------------------------------------------------------


class Story:
    """One node and one orchestrator with their rendered settings, and what the log says."""

    def __init__(self, base: Path, out: Path, server: Server) -> None:
        self.base, self.admin = base, admin_of(server)
        self.node: NodeFixture = make_node(base, "redis://nobody", self.admin)
        write_config(self.node, watch='profile = "fast"')
        self.configs = {
            machine: self._config(machine, tables_of(out, machine)) for machine in ("c1_n1", "orchestrator", "operator", "viewer")
        }
        self.queue = Queue(wire.command_queue(C, NODE), connection=self.admin, serializer="json")
        self.running: list[Any] = []

    def _config(self, machine: str, tables: str) -> Path:
        text = self.node.config.read_text().replace('[redis]\nurl = "redis://nobody"\n', "")
        head, cut, node_table = text.partition("[node]")
        listen = '[orchestrator]\nlisten = "127.0.0.1:0"\n'
        file = self.base / f"{machine}.toml"
        other = CLUSTER.format(name="c2", nodes='"n1", "m"')
        file.write_text(f"{listen}{head}{other}{tables}\n" + (cut + node_table if machine == "c1_n1" else ""))
        return file

    def start(self, command: str, machine: str) -> Any:
        process = dcsup(command, "--config", self.configs[machine], log=self.base / f"{command}.log")
        self.running.append(process)
        return process

    def run(self, machine: str, *command: str) -> None:
        process = dcsup(*command, "--config", self.configs[machine], log=self.base / "cli.log")
        assert process.wait(120) == 0, (self.base / "cli.log").read_text()

    def log(self, kind: str) -> list[dict[str, Any]]:
        entries = (json.loads(fields[b"e"]) for _, fields in self.admin.xrange(wire.log(C)))
        return [entry for entry in entries if entry["type"] == kind]

    def until(self, kind: str, count: int = 1) -> None:
        wait_until(lambda: len(self.log(kind)) >= count, f"{count} {kind} in the log", 120)

    def refused_by_redis(self) -> list[Any]:
        return [(one["username"], one["reason"], one["object"]) for one in self.admin.acl_log()]

    def end(self, process: Any) -> None:
        process.terminate()
        assert process.wait(30) == 0
        self.running.remove(process)


@pytest.fixture
def story(site: tuple[Path, Server], tmp_path: Path) -> Iterator[Story]:
    out, server = site
    story = Story(tmp_path, out, server)
    story.admin.flushall()
    story.admin.acl_log_reset()
    yield story
    print("".join(log.read_text()[-3000:] for log in tmp_path.glob("*.log")))  # shown where a test failed
    for process in story.running:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        process.wait()


def test_the_whole_way_without_a_single_refusal(story: Story) -> None:
    """Join, watch, a start with its commands and verdicts, refused and unreadable jobs, abandoned ones, a killed RQ worker, a cut
    connection, pause and resume by people, stop and start again: Redis refuses nothing of it (I5, I7)."""
    orchestrator, worker = story.start("orchestrator", "orchestrator"), story.start("worker", "c1_n1")
    story.until("NodeJoined")
    wait_until(lambda: story.admin.exists("rq:workers:c1_n1-cmd", wire.watch_alive(C, NODE)) == 2, "both RQ workers", 120)
    start(story)
    odd_jobs(story)
    kill_between_pop_and_start(story, worker)
    story.admin.execute_command("CLIENT", "KILL", "USER", "c1_n1")
    story.run("operator", "pause")
    story.until("PauseRequested")
    wait_until(lambda: (story.node.folder / "maintenance").exists(), "the node's word of maintenance", 120)
    story.run("operator", "resume")
    story.until("ResumeRequested")
    for command in (("status",), ("export", "--cluster", C)):
        story.run("viewer", *command)
    story.end(worker)
    story.until("NodeLeft")
    again = story.start("worker", "c1_n1")
    story.until("NodeJoined", 2)
    story.end(again)
    story.end(orchestrator)
    assert story.refused_by_redis() == []
    assert story.log("FactQuarantined") == []


def start(story: Story) -> None:
    """A start call as the hook makes it, with both services coming up."""
    node, commands = story.node, [("agent", "recover"), ("server", "recover")]
    ticket = node.ticket(1, "start", commands, state="open")
    listed = [{"n": n, "service": service, "verb": verb} for n, (service, verb) in enumerate(commands, 1)]
    outbox.write_fact(node.folder, "StartHookCalled", "hook", {"ticket": ticket, "event": "START", "commands": listed}, BOOT)
    for service, _ in commands:

        def came(service: str = service) -> bool:
            node.touch_alive(ticket)
            return bool(node.ran(service))

        wait_until(came, f"the start of {service}", 120)
        node.dcstatus(service, 0)
    story.until("CommandEnded", 2)
    node.close(ticket)


def odd_jobs(story: Story) -> None:
    """What RQ handles in ways of its own: refused, failing, unreadable and abandoned jobs."""
    queue, begins = story.queue, wire.prefix(C, NODE)
    queue.enqueue("os.getcwd", job_id=f"{begins}-other-function")
    queue.enqueue(wire.JOB_FUNCTION, {"kind": "verdict"}, job_id=f"{begins}-unsigned")
    story.admin.hset(f"rq:job:{begins}-odd", mapping={"created_at": "nonsense", "data": "nonsense"})
    story.admin.rpush(queue.key, f"{begins}-odd", f"{begins}-missing")
    story.until("CommandRefused", 3)


def kill_between_pop_and_start(story: Story, worker: Any) -> None:
    """The RQ worker dies with a job in its hands; its successor finds it, and an abandoned one of RQ's registry."""
    begins = wire.prefix(C, NODE)
    refused = len(story.log("CommandRefused"))
    job = story.queue.enqueue(wire.JOB_FUNCTION, {"kind": "nonsense"}, job_id=f"{begins}-lost")
    wait_until(lambda: len(story.log("CommandRefused")) > refused, "the job once", 120)
    child = next(one for one in psutil.Process(worker.pid).children() if "cmd" in one.cmdline())
    child.suspend()
    story.admin.rpush(story.queue.intermediate_queue_key, job.id)
    story.admin.zadd(story.queue.started_job_registry.key, {f"{job.id}:gone": 1})
    child.kill()
    wait_until(lambda: len(story.log("CommandRefused")) > refused + 1, "the job again", 120)


# --- and not more -------------------------------------------------------------------------------------------------------------------------

NOT_OF_THE_ACL = {"auth", "hello", "quit", "reset"}
"""Every client may say these; a user's rights begin behind them."""

OF_ITSELF = {
    "ping", "select", "client|setname", "client|info", "info", "time", "multi", "exec", "discard", "unwatch",
}  # fmt: skip
"""What a node may ask without naming a key."""

WITH_SYNTAX = {"xread": ["STREAMS", "{key}", "0"], "eval": ["return 1", "1", "{key}"], "evalsha": ["0" * 40, "1", "{key}"]}
"""Commands whose keys are found by words in front of them."""


@cache
def every_command(admin: Any) -> list[tuple[str, list[str]]]:
    """Each command of the server with as many words as it needs, `{key}` where a key may stand: (name, words)."""
    return list(_every_command(admin))


def _every_command(admin: Any) -> Iterator[tuple[str, list[str]]]:
    for name, about in admin.execute_command("COMMAND").items():
        subcommands = [(one[0].decode(), one[1]) for one in about["subcommands"]]
        for whole, arity in subcommands or [(name, about["arity"])]:
            words = whole.split("|")
            padding = ["{key}"] * max(abs(arity) - len(words), 0 if subcommands else 1 if arity != 1 else 0)
            yield whole, words + WITH_SYNTAX.get(whole, padding)


def allowed(admin: Any, user: str, key: str, among: Container[str] | None = None) -> set[str]:
    """The commands that the user may run on this key; those without keys too. `among`: only these are tried."""
    names, pipeline = [], admin.pipeline(transaction=False)
    for name, words in every_command(admin):
        if among is None or name in among:
            names.append(name)
            pipeline.execute_command("ACL", "DRYRUN", user, *(word.replace("{key}", key) for word in words))
    answers = pipeline.execute(raise_on_error=False)
    return {name for name, answer in zip(names, answers, strict=True) if answer == b"OK"} - NOT_OF_THE_ACL


def granted(admin: Any, user: str) -> set[str]:
    """The commands that the server knows the user to have for any key at all."""
    line = next(line for line in admin.acl_list() if line.startswith(f"user {user} "))
    return set(re.findall(r"\+([a-z|]+)", line))


def places() -> list[tuple[str, str]]:
    return [(cluster, node) for cluster, nodes in CLUSTERS.items() for node in nodes]


def keys_of(cluster: str, node: str) -> dict[str, str]:
    """Every key that wire.py can name for a place, and every one that RQ makes of its queues and jobs: key -> what it is."""
    given = {"cluster": cluster, "node": node, "orchestrator": "host-1", "previous_hash": "0" * 64, "index": 0}
    found: dict[str, str] = {}
    for name, function in inspect.getmembers(wire, inspect.isfunction):
        wanted = inspect.signature(function).parameters
        assert set(wanted) <= set(given), f"wire.{name} needs a value here: {set(wanted) - set(given)}"
        text = str(function(**{one: given[one] for one in wanted}))
        found |= {text: name} if text.startswith("dcsup:") else dict.fromkeys(_of_rq(text), f"rq {name}")
    return found | {wire.inbox(cluster, inbox): "inbox" for inbox in (wire.LEADER_INBOX, wire.OPERATOR_INBOX)}


def _of_rq(name: str) -> list[str]:
    kinds = ("queue", "wip", "finished", "failed", "ready", "deferred", "scheduled", "canceled", "clean_registries", "workers", "job",
             "results", "execution", "executions", "worker")  # fmt: skip
    return [*(f"rq:{kind}:{name}" for kind in kinds), f"rq:queue:{name}:intermediate", f"rq:job::{name}:dependencies"]


def own(cluster: str, node: str) -> dict[str, set[str]]:
    """What the node may do with each of dcsup's keys that are its own."""
    return {
        wire.inbox(cluster, node): {"xadd", "xrevrange"}, wire.mark(cluster, node): {"get"}, wire.maintenance(cluster): {"get"},
        wire.alive(cluster, node): {"set"}, wire.watch_alive(cluster, node): {"set", "exists"},
        wire.bell(cluster): {"publish"},
    }  # fmt: skip


@pytest.mark.parametrize(("cluster", "node"), [("c1", "n1"), ("c2", "m")])
def test_a_node_reaches_its_own_keys_only(site: tuple[Path, Server], cluster: str, node: str) -> None:
    """Every command against every key that wire.py and RQ can name, of every node and cluster: a node may do with its own
    what its worker does, and with no other anything at all; the mark and the maintenance key it may only read."""
    admin, user = admin_of(site[1]), wire.prefix(cluster, node)
    for key in {key: None for place in places() for key in keys_of(*place)}:
        found = allowed(admin, user, key, None if key in own(cluster, node) else granted(admin, user)) - OF_ITSELF
        if key in own(cluster, node):
            assert found == own(cluster, node)[key], key
        elif key.startswith("dcsup:") or user not in key:
            assert found == set(), key


@pytest.mark.parametrize("key", ["rq:workers", "rq:queues", "rq:clean_groups", "rq:groups", "rq:rl-keys", "rq:suspended"])
def test_what_rq_shares_can_be_added_to_and_not_be_changed(site: tuple[Path, Server], key: str) -> None:
    """No node can suspend RQ, nor make its own upkeep work on what is others'."""
    expected = {"rq:workers": {"sadd", "srem"}, "rq:queues": {"sadd"}}
    assert allowed(admin_of(site[1]), "c1_n1", key) - OF_ITSELF == expected.get(key, set())


def test_without_a_key_a_node_may_ask_only_what_connecting_needs(site: tuple[Path, Server]) -> None:
    """No KEYS, SCAN, FLUSH, CONFIG, EVAL, SCRIPT, FUNCTION, DEBUG, MONITOR, SHUTDOWN, REPLICAOF, CLIENT KILL, ACL, SUBSCRIBE, ..."""
    assert allowed(admin_of(site[1]), "c1_n1", "elsewhere") == OF_ITSELF


def test_a_bell_is_rung_in_its_own_cluster(site: tuple[Path, Server]) -> None:
    """PUBLISH reaches the own cluster's bell; not another's, nor the channel on which RQ's workers would be told to stop."""
    with as_user(site, "c1_n1") as client:
        client.publish(wire.bell("c1"), "n1")
        for channel in (wire.bell("c2"), "rq:pubsub:c1_n2-cmd-1", "elsewhere"):
            with pytest.raises(NoPermissionError):
                client.publish(channel, "n1")


def test_who_is_nobody_gets_nothing(site: tuple[Path, Server]) -> None:
    """Without a name and password, or with a wrong one, there is no way in."""
    with pytest.raises(redis.AuthenticationError):
        site[1].client().ping()
    with pytest.raises(redis.AuthenticationError):
        site[1].client(username="c1_n1", password="guessed").ping()


def test_people_look_and_ask_and_no_more(site: tuple[Path, Server]) -> None:
    """A viewer changes nothing; an operator can only put a word into the people's inbox."""
    admin, changes = admin_of(site[1]), {"set", "del", "xadd", "xtrim", "expire", "rpush", "hset", "eval", "flushall", "publish"}
    asking = wire.inbox(C, wire.OPERATOR_INBOX)
    for key in keys_of(C, NODE):
        assert not allowed(admin, redis_acl.VIEWER, key, changes), key
        expected = {asking: {"xadd"}, wire.bell(C): {"publish"}}
        assert allowed(admin, redis_acl.OPERATOR, key, changes) == expected.get(key, set()), key


def test_an_orchestrator_reaches_its_own_clusters_only(site: tuple[Path, Server]) -> None:
    """Keys of clusters that the file does not name are closed to it, and so is the administration of the server."""
    admin = admin_of(site[1])
    changes = {"get", "set", "xadd", "del", "rpush", "hset"}
    for key in keys_of("elsewhere", NODE):
        if not key.startswith("dcsup:lease:"):
            assert not allowed(admin, redis_acl.ORCHESTRATOR, key, changes), key
    administration = {"flushall", "config|set", "shutdown", "keys", "scan", "monitor", "acl|setuser", "replicaof", "client|kill", "debug"}
    assert not allowed(admin, redis_acl.ORCHESTRATOR, "x") & administration
