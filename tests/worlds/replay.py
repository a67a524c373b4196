"""Real code, one step at a time, from any state of a disk.

A search over all interleavings must stop a process between two of its operations, go back to an earlier state of the world, and let
somebody else act first. Python code cannot be copied in the middle. But code whose operations give the same answers does the same, so
a process is kept as the answers that it got (`Local.log`), and is run again from its beginning: with the old answers up to where it
stood, then on with the world as it is now. That is `steps`. Between two steps anybody else may act.

An operation goes through `act`:

    change  alters what others see: a step makes one, and ends before the next (whoever looked, and then acts on it, may be too late)
    minor   alters little: a step ends before it only if the search is `fine`
    look    reads: any number of them belong to a step; in a fine search a step ends before the first one behind a change
    free    nobody can tell when it is done

A program is a function of its label's words; it returns what its process ends with, or `Goto` with another label: then its answers so
far are forgotten, which is what makes a waiting loop one state and not endlessly many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Kind = Literal["change", "minor", "look", "free"]
Label = tuple[Any, ...]
Effect = tuple[Any, ...]


class Goto(NamedTuple):
    """Go on with another program."""

    label: Label


class Local(NamedTuple):
    """Where a process stands: its program, and the answers that this got."""

    label: Label
    log: tuple[Any, ...] = ()


class Outcome(NamedTuple):
    """What one step came to."""

    local: Local | None
    """Where the process stands now; None: it ended."""
    value: Any
    """What it ended with."""
    effects: tuple[Effect, ...]
    """What it did beside the disk, in order."""


class _Paused(BaseException):
    """The step is over."""


class _Blocked(BaseException):
    """What it waits for is not so."""


class _Fork(BaseException):
    """There is a choice to be made: the step is taken again with each."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count


class Step:
    """One step under way."""

    def __init__(self, local: Local, view: Any, choices: tuple[int, ...], *, fine: bool) -> None:
        self.label, self.view, self.effects = local.label, view, list[Effect]()
        self.log = [*local.log]
        self.killed: set[int] = set()
        """Processes that were ended in this step; `view` is of before."""
        self._at = 0
        self._over: BaseException | None = None
        self._choices, self._fine = [*choices], fine
        self._inside = self._moved = self._changed = False
        self._visited = {self.label} if not local.log else set[Label]()

    def act(self, kind: Kind, operation: Callable[[], T]) -> T:
        if self._over is not None:
            raise self._over  # the code's `finally` blocks are no operations of its process: it only stands still
        if self._inside:
            return operation()
        if self._at < len(self.log):
            self._at += 1
            answer: T = self.log[self._at - 1]
            return answer
        self._pause_before(kind)
        self._inside = True
        try:
            answer = operation()
        finally:
            self._inside = False
        self._moved, self._changed = self._moved or kind != "free", self._changed or kind in ("change", "minor")
        return self._note(answer)

    def _pause_before(self, kind: Kind) -> None:
        if kind == "change" and self._moved:
            raise self._end(_Paused())
        if self._fine and ((self._changed and kind == "look") or (self._moved and kind == "minor")):
            raise self._end(_Paused())

    def _end(self, how: BaseException) -> BaseException:
        self._over = how
        return how

    def _note(self, answer: T) -> T:
        self.log.append(answer)
        self._at += 1
        return answer

    def begin_inside(self) -> None:
        """No operation is told apart from now on."""
        self._inside = True

    def choose(self, count: int) -> int:
        """A number below `count`: each is tried."""
        if self._at < len(self.log):
            self._at += 1
            return int(self.log[self._at - 1])
        if not self._choices:
            raise self._end(_Fork(count))
        return self._note(self._choices.pop(0))

    def wait_until(self, condition: bool) -> None:
        """Nothing more happens in this process before it is so."""
        if self._at >= len(self.log) and not condition:
            raise self._end(_Blocked())

    def go(self, label: Label) -> None:
        """Another program: its answers begin anew. Back where it was in this very step, it waits."""
        self.label, self.log, self._at = label, [], 0
        if label in self._visited:
            raise self._end(_Paused())
        self._visited.add(label)

    def run(self, programs: dict[str, Callable[..., Any]]) -> Outcome | None:
        """Take the step; None: there is none to take."""
        try:
            while isinstance(value := programs[self.label[0]](*self.label[1:]), Goto):
                self.go(value.label)
        except _Paused:
            return Outcome(Local(self.label, (*self.log,)), None, (*self.effects,))
        except _Blocked:
            return Outcome(Local(self.label, (*self.log,)), None, (*self.effects,)) if self._moved else None
        return Outcome(None, value, (*self.effects,))


_current: Step | None = None


def act(kind: Kind, operation: Callable[[], T]) -> T:
    """Do an operation as part of the step under way; outside of one simply do it."""
    return operation() if _current is None else _current.act(kind, operation)


def now() -> Step:
    """The step under way."""
    assert _current is not None
    return _current


@contextmanager
def looking(view: Any) -> Iterator[None]:
    """For code that is one step as a whole: the world is as `view` says, and nothing stops it."""
    global _current
    _current = Step(Local(()), view, (), fine=False)
    _current.begin_inside()
    try:
        yield
    finally:
        _current = None


def steps(
    local: Local, view: Any, programs: dict[str, Callable[..., Any]], prepare: Callable[[], None], harvest: Callable[[], T], *,
    fine: bool = False,
) -> list[tuple[Outcome, T]]:  # fmt: skip
    """Every step that a process may take from here: what it came to, and what `harvest` found then.

    Args:
        prepare: puts the world back to where it was; called before each try.
    """
    global _current
    found: list[tuple[Outcome, T]] = []
    tries: list[tuple[int, ...]] = [()]
    while tries:
        choices = tries.pop()
        prepare()
        step = _current = Step(local, view, choices, fine=fine)
        try:
            outcome = step.run(programs)
        except _Fork as fork:
            tries.extend((*choices, one) for one in range(fork.count))
            continue
        finally:
            _current = None
        if outcome is not None:
            found.append((outcome, harvest()))
    return found
