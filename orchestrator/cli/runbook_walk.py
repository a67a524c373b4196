"""Going through a runbook in the terminal: plain lines in, plain lines out, so that it works on every console.

Whatever ends it (q, Ctrl-C, a closed window, a power cut), the same command goes on at the same step.
"""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from typing import TYPE_CHECKING

from orchestrator.cli import output
from orchestrator.cli.runbook import Session, answer_of, checked_value, tell_files
from orchestrator.cli.stopping import Stop
from orchestrator.runbooks.wording import texts, word
from orchestrator.said import say
from workers.messages import _

if TYPE_CHECKING:
    from orchestrator.runbooks.steps import Step
    from orchestrator.runbooks.verifying import Finding

RULE = "-" * 72


def walk(session: Session) -> int:
    """Step by step until the end, or until the person leaves; always exit code 0, for both are good ends."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    _greet(session)
    try:
        while (step := session.current()) is not None:
            if not _walk_step(session, step):
                output.show(say("the same command goes on at this step"))
                return 0
    except KeyboardInterrupt:
        output.show(say("interrupted; the same command goes on at this step"))
        raise
    output.show(say("every step is done or skipped; --list shows them, --new begins another run"))
    tell_files(session.finish())
    return 0


def _greet(session: Session) -> None:
    print(texts(session.language)["runbooks"][session.name])
    settled = sum(session.kept.settled(step.id) for step in session.steps)
    values = {"cluster": session.shape.name, "run": session.kept.run, "settled": settled, "count": len(session.steps)}
    output.show(say("cluster {cluster}, run {run}: {settled} of {count} steps are settled", **values))
    output.show(say("progress is kept in {file}; on another machine go on with --run {run}", file=session.path, run=session.kept.run))


def _walk_step(session: Session, step: Step) -> bool:
    """One step until it is settled. False: the person leaves."""
    _show(session, step)
    _look(session, step)
    while True:
        key = _key(step)
        if key == "q":
            return False
        if key == "d" and _done(session, step):
            return True
        if key == "s" and (reason := _ask(_("why is it left out? "))):
            session.record(step, "skipped", reason)
            return True
        if key == "f" and (note := _ask(_("what went wrong? "))):
            session.record(step, "failed", note)
            output.show(say("recorded; it stays this step's turn until it is done or skipped"))
        if key == "v":
            _look(session, step)
        if key == "g":
            _give(session, step)
        if key == "r":
            _run_move(session, step)


def _show(session: Session, step: Step) -> None:
    worded = word(step, session.shape, session.values, session.language)
    words = texts(session.language)["words"]
    number = session.steps.index(step) + 1
    print(f"\n{RULE}\n{number}/{len(session.steps)}  {worded.title}  [{step.id}]")
    print(f"{words['node']}: {step.node or words['any-node']}")
    if step.danger:
        print(f"*** {words['danger']} ***")
    print(f"\n{worded.text}\n")
    rules = f" ({', '.join(step.rules)})" if step.rules else ""
    print(f"{words['why']}: {worded.why}{rules}")
    record = session.records.get(step.id)
    if record is not None:
        output.show(say("failed before, says {by}: {note}", by=record.by or "-", note=record.note))


def _look(session: Session, step: Step) -> Finding:
    finding = session.look(step)
    if step.verification is None:
        print(texts(session.language)["words"]["by-person"])
        return finding
    print(f"[{output.words(answer_of(finding))}]")
    for said in finding.said:
        print(f"  {output.words(said)}")
    return finding


def _done(session: Session, step: Step) -> bool:
    """Look once more; what speaks against it needs a person's word, which is kept."""
    finding = _look(session, step)
    why = ""
    if finding.answer == "no" and not (why := _ask(_("dcsup sees that it does not hold. If you know better, say why (empty: not done): "))):
        return False
    session.record(step, "done", why, finding)
    return True


def _give(session: Session, step: Step) -> None:
    """Ask for each value of the step; an empty line leaves it as it is."""
    labels = texts(session.language)["values"]
    for name in step.verification.about if step.verification else ():
        answer = _ask(f"{labels[name]} ({name}) [{session.values.get(name, '')}]: ")
        try:
            session.kept.give({name: checked_value(name, answer)} if answer else {})
        except Stop as stop:
            output.show(stop.said)
    _show(session, step)
    _look(session, step)


def _run_move(session: Session, step: Step) -> None:
    """The planned move, when the person types where to: never by one key."""
    to = step.values["to"]
    if _ask(_("type the node's name ({node}) to move the group there now: ").format(node=to)) != to:
        output.show(say("not run"))
        return
    command = [sys.executable, "-m", "orchestrator.cli", *session.move_words(), "--by", session.by, "--yes"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    output.show(say("`dcsup move` ended with code {code}", code=done.returncode))
    _look(session, step)


def _key(step: Step) -> str:
    """The first letter of an answer that is one of the step's keys; the end of the input is q."""
    keys = {"d": _("d done"), "v": _("v verify again"), "s": _("s skip"), "f": _("f failed"), "q": _("q quit, go on later")}
    if step.verification is not None and step.verification.kind == "values":
        keys["g"] = _("g give the values")
    if step.kind == "drill-move":
        keys["r"] = _("r run the move")
    while True:
        answer = _ask(f"{', '.join(keys.values())} > ", at_end="q")
        key = unicodedata.normalize("NFKC", answer)[:1].lower()
        if key in keys:
            return key


def _ask(prompt: str, at_end: str = "") -> str:
    """A line, without the blanks around it."""
    print(prompt, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        print()
        return at_end
    return line.strip()
