"""A crash at each write on a node: launcher, reaper, verdict, hook, clearing away, outbox and forwarder.

Each is run by its real code on a disk in memory, ends before and behind each change that it makes (and, where a flush is what counts, by
a power cut that takes back what was not flushed), and is followed by what comes after such an end in life: the reaper, the same job
again, the script's plain sequence, a forwarder started anew. What must hold then is asked of the world, not of the code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.memory_store import MemoryRedis, MemoryStore
from statemachines import wire
from tests.orchestrator.engine import C, orchestrator_on, turn_until
from tests.worlds import script
from tests.worlds.crashing import crashes
from tests.worlds.installing import BOOT, NODE, Installed, installed
from tests.worlds.script import COMMANDS, TICKETS
from workers import files, journal, launcher, outbox, processes, reaper, tickets
from workers.forwarder import Forwarder
from workers.hooks import calls
from workers.hooks.common import Options
from workers.hooks.start import StartCall

START = TICKETS[0]
FOLDER, JOURNAL = NODE / "tickets", NODE / "journal"


class Silent:
    """A log that nobody reads."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Site:
    """What happened outside: which verbs were run, and for which command."""

    def __init__(self) -> None:
        self.verbs: list[int] = []
        self.recorded = False
        """The launcher went on behind writing its end."""


class Launcher(launcher.Launcher):
    """The real one; its verb is a line in the site's record."""

    def __init__(self, spec: launcher.Spec, site: Site) -> None:
        super().__init__(spec)
        self._site = site

    def _ask(self, question: list[str]) -> int | None:
        return 1

    def _run_verb(self) -> launcher.Result:
        self._site.verbs.append(self.spec.n)
        return launcher.Result("ok", ran=True, code=0)

    def _tell_end(self, result: launcher.Result) -> None:
        self._site.recorded = True
        super()._tell_end(result)


@pytest.fixture
def world() -> Iterator[Installed]:
    """A node on which nobody lives but whoever is asked to do something."""
    with installed() as found, pytest.MonkeyPatch.context() as patches:
        patches.setattr(processes, "group_alive", lambda _pid, _birth: False)
        patches.setattr(processes, "alive", lambda _pid, _birth: True)
        patches.setattr(processes, "born", lambda pid: f"b{pid}")
        yield found


def lay_ticket(world: Installed) -> None:
    """A start script's ticket, alive and open; nothing else."""
    world.disk.restore(world.empty)
    (FOLDER / f"{START}.open").write_text(files.to_text(script.ticket_fields(0)))
    (FOLDER / f"{START}.alive").write_text("1\n")


def perform(site: Site, n: int = 1) -> str:
    """A job of command n arrives."""
    command = COMMANDS[0][n - 1]
    spec = launcher.Spec("/n", START, n, command.service, command.verb, BOOT, ["run"], ["ask"], 300.0)
    try:
        return Launcher(spec, site).run().state
    except launcher.Refusal as refusal:
        return refusal.reason


def state() -> str:
    """The ticket's one state."""
    found = [one for one in tickets.listing(NODE) if one.id == START]
    assert len(found) == 1, [str(one.path) for one in found]
    return found[0].state


def no_half_file() -> None:
    """Whatever stands under a name of its own is whole: every writer's last line is there."""
    for path in [*JOURNAL.iterdir(), *FOLDER.iterdir()]:
        if path.name.startswith(files.ASIDE) or path.name.endswith((".live", ".alive")):
            continue
        text = path.read_text()
        assert text.endswith("\n"), path
        fields = files.from_text(text)
        assert "reason" in fields if path.suffix in (".ok", ".lost", ".verdict") else fields, path


def told_ends() -> set[str]:
    """Which ends of command 1 the node's facts tell."""
    facts = [
        json.loads(path.read_text())
        for path in (NODE / "outbox").iterdir()
        if path.suffix == ".fact" and not path.name.startswith(files.ASIDE)
    ]
    whole = [fact["data"] for fact in facts if fact["type"] == "CommandEnded"]
    return {data["result"] for data in whole if (data["n"], data["service"], data["verb"]) == (1, "agent", "start")}


def plain_sequence(site: Site) -> None:
    """The script takes the ticket and goes on from where the journal stands; as script.py, in one go, with every process gone."""
    found = script.state_of(START)
    assert found is not None
    if found.state.startswith("busy-"):
        script.record_lost(START, found.n)
    assert found.state == "script" or script.rename_ticket(found, "script")
    for command in COMMANDS[0]:
        if script.journal_of(START, command.n) in ("", "start", "lost"):
            site.verbs.append(command.n)
            script.record(START, command.n, "ok", 21, reason="")


# --- launcher, reaper


def _reap() -> None:
    reaper.reap(NODE, BOOT)


def _ends_of_the_reaper(world: Installed) -> Iterator[None]:
    """The reaper dies at each of its writes in turn, and the next one comes; the last time it lives."""
    left = world.disk.snapshot()
    for _ in crashes(world.disk, lambda: world.disk.restore(left), _reap):
        yield
    world.disk.restore(left)
    yield


def test_a_launcher_that_ends_at_any_write_leaves_its_verb_run_once(world: Installed, record_property: Any) -> None:
    """N2, N3, N5, I7: whatever it left, and wherever the reaper behind it ends too, the same job runs nothing a second time; then the
    script goes on, and runs again only what the journal calls lost. Nobody ever sees half a file."""
    site, tried = Site(), 0

    def begin() -> None:
        site.verbs.clear()
        lay_ticket(world)

    for crash in crashes(world.disk, begin, lambda: perform(site)):
        ran = site.verbs.copy()
        for _ in _ends_of_the_reaper(world):
            tried += 1
            site.verbs[:] = ran
            _judge_launcher(site, f"launcher {crash}")
    record_property("crash points of launcher and reaper", tried)
    assert tried > 100


def _judge_launcher(site: Site, about: str) -> None:
    no_half_file()
    perform(site)
    _reap()
    no_half_file()
    assert state() in ("open", "worker"), about
    entry = journal.read(NODE, START, 1)
    assert entry is None or entry.state in told_ends(), f"{about}: nobody tells that the command ended"
    perform(site)
    assert site.verbs.count(1) <= 1, f"{about}: the worker ran it again"
    plain_sequence(site)
    again = site.verbs.count(1) - 1
    assert again == 0 or (again == 1 and journal.path_of(NODE, START, 1, "lost").exists()), about
    assert state() == "script", about


def test_a_power_cut_at_any_write_of_a_launcher_forgets_no_verb(world: Installed, record_property: Any) -> None:
    """N4, N5: if the verb ran, the journal says at least that it began; what was recorded as its end stays; and after the boot nobody
    claims the old ticket, whatever its name is."""
    site, tried = Site(), 0

    def begin() -> None:
        nonlocal site
        site = Site()
        lay_ticket(world)

    for crash in crashes(world.disk, begin, lambda: perform(site), power=True):
        tried += 1
        no_half_file()
        entry = journal.read(NODE, START, 1)
        assert not site.verbs or entry is not None, crash
        assert not site.recorded or (entry is not None and entry.state == "ok"), crash
        reaper.reap(NODE, "boot2")
        assert state() in ("open", "worker"), crash
        spec = launcher.Spec("/n", START, 1, "agent", "start", "boot2", ["run"], ["ask"], 300.0)
        with pytest.raises(launcher.Refusal):
            Launcher(spec, site).run()
    record_property("crash points of a launcher, power cut", tried)
    assert tried > 50


# --- verdict, hook, clearing away


def test_a_verdict_is_there_whole_or_not_at_all(world: Installed) -> None:
    """N9: wherever the job ends, the hook reads 40 or nothing, and the ticket is as it was; the job again puts it."""
    for crash in crashes(world.disk, lambda: lay_ticket(world), lambda: tickets.write_verdict(NODE, START, 40, "no"), power=True):
        no_half_file()
        assert tickets.read_verdict(NODE, START) in (None, tickets.Verdict(40, "no")), crash
        assert state() == "open"
        assert tickets.write_verdict(NODE, START, 40, "no")
        assert tickets.read_verdict(NODE, START) == tickets.Verdict(40, "no")


def test_a_hook_that_ends_at_any_write_leaves_the_call_to_the_script(world: Installed) -> None:
    """N1, N8: the ticket is the script's; the hook leaves a whole fact or none, and the plain sequence runs every command once."""
    options = Options(["--folder", "/n", "--ticket", START, "--ack-timeout", "4", "--parent", "10"], calls.OPTIONS)

    def call() -> None:
        world.clock.on_sleep = lambda: setattr(world.clock, "mono_s", world.clock.mono_s + 1)
        assert StartCall(options).run()[0] == 75

    for crash in crashes(world.disk, lambda: lay_ticket(world), call):
        facts = [path.read_text() for path in (NODE / "outbox").iterdir() if not path.name.startswith(files.ASIDE)]
        assert [json.loads(fact)["type"] for fact in facts] in ([], ["StartHookCalled"]), crash
        site = Site()
        plain_sequence(site)
        assert site.verbs == [1, 2], crash


def test_clearing_away_ends_at_any_write_and_never_opens_a_ticket_again(world: Installed) -> None:
    """N5: a journal never goes while its ticket could be claimed, and what was left is cleared away the next time."""

    def begin() -> None:
        lay_ticket(world)
        script.rename_ticket(script.Found(START, "open"), "done")
        script.record(START, 1, "ok", 21, reason="")
        (FOLDER / f"{START}.verdict").write_text("code=40\nreason=\n")

    for crash in crashes(world.disk, begin, lambda: tickets.prune(NODE, keep=0)):
        site = Site()
        assert perform(site) == "no-ticket", crash
        assert site.verbs == []
        tickets.prune(NODE, keep=0)
        assert [*FOLDER.iterdir()] == [*JOURNAL.iterdir()] == [], crash


# --- outbox, numbering, handing in, mark, head


class Line:
    """What the forwarder needs of redis-py's client, on the server in memory."""

    def __init__(self, server: MemoryRedis) -> None:
        self._server = server
        self._commands: list[Callable[[], Any]] = []

    def time(self) -> tuple[int, int]:
        return self._server.clock_ms // 1000, self._server.clock_ms % 1000 * 1000

    def get(self, key: str) -> bytes | None:
        return self._server.get(key)

    def xrevrange(self, key: str, count: int) -> list[tuple[str, dict[bytes, bytes]]]:
        entries = self._server.streams[key][-count:]
        return [(entry_id, {name.encode(): value for name, value in fields.items()}) for entry_id, fields in reversed(entries)]

    def pipeline(self, *, transaction: bool) -> Line:
        return Line(self._server)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left behind."""

    def xadd(self, key: str, fields: dict[str, str]) -> None:
        self._commands.append(lambda: self._server.xadd(key, fields))

    def publish(self, _channel: str, _message: str) -> None:
        self._commands.append(lambda: 1)

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        return [command() for command in self._commands]


class Producer:
    """A node whose processes write facts, its forwarder, and the orchestrator that takes them in."""

    def __init__(self, world: Installed) -> None:
        self._world = world
        world.disk.restore(world.empty)
        self.server = MemoryRedis()
        self.orchestrator = orchestrator_on(MemoryStore(self.server))
        turn_until(self.orchestrator, self.orchestrator.views)
        self.written: list[str] = []
        """Facts whose writer was told that they are on the disk."""

    def write(self, *names: str) -> None:
        for name in names:
            outbox.write_fact(NODE, "ProbeFailed", "probe", {"service": "srv", "reason": name}, BOOT)
            self.written.append(name)

    def forward(self, rounds: int = 4) -> None:
        """A forwarder begins, and does what is due."""
        one = Forwarder(NODE, C, "n1", BOOT, Line(self.server), Silent())  # type: ignore[arg-type]
        for _ in range(rounds):
            one.step(at_once=True)
            self.orchestrator.turn()
            self._world.clock.mono_s += 1

    def everything(self) -> None:
        self.write("r1", "r2", "r3")
        self.forward()
        self.write("r4", "r5")
        self.forward()

    def logged(self) -> list[dict[str, Any]]:
        stored = [json.loads(fields["e"]) for _, fields in self.server.streams[wire.log(C)]]
        return [entry for entry in stored if entry["type"] in ("ProbeFailed", "FactsDropped")]

    def numbers(self) -> list[int]:
        """The last number that was taken of each of the node's streams; a stream's numbers are taken one by one, or not at all."""
        return [*self.orchestrator.views()[C].state.sources.get("n1", {}).values()]


@pytest.mark.parametrize("power", [False, True], ids=["process ended", "power cut"])
def test_a_forwarder_that_ends_at_any_write_loses_and_doubles_no_fact(world: Installed, power: bool, record_property: Any) -> None:
    """I5: whatever was on the disk is in the log once, in the order of its numbers, which are consecutive; half a fact is never taken."""
    producer, tried = Producer(world), 0

    def begin() -> None:
        nonlocal producer
        producer = Producer(world)

    for crash in crashes(world.disk, begin, lambda: producer.everything(), power=power):
        tried += 1
        producer.forward(8)
        names = Counter(entry["data"].get("reason", entry["type"]) for entry in producer.logged())
        assert set(producer.written) <= set(names), crash
        assert (set(names.values()) == {1} and "FactsDropped" not in names) or not names, crash
        assert sum(producer.numbers()) == len(names), crash
        assert [*(NODE / "outbox" / "damaged").iterdir()] == [], crash
    record_property(f"crash points of outbox and forwarder, {'power cut' if power else 'process ended'}", tried)
    assert tried > 50
