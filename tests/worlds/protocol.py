"""NODE.md's protocol on one node, explored to the end: who acts, what may befall them, and what must never be so.

CLUSTERPRO calls a start, a stop and a start again. What acts meanwhile:

    script    modelled operation by operation (script.py), with the nested shell of its plain sequence
    hook      the real workers.hooks Call.run; one look of it is one step, and so is the look after which it has waited too long
    launcher  the real workers.launcher.Launcher.run, stopped before each change that it makes (replay.py)
    worker    takes a job and starts a launcher for it; with it the real reaper.reap and tickets.write_verdict
    orchestrator  issues the commands of a ticket whose hook told of it, one when the one before has ended well

A state (`World`) is the disk's image with all that stands beside it; each is gone on from once. Equal steps from equal disks are taken
once and remembered: some thousand steps of real code make all the states.

Faults befall the world as often as its budget says (`FAULTS`). It is up to `exploring.py` to go everywhere, and `promises.py` says what
must never be so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.simulation.disk import File, Image
from tests.worlds import promises, replay, script
from tests.worlds.installing import BOOT, LEFT_OUT, MONO_S, NODE, SCRIPTS, WALL_S, Installed
from tests.worlds.replay import Local, act, now
from tests.worlds.script import COMMANDS, KINDS, TICKETS
from tests.worlds.world import FAULTS, Verb, World
from workers import files, launcher, reaper, statuses, tickets
from workers.hooks import calls
from workers.hooks.calls import Call
from workers.hooks.common import Options
from workers.hooks.start import StartCall
from workers.hooks.stop import StopCall

NAMES = (*FAULTS,)
ALIVE_AGO_S = 10.0
WAITED_S = 10.0
"""Longer than the hook's ack time-out and its patience without progress."""

LAUNCHERS = 100
"""Process ids: 100 and above are launchers; the others are named here."""
NESTED, WORKER, REAPER, VERDICT = 20, 4, 5, 6
HOOK_OPTIONS = ("--folder", "/n", "--ack-timeout", "4", "--limit", "600", "--command-limit", "300", "--poll-limit", "30")


def script_pid(call: int) -> int:
    return SCRIPTS[0] + call


def nested_pid(call: int, n: int) -> int:
    return NESTED + 10 * call + n


class View(NamedTuple):
    """What a step may see beside the disk."""

    alive: frozenset[int]
    agent: bool
    server: bool
    verb: str = ""
    hook: str = ""
    child: str = ""
    may_be_slow: bool = False


class Move(NamedTuple):
    """From one state to the next."""

    said: str
    world: World
    own: bool
    """Nobody but script, hook or a running command is needed for it."""
    broken: tuple[str, ...] = ()


ENDED = -1


class Taken(NamedTuple):
    """A step of real code, as it is remembered."""

    said: str
    program: str
    place: int
    """Where the process stands now; `ENDED`."""
    value: Any
    effects: tuple[replay.Effect, ...]
    image: int
    broken: tuple[str, ...]


class SimLauncher(launcher.Launcher):
    """The real one, but for the site's own commands."""

    def _ask(self, question: list[str]) -> int | None:
        return act("look", lambda: 0 if getattr(now().view, question[0]) else 1)

    def _run_verb(self) -> launcher.Result:
        call = TICKETS.index(self.spec.ticket)
        act("change", lambda: script.tell("spawn", call, self.spec.n, "w", self.pid))
        now().wait_until(now().view.verb in ("ok", "fail"))
        ended = act("look", lambda: now().view.verb)
        return launcher.Result("ok" if ended == "ok" else "fail", ran=True, code=0 if ended == "ok" else 1)


def run_launcher(call: int, n: int, _pid: int) -> str:
    command = COMMANDS[call][n - 1]
    agent = {"service": "agent", "status": ["agent"]} if command.service == "server" and KINDS[call] == "start" else None
    spec = launcher.Spec("/n", TICKETS[call], n, command.service, command.verb, BOOT, [command.verb], [command.service], 300.0, agent=agent)
    one = SimLauncher(spec)
    if "N3" in LEFT_OUT:
        one.pid = WORKER
    try:
        return one.run().state
    except launcher.Refusal as refusal:
        return f"refused: {refusal.reason}"


def run_reaper() -> str:
    return str(len(reaper.reap(NODE, BOOT)))


def put_verdict(call: int, code: int) -> str:
    return str(tickets.write_verdict(NODE, TICKETS[call], code, "gives up"))


PROGRAMS: dict[str, Callable[..., Any]] = {**script.PROGRAMS, "launcher": run_launcher, "reaper": run_reaper, "verdict": put_verdict}


def _write_statuses(call: int, view: View, names: frozenset[str]) -> None:
    """What the watch has just seen, as it tells it."""
    for command in COMMANDS[call]:
        up = bool(getattr(view, command.service)) if KINDS[call] == "start" else view.agent or view.server
        mine = TICKETS[call] if up and f"journal/{TICKETS[call]}.{command.n}.ok" in names else ""
        said = {"boot": BOOT, "status": "healthy" if up else "unhealthy", "verified": int(up), "ticket": mine, "polling": 0}
        files.write_aside(statuses.path_of(NODE, command.service), files.to_text({**said, "mono_started": MONO_S + 1, "mono": MONO_S + 2}))


class _Napped(BaseException):
    """The hook has looked, and sleeps until the next time."""


def _with(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _put(processes: tuple[tuple[int, int], ...], pid: int, place: int) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((*(one for one in processes if one[0] != pid), (pid, place))))


def _without(world: World, pid: int, *, keep_verb: bool) -> World:
    """A process is gone; with what it waits for, or not."""
    processes = tuple(one for one in world.processes if one[0] != pid)
    verbs = world.verbs if keep_verb else tuple(verb for verb in world.verbs if verb.pid != pid)
    worker = 0 if world.worker == pid else world.worker  # it hears of it; when, makes no difference
    return world._replace(processes=processes, verbs=verbs, worker=worker)


def _alive(world: World) -> frozenset[int]:
    workers = [WORKER] if world.worker >= 0 else []
    return frozenset([*workers, *(pid for pid, _ in world.processes), *(verb.pid for verb in world.verbs if verb.status == "runs")])


def _pids_on(contents: dict[str, bytes]) -> frozenset[int]:
    """Every process that a ticket or the journal names."""
    busy = (int(path.rsplit("-", 2)[1]) for path in contents if ".busy-" in path)
    journalled = (
        files.to_int(files.from_text(content.decode()).get("pid")) for path, content in contents.items() if path.endswith(".start")
    )
    return frozenset([*busy, *(pid for pid in journalled if pid is not None)])


class Search:
    """Everything that can come of a budget of faults."""

    def __init__(self, installed: Installed, *, calls_max: int = 2, fine: bool = False) -> None:
        """`calls_max`: the last call that CLUSTERPRO makes (2: a start, a stop, a start)."""
        self.installed, self.calls_max, self.fine = installed, calls_max, fine
        self.disk, self.steps = installed.disk, 0
        self._images: dict[Image, int] = {}
        self._contents: list[dict[str, bytes]] = []
        self._names: list[frozenset[str]] = []
        self._named: list[frozenset[int]] = []
        """Processes that are named on the disk: only after those anybody asks."""
        self._places: dict[tuple[replay.Label, str], int] = {}
        self._locals: list[Local] = []
        self._memory: dict[tuple[Any, ...], Any] = {}
        installed.disk.restore(installed.empty)
        self.nothing = self._image()

    # --- numbers for what is large

    def _image(self) -> int:
        """The number of what is on the disk now; facts and times are no part of it."""
        kept = {path: file.content for path, file in self.disk.files.items() if not path.startswith(("/n/outbox/", "/n/watch/"))}
        kept = {path: b"" if path.endswith(".alive") else content for path, content in kept.items() if not path.endswith(".live")}
        key: Image = frozenset(kept.items())
        if key not in self._images:
            self._images[key] = len(self._contents)
            self._contents.append(kept)
            self._names.append(frozenset(path.removeprefix("/n/") for path in kept))
            self._named.append(_pids_on(kept))
        return self._images[key]

    def _restore(self, image: int, stale: tuple[bool, ...]) -> None:
        old = {f"/n/tickets/{ticket}.alive" for ticket, is_stale in zip(TICKETS, stale, strict=True) if is_stale}
        folders = self.installed.empty[1]
        made = {path: File(content, WALL_S - ALIVE_AGO_S * (path in old)) for path, content in self._contents[image].items()}
        self.disk.restore((made, folders))

    def _place(self, local: Local) -> int:
        key = local.label, repr(local.log)
        if key not in self._places:
            self._places[key] = len(self._locals)
            self._locals.append(local)
        return self._places[key]

    def names(self, image: int) -> frozenset[str]:
        """What is on the disk: tickets/<name> and journal/<name>."""
        return self._names[image]

    # --- steps of real code, each taken once

    def _steps(self, world: World, pid: int, place: int) -> list[Taken]:
        view = self._view(world, pid)
        key = (pid, place, world.image, world.stale, view)
        if key not in self._memory:
            self._memory[key] = self._take(world, pid, place, view)
        found: list[Taken] = self._memory[key]
        return found

    def _take(self, world: World, pid: int, place: int, view: View) -> list[Taken]:
        self.steps += 1
        self.installed.pid = pid
        local = self._locals[place]
        found = replay.steps(local, view, PROGRAMS, lambda: self._restore(world.image, world.stale), self._image, fine=self.fine)
        return [self._taken(world, pid, local.label, outcome, image) for outcome, image in found]

    def _taken(self, world: World, pid: int, label: replay.Label, outcome: replay.Outcome, image: int) -> Taken:
        whither = f"ends: {outcome.value}" if outcome.local is None else f"-> {outcome.local.label[0]}"
        said = f"{pid} {' '.join(map(str, label[:2]))} {whither} {' '.join(map(str, outcome.effects))}".rstrip()
        place = ENDED if outcome.local is None else self._place(outcome.local)
        broken = (*promises.on_disk(self.names(world.image), self.names(image)),)
        return Taken(said, label[0], place, outcome.value, outcome.effects, image, broken)

    def _view(self, world: World, pid: int) -> View:
        named = self._named[world.image]
        alive = _alive(world) & named if named else named
        verb = next((verb.status for verb in world.verbs if verb.pid == pid), "")
        if pid in SCRIPTS:
            call, may_be_slow = pid - SCRIPTS[0], world.budget[NAMES.index("limit")] > 0
            return View(alive, world.agent, world.server, verb, world.hooks[call], world.children[call], may_be_slow)
        return View(alive, world.agent, world.server, verb)

    def _hook(self, world: World, call: int, *, patient: bool) -> tuple[str, int]:
        """One look of the hook (with the beginning of its run before it); not `patient`: nothing has happened for as long as it waits."""
        view = View(_alive(world) & self._named[world.image] | _alive(world) & {script_pid(call)}, world.agent, world.server)
        key = ("hook", call, patient, world.image, world.stale, view)
        if key not in self._memory:
            self._restore(world.image, world.stale)
            self._memory[key] = self._look(call, view, self.names(world.image), patient=patient), self._image()
            self.steps += 1
        found: tuple[str, int] = self._memory[key]
        return found

    def _look(self, call: int, view: View, names: frozenset[str], *, patient: bool) -> str:
        """Its exit code, or "waits"."""
        clock, sleeps = self.installed.clock, 0

        def on_sleep() -> None:
            nonlocal sleeps
            sleeps += 1
            if patient or sleeps > 1:
                raise _Napped
            clock.mono_s += WAITED_S

        if "N1" in LEFT_OUT and tickets.find(NODE, TICKETS[call]) is None:
            (NODE / "tickets" / f"{TICKETS[call]}.open").write_text(files.to_text(script.ticket_fields(call)))
        if patient:
            _write_statuses(call, view, names)
        clock.mono_s, clock.on_sleep = MONO_S + 3, on_sleep
        ways = ("--ticket", TICKETS[call], "--parent", str(script_pid(call)))
        try:
            with replay.looking(view):
                kind: type[Call] = StartCall if KINDS[call] == "start" else StopCall
                return str(kind(Options([*HOOK_OPTIONS, *ways], calls.OPTIONS)).run()[0])
        except _Napped:
            return "waits"
        finally:
            clock.mono_s, clock.on_sleep = MONO_S, lambda: None

    # --- beginnings

    def begin(self, call: int) -> World:
        """CLUSTERPRO makes this call, on the disk as it stands."""
        world = World(self._image(), call=call)
        return self._begin(world._replace(scripts=_with(world.scripts, call, "on")), script_pid(call), "clear_ground", call)

    def altered(self, world: World, act: Callable[[], None]) -> World:
        """The same, behind what `act` does to the disk."""
        self._restore(world.image, world.stale)
        act()
        return world._replace(image=self._image())

    # --- who may act

    def moves(self, world: World) -> Iterator[Move]:
        """Whatever can happen next."""
        yield from self._of_clusterpro(world)
        for call in range(self.calls_max + 1):
            yield from self._of_hook(world, call)
        for pid, place in world.processes:
            yield from self._of_process(world, pid, place)
        yield from self._of_verbs(world)
        yield from self._of_worker(world)
        yield from self._of_faults(world)

    def _of_clusterpro(self, world: World) -> Iterator[Move]:
        call = world.call
        if call < self.calls_max and (call < 0 or world.scripts[call] != "on"):
            begun = world._replace(call=call + 1, scripts=_with(world.scripts, call + 1, "on"))
            yield Move(
                f"CLUSTERPRO calls {KINDS[call + 1]} {call + 1}", self._begin(begun, script_pid(call + 1), "clear_ground", call + 1), True
            )
        for gone in range(call + 1):
            if not world.stale[gone] and world.scripts[gone] != "on" and f"tickets/{TICKETS[gone]}.alive" in self.names(world.image):
                yield Move(f"2 s pass after script {gone}", world._replace(stale=_with(world.stale, gone, True)), False)

    def _begin(self, world: World, pid: int, *label: Any) -> World:
        return world._replace(processes=_put(world.processes, pid, self._place(Local(label))))

    # hooks

    def _of_hook(self, world: World, call: int) -> Iterator[Move]:
        state = world.hooks[call]
        if state in ("new", "waits", "late"):
            yield self._hook_looks(world, call, patient=True)
        if state == "waits":
            yield self._hook_looks(world, call, patient=False)

    def _hook_looks(self, world: World, call: int, *, patient: bool) -> Move:
        state = world.hooks[call]
        code, image = self._hook(world, call, patient=patient)
        ended = state == "late" or (world.scripts[call] != "on" and code != "waits")  # nobody waits for what it says
        after = world._replace(
            image=image, hooks=_with(world.hooks, call, "-" if ended else code), told=_with(world.told, call, True),
            stale=_with(world.stale, call, False) if patient else world.stale,
        )  # fmt: skip
        return Move(f"hook {call} {'looks' if patient else 'has waited'}: {code}", after, True)

    # processes that are kept as answers

    def _of_process(self, world: World, pid: int, place: int) -> Iterator[Move]:
        for taken in self._steps(world, pid, place):
            if taken.place == ENDED:
                after = self._ended(world._replace(image=taken.image), pid, taken)
            else:
                after = world._replace(image=taken.image, processes=_put(world.processes, pid, taken.place))
            broken = [*taken.broken]
            for effect in taken.effects:
                after = self._apply(after, effect, broken)
            if taken.place == ENDED and pid in SCRIPTS:
                broken.extend(promises.at_return(after, pid - SCRIPTS[0]))
            yield Move(taken.said, after, pid >= SCRIPTS[0], (*broken,))

    def _ended(self, world: World, pid: int, taken: Taken) -> World:
        after = _without(world, pid, keep_verb=False)
        if pid in SCRIPTS:
            return after._replace(scripts=_with(after.scripts, pid - SCRIPTS[0], "returned"))
        if taken.program == "run_nested":
            return after._replace(children=_with(after.children, (pid - NESTED) // 10, taken.value))
        return after

    def _apply(self, world: World, effect: replay.Effect, broken: list[str]) -> World:
        """What a step did beside the disk."""
        what, about = effect[0], effect[1]
        if what == "kill":
            return self._killed(world, about)
        if what == "hook":
            return world._replace(hooks=_with(world.hooks, about, "new"))
        if what == "hook ended":
            return world._replace(hooks=_with(world.hooks, about, "late" if world.hooks[about] == "hung" else "-"))
        if what == "fresh":
            return world._replace(stale=_with(world.stale, about, False))
        if what == "spend":
            return self._spend(world, about)
        if what == "nested seen":
            return world._replace(children=_with(world.children, about, ""))
        if what == "nested":
            call, n = effect[1:]
            pid = nested_pid(call, n)
            return self._begin(world._replace(children=_with(world.children, call, "runs")), pid, "run_nested", call, n, pid)
        return self._spawn(world, Verb(effect[4], effect[1], effect[2], effect[3], "runs"), broken)

    def _killed(self, world: World, pid: int) -> World:
        """A group is gone."""
        after = _without(world, pid, keep_verb=False)
        for call, child in enumerate(after.children):
            if child == "runs" and pid in (nested_pid(call, 1), nested_pid(call, 2)):
                after = after._replace(children=_with(after.children, call, "gone"))
        return after

    def _spend(self, world: World, fault: str) -> World:
        at = NAMES.index(fault)
        return world._replace(budget=_with(world.budget, at, world.budget[at] - 1))

    def _has(self, world: World, fault: str) -> bool:
        return world.budget[NAMES.index(fault)] > 0

    # verbs

    def _spawn(self, world: World, verb: Verb, broken: list[str]) -> World:
        broken.extend(promises.at_spawn(world, verb, self.names(world.image)))
        return world._replace(verbs=tuple(sorted((*world.verbs, verb))))

    def _of_verbs(self, world: World) -> Iterator[Move]:
        for verb in world.verbs:
            if verb.status != "runs":
                continue
            said = f"{KINDS[verb.call]} verb {verb.call}.{verb.n} of {verb.by} ends"
            yield Move(f"{said} ok", self._end_verb(world, verb, "ok"), True, (*promises.at_end(world, verb),))
            if self._has(world, "fail"):
                yield Move(f"{said}: failed", self._end_verb(self._spend(world, "fail"), verb, "fail"), False)

    def _end_verb(self, world: World, verb: Verb, status: str) -> World:
        others = tuple(one for one in world.verbs if one != verb)
        waited_for = any(pid == verb.pid for pid, _ in world.processes)
        after = world._replace(verbs=tuple(sorted((*others, verb._replace(status=status)))) if waited_for else others)
        if status != "ok":
            return after
        if KINDS[verb.call] == "stop":
            return after._replace(agent=False, server=False)
        service = COMMANDS[verb.call][verb.n - 1].service
        return after._replace(agent=after.agent or service == "agent", server=after.server or service == "server")

    # orchestrator and worker

    def _of_worker(self, world: World) -> Iterator[Move]:
        if world.worker < 0:
            yield Move("the worker starts again", world._replace(worker=0), False)
            return
        if not any(pid == REAPER for pid, _ in world.processes) and any(".busy-" in name for name in self.names(world.image)):
            yield from self._begun(world, "the reaper looks", REAPER, "reaper")
        if world.worker == 0:
            for call in range(world.call + 1):
                for command in COMMANDS[call]:
                    yield from self._of_job(world, call, command.n)

    def _of_job(self, world: World, call: int, n: int) -> Iterator[Move]:
        """One job of a command: from when the orchestrator has issued it on it may come at any time, however late."""
        if not self._is_issued(world, call, n):
            if self._has(world, "forged"):
                yield from self._launch(self._spend(world, "forged"), call, n, "forged ")
        elif not world.launched[2 * call + n - 1]:
            yield from self._launch(world, call, n, "")
        else:
            for fault in ("dup", "loss"):
                if self._has(world, fault):
                    yield from self._launch(self._spend(world, fault), call, n, "again ")

    def _is_issued(self, world: World, call: int, n: int) -> bool:
        ends = ("ok",) if KINDS[call] == "start" else ("ok", "fail")
        before = any(f"journal/{TICKETS[call]}.{n - 1}.{end}" in self.names(world.image) for end in ends)
        return world.told[call] and (n == 1 or before)

    def _launch(self, world: World, call: int, n: int, more: str) -> Iterator[Move]:
        at = 2 * call + n - 1
        pid = LAUNCHERS * (call + 1) + 10 * n + world.launched[at]
        late = world.too_late | {pid} if world.stale[call] and world.scripts[call] != "on" else world.too_late
        after = world._replace(worker=pid, launched=_with(world.launched, at, world.launched[at] + 1), too_late=late)
        yield from self._begun(after, f"the worker gets a {more}job for {call}.{n}", pid, "launcher", call, n, pid)

    def _begun(self, world: World, said: str, pid: int, *label: Any) -> Iterator[Move]:
        """A process begins and takes its first step: that it waits before its first look makes no difference to anybody."""
        begun = self._begin(world, pid, *label)
        for move in self._of_process(begun, pid, self._place(Local(label))):
            yield move._replace(said=f"{said}; {move.said}")

    # --- what may befall them

    def _of_faults(self, world: World) -> Iterator[Move]:
        for fault, befall in (
            ("kill", self._kill_script), ("term", self._interrupt), ("hook", self._break_hook), ("crash", self._crash),
            ("verdict", self._give_up), ("stale", self._stand_still), ("die", self._die), ("orphan", self._orphan),
        ):  # fmt: skip
            if self._has(world, fault):
                yield from (Move(said, after, False) for said, after in befall(self._spend(world, fault)))

    def _kill_script(self, world: World) -> Iterator[tuple[str, World]]:
        call = world.call
        if call >= 0 and world.scripts[call] == "on":
            after = _without(world, script_pid(call), keep_verb=True)
            hooks = _with(world.hooks, call, "-") if world.hooks[call].isdigit() else world.hooks
            yield f"script {call} is killed", after._replace(scripts=_with(world.scripts, call, "dead"), hooks=hooks)

    def _interrupt(self, world: World) -> Iterator[tuple[str, World]]:
        """Its trap ends first what it waits for."""
        call = world.call
        if call < 0 or world.scripts[call] != "on":
            return
        place = next(place for pid, place in world.processes if pid == script_pid(call))
        label = self._locals[place].label
        after = world._replace(hooks=_with(world.hooks, call, "-" if world.hooks[call] != "hung" else "late"))
        marked = 0
        if label[0] == "wait_nested":
            marked = label[2]
            after = self._killed(after, nested_pid(call, marked))._replace(children=_with(after.children, call, ""))
        yield f"script {call} is told to end", self._begin(after, script_pid(call), "interrupted", call, marked)

    def _break_hook(self, world: World) -> Iterator[tuple[str, World]]:
        for call, state in enumerate(world.hooks):
            if state in ("new", "waits"):
                ends = ("75", "hung") if world.scripts[call] == "on" else ("-",)
                yield from ((f"hook {call} breaks: {end}", world._replace(hooks=_with(world.hooks, call, end))) for end in ends)

    def _crash(self, world: World) -> Iterator[tuple[str, World]]:
        if world.worker >= 0:
            after = _without(_without(world, REAPER, keep_verb=True), VERDICT, keep_verb=True)
            yield "the worker crashes", after._replace(worker=-1)

    def _give_up(self, world: World) -> Iterator[tuple[str, World]]:
        if world.worker < 0 or any(pid == VERDICT for pid, _ in world.processes):
            return
        for call in range(world.call + 1):
            for code in (40, 75) if world.told[call] else ():
                for move in self._begun(world, f"verdict {code} for {call}", VERDICT, "verdict", call, code):
                    yield move.said, move.world

    def _stand_still(self, world: World) -> Iterator[tuple[str, World]]:
        if world.call >= 0 and not world.stale[world.call]:
            yield "the machine stands still", world._replace(stale=_with(world.stale, world.call, True))

    def _die(self, world: World) -> Iterator[tuple[str, World]]:
        for pid, _ in world.processes:
            if pid >= LAUNCHERS:
                yield f"launcher {pid} dies with its command", _without(world, pid, keep_verb=False)

    def _orphan(self, world: World) -> Iterator[tuple[str, World]]:
        for verb in world.verbs:
            if verb.pid >= LAUNCHERS and verb.status == "runs":
                yield f"launcher {verb.pid} dies, its command runs on", _without(world, verb.pid, keep_verb=True)
