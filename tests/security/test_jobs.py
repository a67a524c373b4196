"""Signed jobs: writing to a node's queue is not enough to make it act (docs/security.md)."""

from __future__ import annotations

import concurrent.futures
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rq import Queue
from structlog.testing import capture_logs

from orchestrator import app, keys
from orchestrator.memory_store import MemoryStore
from orchestrator.redis_store import RedisStore
from orchestrator.secretfiles import SecretError
from orchestrator.settings import ConfigurationError, load
from statemachines import signing, wire
from statemachines.configuration import Configuration
from tests.cli.conftest import Dcsup
from tests.conftest import wait_until
from tests.contract.test_store import MemoryWorld, RedisWorld, a_job, commit_after
from tests.workers.conftest import CLUSTER, NODE, NodeFixture, write_config
from tests.workers.test_rqworker import Running, command, commands, refusals
from tests.workers.test_worker import Parent
from workers import rqworker
from workers.keys import Keyring
from workers.throttle import Throttle

CLUSTER_KEY, OTHER_KEY = "c" * 64, "d" * 64
KEY, SISTER = signing.node_key(CLUSTER_KEY, CLUSTER, NODE), signing.node_key(CLUSTER_KEY, CLUSTER, "n2")
VERDICT = {"kind": "verdict", "ticket": "b-g1-1-start", "code": 75, "reason": "x"}


# --- signatures ---------------------------------------------------------------------------------------------------------------------------


def test_a_signature_is_for_one_job_of_one_node() -> None:
    """Whatever is changed, in the job or around it: the signature no longer fits. The order of the fields is nothing."""
    payload = {"kind": "command", "ticket": "b-g1-1-start", "n": 1, "service": "server", "verb": "start", "not_after_ms": 5, "head": None}
    good = signing.signed(payload, KEY, CLUSTER, NODE, "id-1")
    assert signing.is_signed(good, [KEY], CLUSTER, NODE, "id-1")
    assert signing.is_signed(dict(reversed(good.items())), [OTHER_KEY, KEY], CLUSTER, NODE, "id-1")
    assert signing.is_signed(json.loads(json.dumps(good)), [KEY], CLUSTER, NODE, "id-1")
    assert signing.unsigned(good) == payload
    for field in payload:
        assert not signing.is_signed({**good, field: "other"}, [KEY], CLUSTER, NODE, "id-1"), field
        assert not signing.is_signed({name: good[name] for name in good if name != field}, [KEY], CLUSTER, NODE, "id-1"), field
    assert not signing.is_signed({**good, "more": 1}, [KEY], CLUSTER, NODE, "id-1")
    assert not signing.is_signed(good, [KEY], CLUSTER, NODE, "id-2")
    assert not signing.is_signed(good, [KEY], CLUSTER, "n2", "id-1")
    assert not signing.is_signed(good, [KEY], "c2", NODE, "id-1")
    assert not signing.is_signed(good, [SISTER, OTHER_KEY], CLUSTER, NODE, "id-1")
    assert not signing.is_signed(good, [], CLUSTER, NODE, "id-1")


def test_a_nodes_key_is_its_own() -> None:
    """Each node of each cluster has another, and none is the cluster's: a stolen node signs nothing for its sister."""
    derived = {signing.node_key(CLUSTER_KEY, cluster, name) for cluster in ("a", "a-b") for name in ("n1", "n2", "b-n1")}
    assert len(derived) == 6 and CLUSTER_KEY not in derived
    assert all(len(key) == 64 for key in derived)


@pytest.mark.parametrize("odd", [None, 7, True, [], {}, "", "x", "x" * 64, "ü" * 64, "\ud800", "0" * 10_000])
def test_an_odd_signature_does_not_fit(odd: Any) -> None:
    """Whatever stands there: no, and never an error."""
    assert not signing.is_signed({**VERDICT, signing.SIGNATURE: odd}, [KEY], CLUSTER, NODE, "id")


def test_contents_that_cannot_be_written_do_not_fit() -> None:
    """Nested too deeply, or no JSON at all."""
    deep: Any = []
    for _ in range(20_000):
        deep = [deep]
    for content in (deep, object(), {1: 1, "a": 1}):
        assert not signing.is_signed({"a": content, signing.SIGNATURE: "0" * 64}, [KEY], CLUSTER, NODE, "id")


@pytest.mark.parametrize("text", ["", "\n \n", "short", f"{KEY}\nshort"])
def test_a_text_without_a_usable_key_is_refused(text: str) -> None:
    """Nothing, or too short to be safe; what stands there is not quoted."""
    with pytest.raises(signing.BadKey) as told:
        signing.keys_in(text)
    assert "short" not in str(told.value)


# --- both stores sign, and the node's check accepts ---------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest) -> Iterator[MemoryWorld | RedisWorld]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    world = RedisWorld(request.getfixturevalue("redis_server").url)
    yield world
    world.close()


def test_what_an_orchestrator_enqueues_is_signed_for_its_node(world: MemoryWorld | RedisWorld, tmp_path: Path) -> None:
    """With the cluster's key: head included, the same when the commit is prepared again; without one, nothing is added."""
    signer = {"c": CLUSTER_KEY}
    store: MemoryStore | RedisStore
    store = MemoryStore(world.server, keys=signer) if isinstance(world, MemoryWorld) else RedisStore(world.url, keys=signer)
    commit = commit_after(None, jobs=[a_job("c_n1-0-0"), a_job("c_n2-0-1", "n2")])
    assert store.commit([commit])[0].done
    for name, key in (("n1", signing.node_key(CLUSTER_KEY, "c", "n1")), ("n2", signing.node_key(CLUSTER_KEY, "c", "n2"))):
        [(job_id, payload)] = world.jobs(name)
        assert signing.is_signed(payload, [key], "c", name, job_id)
        assert payload["head"] == commit.new.seen()
        assert payload == keys.job_payload(commit, next(job.order for job in commit.jobs if job.order.node == name), signer)
    assert signing.SIGNATURE not in keys.job_payload(commit, commit.jobs[0].order, {})
    store.close()


# --- what a node believes -----------------------------------------------------------------------------------------------------------------


def with_key(node: NodeFixture, *keys: str) -> Path:
    """Give the node a key file, and a configuration that names it."""
    path = node.base / "node.key"
    path.touch(mode=0o600)
    path.write_text("\n".join(keys) + "\n")
    write_config(node, services="server", extra_node=f'key = {{ file = "{path}" }}')
    return path


def send(node: NodeFixture, payload: dict[str, Any], job_id: str, key: str | None, cluster: str = CLUSTER, name: str = NODE) -> None:
    whole = payload if key is None else signing.signed(payload, key, cluster, name, job_id)
    commands(node.client).enqueue(wire.JOB_FUNCTION, whole, job_id=job_id)


def test_forged_jobs_run_nothing_and_signed_ones_run(
    node: NodeFixture,
    start: Callable[..., Running],
    alive_ticket: Callable[..., str],
) -> None:
    """Unsigned, signed by its sister, for another node or cluster, moved to another id, changed: each is refused with `bad-signature`,
    although all else about it is right. The one that the orchestrator signed runs, once, however often it is delivered."""
    with_key(node, KEY)
    start(node)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    payload = command(node, ticket)
    send(node, payload, "c1_n1-a-0", None)
    send(node, payload, "c1_n1-a-1", SISTER)
    send(node, payload, "c1_n1-a-2", KEY, name="n2")
    send(node, payload, "c1_n1-a-3", KEY, cluster="c2")
    commands(node.client).enqueue(wire.JOB_FUNCTION, signing.signed(payload, KEY, CLUSTER, NODE, "c1_n1-a-8"), job_id="c1_n1-a-4")
    changed = {**signing.signed(payload, KEY, CLUSTER, NODE, "c1_n1-a-5"), "not_after_ms": payload["not_after_ms"] + 1}
    commands(node.client).enqueue(wire.JOB_FUNCTION, changed, job_id="c1_n1-a-5")
    commands(node.client).enqueue(wire.JOB_FUNCTION, {**VERDICT, "ticket": ticket, "code": 40}, job_id="c1_n1-a-6")
    wait_until(lambda: len(refusals(node)) == 7, "seven refusals")
    assert {(one["reason"], one["ticket"]) for one in refusals(node)} == {("bad-signature", None)}  # nothing in it is believed
    assert node.ran("server") == []
    assert not (node.folder / "tickets" / f"{ticket}.verdict").exists()
    send(node, payload, "c1_n1-a-7", KEY)
    wait_until(lambda: (node.folder / "journal" / f"{ticket}.1.ok").exists(), "the signed command")
    send(node, payload, "c1_n1-a-7", KEY)
    wait_until(lambda: len(refusals(node)) == 8, "the second delivery's refusal")
    assert refusals(node)[-1]["reason"] == "already-run"
    assert node.ran("server") == ["recover"]


def test_a_flood_of_forged_jobs_does_not_fill_the_disk(node: NodeFixture) -> None:
    """So many refusals a minute become facts; of the others the next one that does tells the number."""
    process = rqworker.Process("cmd", node.settings(), os.getppid())
    for n in range(rqworker.REFUSALS_MAX + 50):
        process._report("CommandRefused", {"job_id": str(n), "ticket": None, "n": None, "reason": "bad-signature", "detail": "x"})
    assert [one["job_id"] for one in refusals(node)] == [str(n) for n in range(rqworker.REFUSALS_MAX)]
    process._refusals = Throttle(1, 60.0)
    process._refusals.held_back = 50
    process._report("CommandRefused", {"job_id": "later", "ticket": None, "n": None, "reason": "bad-signature", "detail": "x"})
    assert refusals(node)[-1]["detail"] == "x (and 50 more since the last one told)"


def test_a_throttle_lets_through_so_many_in_any_period() -> None:
    """Not so many per fixed minute, in which twice as many could pass around its end."""
    throttle = Throttle(2, 10.0)
    assert [throttle.lets_through(now) for now in (0.0, 9.0, 9.5, 10.5, 11.0, 18.9, 19.0, 30.0)] == [
        True, True, False, True, False, False, True, True,
    ]  # fmt: skip
    assert throttle.held_back == 3


def test_an_old_signed_job_sent_again_does_nothing(
    node: NodeFixture,
    start: Callable[..., Running],
    alive_ticket: Callable[..., str],
) -> None:
    """A replay has a good signature, and no effect: its time has passed, or the journal has its command (N5), or its script has ended."""
    with_key(node, KEY)
    start(node)
    ticket = alive_ticket(1, "start", [("server", "recover")])
    send(node, command(node, ticket, late_ms=50), "c1_n1-a-0", KEY)
    wait_until(lambda: [one["reason"] for one in refusals(node)] == ["late"], "the late one's refusal")
    payload, verdict = command(node, ticket), {**VERDICT, "ticket": ticket}
    send(node, payload, "c1_n1-a-1", KEY)
    wait_until(lambda: (node.folder / "journal" / f"{ticket}.1.ok").exists(), "the command")
    wait_until(lambda: (node.folder / "tickets" / f"{ticket}.worker").exists(), "the command's mark")
    node.close(ticket)
    send(node, payload, "c1_n1-a-1", KEY)
    send(node, verdict, "c1_n1-a-2", KEY)
    wait_until(lambda: len(refusals(node)) == 3, "both refusals")
    assert refusals(node)[-1]["reason"] == "no-ticket"
    assert "bad-signature" not in {one["reason"] for one in refusals(node)}
    assert node.ran("server") == ["recover"]


def test_keys_are_changed_without_a_restart(node: NodeFixture, start: Callable[..., Running]) -> None:
    """With a new and an old line both fit; when the old line is gone it fits no more. A file that is gone leaves what was known."""
    path = with_key(node, KEY)
    start(node)
    new = signing.node_key(OTHER_KEY, CLUSTER, NODE)

    def answer(job_id: str, key: str) -> str:
        before = len(refusals(node))
        send(node, VERDICT, job_id, key)
        wait_until(lambda: len(refusals(node)) > before, "an answer")
        return str(refusals(node)[-1]["reason"])

    assert (answer("i-1", KEY), answer("i-2", new)) == ("no-ticket", "bad-signature")
    path.write_text(f"{new}\n{KEY}\n")
    assert (answer("i-3", KEY), answer("i-4", new)) == ("no-ticket", "no-ticket")
    path.write_text(f"{new}\n")
    assert (answer("i-5", KEY), answer("i-6", new)) == ("bad-signature", "no-ticket")
    path.unlink()
    assert (answer("i-7", KEY), answer("i-8", new)) == ("bad-signature", "no-ticket")


def test_the_nodes_own_watch_jobs_are_signed(node: NodeFixture, parent: Callable[[NodeFixture], Parent]) -> None:
    """The whole `dcsup worker`: the watch job that it seeds itself is believed; one that somebody else puts there is not."""
    with_key(node, KEY)
    worker = parent(node)
    wait_until(lambda: node.asked("server"), "the watch's polls", 120)
    assert worker.said("jobs are not signed: who may write to this node's queues makes it act; run `dcsup render redis`") == []
    assert node.inbox("CommandRefused") == []
    own = Queue(wire.watch_queue(CLUSTER, NODE), connection=node.client, serializer="json")
    forged = own.enqueue(wire.JOB_FUNCTION, {"kind": "watch"}, job_timeout=-1)
    own.enqueue(wire.JOB_FUNCTION, signing.signed({"kind": "watch"}, SISTER, CLUSTER, NODE, "mine"), job_id="mine")
    child = worker.child("watch")
    assert child is not None
    child.terminate()  # its window would last a minute: the next child takes what is queued
    wait_until(lambda: len(node.inbox("CommandRefused")) == 2, "both refusals")
    assert [(one.data["job_id"], one.data["reason"]) for one in node.inbox("CommandRefused")] == [
        (forged.id, "bad-signature"),
        ("mine", "bad-signature"),
    ]


# --- where keys come from -----------------------------------------------------------------------------------------------------------------


def configuration(redis: dict[str, str], **more: Any) -> Configuration:
    services = [{"name": "server", "kind": "server"}]
    table = {"name": NODE, "cluster": CLUSTER, "folder": "/x", "services": {"server": {"command": ["c"], "status": ["s"]}}}
    clusters = {CLUSTER: {"group": "g", "nodes": [NODE, "n2"], "services": services}}
    table |= more.pop("node", {})
    return Configuration.model_validate({"redis": redis, "clusters": clusters, "node": table, **more})


def fits(ring: Keyring, key: str) -> bool:
    return ring.objection(signing.signed(VERDICT, key, CLUSTER, NODE, "id"), "id") is None


def test_an_embedded_redis_has_its_key_by_itself(tmp_path: Path) -> None:
    """Made once, for its owner alone; orchestrator and node of that machine agree without a setting. Before, nothing is signed."""
    folder = tmp_path / "データ 1"
    one = configuration({"embedded": str(folder)})
    assert one.node is not None
    ring = Keyring(one, one.node)
    ring.load()
    assert ring.is_named and not ring.is_known
    assert ring.objection(VERDICT, "id") is None
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: json.dumps(keys.cluster_keys(one)), range(8)))
    assert len(made) == 1
    key = keys.cluster_keys(one)[CLUSTER]
    assert stat.S_IMODE((folder / "job.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["job.key"]
    assert ring.is_known
    assert fits(ring, signing.node_key(key, CLUSTER, NODE)) and not fits(ring, key)
    payload = ring.signed(VERDICT, "id")
    assert ring.objection(payload, "id") is None
    assert ring.objection(VERDICT, "id") == "it is not signed"


def test_keys_come_from_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's own before the cluster's; the first line of the cluster's file signs."""
    (tmp_path / "cluster").write_text(f"{OTHER_KEY}\n{CLUSTER_KEY}\n")
    monkeypatch.setenv("DCSUP_TEST_KEY", KEY)
    url = {"url": "redis://localhost"}
    one = configuration(url, keys={CLUSTER: {"file": str(tmp_path / "cluster")}})
    assert keys.cluster_keys(one) == {CLUSTER: OTHER_KEY}
    assert one.node is not None
    both = Keyring(one, one.node)
    assert fits(both, KEY) and fits(both, signing.node_key(OTHER_KEY, CLUSTER, NODE)) and not fits(both, SISTER)
    own = configuration(url, keys={CLUSTER: {"file": str(tmp_path / "none")}}, node={"key": {"env": "DCSUP_TEST_KEY"}})
    assert own.node is not None
    assert fits(Keyring(own, own.node), KEY)
    assert keys.cluster_keys(configuration(url)) == {}


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), ("", "empty"), ("short-CANARY", "at least 32"), ("é", "UTF-8")])
def test_a_key_that_cannot_be_used_is_told_with_its_place(dcsup: Dcsup, tmp_path: Path, content: str | None, words: str) -> None:
    """Orchestrator and worker do not start: exit code 2, one line with setting, file and remedy, and nothing of what stands in it."""
    path, config = tmp_path / "k.key", tmp_path / "dcsup.toml"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    head = '[redis]\nurl = "unix:///nowhere.sock"\n[orchestrator]\nlisten = "127.0.0.1:0"\n[clusters.c1]\ngroup = "g"\nnodes = ["n1"]\n'
    service = '[[clusters.c1.services]]\nname = "server"\nkind = "server"\n'
    config.write_text(f'{head}{service}[keys.c1]\nfile = "{path}"\n')
    answer = dcsup("orchestrator", "--config", config)
    assert answer.code == 2
    table = f'[node]\nname = "n1"\ncluster = "c1"\nfolder = "{tmp_path}/node"\nkey = {{ file = "{path}" }}\n'
    config.write_text(f'{head}{service}{table}[node.services.server]\ncommand = ["c"]\nstatus = ["s"]\n')
    worker = dcsup("worker", "--config", config)
    assert worker.code == 2
    for said, setting in ((answer.err, "keys.c1"), (worker.err, "node.key")):
        assert words in said and str(path) in said and setting in said, said
        assert "CANARY" not in said and "Traceback" not in said
        assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("lines", "line", "where", "words"),
    [
        ('[keys.other]\nfile = "k"\n', 11, "keys.other", "there is no cluster 'other'"),
        ('[keys.c1]\nfile = "k"\nenv = "K"\n', 11, "keys.c1", "set either file or env"),
        ("[keys.c1]\n", 11, "keys.c1", "set either file or env"),
        ('[keys]\nc1 = "CANARY-0123456789abcdef0123456789abcdef"\n', 12, "keys.c1", "a table"),
        ('[keys.c1]\nfile = ["CANARY"]\n', 12, "keys.c1.file", "a text"),
    ],
)
def test_mistakes_around_keys_are_told_with_their_line(tmp_path: Path, lines: str, line: int, where: str, words: str) -> None:
    """A cluster that is not there, two places or none; a key that somebody wrote into dcsup.toml itself is not shown."""
    head = '[redis]\nurl = "redis://localhost"\n[clusters.c1]\ngroup = "g"\nnodes = ["n1"]\n\n[[clusters.c1.services]]\n'
    (tmp_path / "dcsup.toml").write_text(f'{head}name = "server"\nkind = "server"\n\n{lines}')
    with pytest.raises(ConfigurationError) as told:
        load(tmp_path / "dcsup.toml")
    [mistake] = told.value.mistakes
    assert (mistake.line, mistake.where) == (line, where)
    assert words in str(mistake.expected) and "CANARY" not in str(mistake)


def test_an_orchestrator_says_which_jobs_it_does_not_sign() -> None:
    """One warning for each cluster without a key, with what to do; it leads them all the same."""
    url = {"url": "redis://localhost"}
    with capture_logs() as said:
        assert app._keys(configuration(url)) == {}
    [warning] = said
    assert (warning["log_level"], warning["cluster"]) == ("warning", CLUSTER)
    assert "dcsup render redis" in warning["event"]


def test_a_key_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A data folder that is a file: said with its name."""
    (tmp_path / "file").touch()
    with pytest.raises(SecretError, match="cannot be made"):
        keys.make_key(tmp_path / "file" / "data")
