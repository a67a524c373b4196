"""`dcsup runbook`: leads through a procedure (orchestrator/runbooks), one step at a time, or shows and records single steps for scripts.

It only looks. What is to be done, the person does; the one exception is the drill's planned move, which runs when it was asked for by
typing the node's name.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli import options, output
from orchestrator.cli.connection import configured, redis_of, states
from orchestrator.cli.handing import user
from orchestrator.cli.output import moment, remark
from orchestrator.cli.stopping import BAD_ANSWER, WRONG_USE, Stop
from orchestrator.said import Said, say
from workers.messages import _, language

if TYPE_CHECKING:
    from orchestrator.cli.runbook_eyes import RealEyes
    from orchestrator.runbooks.plans import Shape
    from orchestrator.runbooks.progress import Outcome, Progress, Record
    from orchestrator.runbooks.steps import Step
    from orchestrator.runbooks.verifying import Finding
    from statemachines.configuration import Configuration

NAMES = ("install-server", "install-agent", "register-agent", "uninstall-server", "uninstall-agent", "drill")


def add(commands: options.Commands) -> None:
    help = _("lead through an installation, a registration, an uninstallation or a failover drill, step by step")
    parser = options.add_command(commands, "runbook", help, run_runbook)
    parser.add_argument("name", choices=NAMES, metavar="|".join(NAMES), help=_("which procedure"))
    options.config(parser)
    parser.add_argument("--cluster", metavar=_("NAME"), help=_("which cluster (default: this node's, or the only one)"))
    parser.add_argument("--by", metavar=_("NAME"), help=_("who does it (default: the user's name)"))
    _add_run(parser)
    _add_single(parser)
    options.as_json(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(_("the run"))
    group.add_argument("--progress", metavar=_("FILE"), help=_("where the progress is kept (default: beside the configuration)"))
    group.add_argument("--new", action="store_true", help=_("begin anew; the old progress is kept under another name"))
    group.add_argument("--run", dest="run_id", metavar="ID", help=_("go on with a run that was begun on another machine"))
    values = _("a value for the steps' texts, as disk=E: (may be repeated)")
    group.add_argument("--value", metavar=_("NAME=TEXT"), action="append", default=[], help=values)
    group.add_argument("--kind", choices=["move", "failure"], help=_("drill: a planned move (default), or a failure that you provoke"))
    group.add_argument("--to", metavar=_("NODE"), help=_("drill: where the group is to go (default: the next node)"))


def _add_single(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(_("instead of going through it in the terminal"))
    group.add_argument("--list", action="store_true", help=_("show all steps and what became of them"))
    group.add_argument("--markdown", action="store_true", help=_("print it as a page with boxes to tick, for paper"))
    group.add_argument("--language", choices=["en", "ja"], help=_("of the page (default: yours)"))
    group.add_argument("--step", metavar="ID", help=_("record this step"))
    outcome = group.add_mutually_exclusive_group()
    outcome.add_argument("--done", action="store_true", help=_("it is done; looked at first"))
    outcome.add_argument("--skip", metavar=_("REASON"), help=_("it is left out, and why"))
    outcome.add_argument("--failed", metavar=_("NOTE"), help=_("it failed, and how"))
    group.add_argument("--i-know-better", metavar=_("REASON"), help=_("with --done: though what dcsup sees speaks against it"))


def run_runbook(arguments: argparse.Namespace) -> int:
    from orchestrator.runbooks.plans import DoesNotFit
    from orchestrator.runbooks.progress import ProgressError

    _check_use(arguments)
    try:
        return _run(arguments)
    except (DoesNotFit, ProgressError) as error:
        raise Stop(WRONG_USE, error.said) from error


def _check_use(arguments: argparse.Namespace) -> None:
    single = arguments.done or arguments.skip is not None or arguments.failed is not None
    if single != (arguments.step is not None):
        raise Stop(WRONG_USE, say("--step ID goes with one of --done, --skip REASON and --failed NOTE"))
    if arguments.json and not (single or arguments.list):
        raise Stop(WRONG_USE, say("--json goes with --list or --step"))
    if arguments.i_know_better is not None and not arguments.done:
        raise Stop(WRONG_USE, say("--i-know-better goes with --done"))
    for reason in (arguments.skip, arguments.failed, arguments.i_know_better):
        if reason is not None and not reason.strip():
            raise Stop(WRONG_USE, say("a reason is not empty: it is what is read afterwards"))
    if arguments.name != "drill" and (arguments.kind or arguments.to):
        raise Stop(WRONG_USE, say("--kind and --to belong to the drill"))


def _run(arguments: argparse.Namespace) -> int:
    session = open_session(arguments)
    if arguments.markdown:
        return _print_page(session, arguments.language or language())
    if arguments.list:
        return _show_list(session, arguments.json)
    session.start()
    if arguments.step is not None:
        return _record_single(session, arguments)
    from orchestrator.cli.runbook_walk import walk

    return walk(session)


# --- a session ----------------------------------------------------------------------------------------------------------------------------


@dataclass
class Session:
    """One call of the command: what is to be done, how far it came, and who does it."""

    name: str
    configuration: Configuration
    config: str
    shape: Shape
    steps: list[Step]
    path: Path
    by: str
    given: dict[str, str]
    options: dict[str, str]
    run: str | None
    progress: Progress | None
    aside: Progress | None
    """With --new: the run that was in the file."""
    language: str
    told: str = ""
    """What was last said about Redis."""

    @property
    def kept(self) -> Progress:
        if self.progress is None:
            raise AssertionError("the session was not started")
        return self.progress

    @property
    def records(self) -> dict[str, Record]:
        return self.progress.records if self.progress else {}

    @property
    def values(self) -> dict[str, str]:
        """What is known, the site's word before what follows from the configuration."""
        from orchestrator.runbooks.places import known_values

        kept = self.progress.values if self.progress else {}
        found = known_values(self.shape.settings, self._program())
        return {**found, **kept, **self.given, "command": subprocess.list2cmdline(["dcsup", *self.move_words()])}

    def _program(self) -> str | None:
        eyes = self.eyes()
        names = [service.name for service in self.shape.settings.services if service.kind in ("server", "agent")]
        return next((program for name in names if (program := eyes.program(name))), None)

    def move_words(self) -> list[str]:
        """`move` to where the drill's group is to go, with its options."""
        why = f"drill {self.progress.run if self.progress else ''}".strip()
        return ["move", "--config", self.config, "--cluster", self.shape.name, "--to", self.options.get("to", "-"), "--why", why]

    def eyes(self) -> RealEyes:
        from orchestrator.cli.runbook_eyes import RealEyes

        return RealEyes(self.configuration, self.shape.name, self.config)

    def current(self) -> Step | None:
        return next((step for step in self.steps if step.id not in self.records or not self.records[step.id].settles), None)

    # --- doing

    def start(self) -> None:
        """Have a progress file; hand in what could not be handed in before."""
        from orchestrator.runbooks import progress

        if self.aside is not None:
            self._put_aside(self.aside)
        elsewhere = self._elsewhere() if self.run is not None else {}
        if self.progress is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.progress = progress.begin(
                self.path, self.name, self.shape.name, self.by, run=self.run, values=self.given, options=self.options
            )
        self.progress.give(self.given)
        self.progress.learn(elsewhere)
        self.hand_in()

    def _put_aside(self, old: Progress) -> None:
        """The file of the old run, under its run's name; what of it is not in the log yet goes there first, if it can."""
        self.hand_in(old)
        kept = self.path.with_name(f"{self.path.stem}-{old.run}{self.path.suffix}")
        try:
            self.path.rename(kept)
        except OSError as error:
            raise Stop(WRONG_USE, say("{file} cannot be put aside: {why}", file=self.path, why=error.strerror or str(error))) from error
        remark(say("the run {run} is kept in {file}", run=old.run, file=kept))

    def _elsewhere(self) -> dict[str, str]:
        """What the cluster's state knows of this run. One that is kept here goes on without, one that is not cannot.

        Raises:
            Stop: nobody answers, or nobody knows the run.
        """
        try:
            known = states(self.configuration, [self.shape.name])[self.shape.name]["runbooks"].get(self.name)
        except Stop as stop:
            if self.progress is None:
                raise
            remark(stop.said)
            return {}
        if known is not None and known["run"] == self.run:
            return dict(known["steps"])
        if self.progress is None:
            values = {"cluster": self.shape.name, "run": self.run, "runbook": self.name}
            raise Stop(WRONG_USE, say("the state of cluster '{cluster}' knows no run {run} of {runbook}", **values))
        return {}

    def look(self, step: Step) -> Finding:
        """What can be seen of the step now; how things were when it was first looked at is kept."""
        from orchestrator.runbooks.verifying import Case, before, verify

        eyes = self.eyes()
        if step.id not in self.kept.before and step.verification is not None:
            remembered = before(step, eyes)
            if remembered:
                self.kept.begin_step(step.id, remembered)
        seen = {name: record.seen for name, record in self.records.items()}
        return verify(Case(step, self.shape, self.values, self.kept.before.get(step.id, {}), seen, eyes))

    def record(self, step: Step, outcome: Outcome, note: str, finding: Finding | None = None) -> None:
        """Onto the disk, then to the log. What was seen is part of the note, in the log's language."""
        seen = [str(said) for said in finding.said] if finding is not None and step.verification is not None else []
        verified = finding is not None and finding.answer == "yes"
        whole = " / ".join(filter(None, [note, *seen]))
        self.kept.record(step, outcome, self.by, verified=verified, note=whole, seen=finding.seen if finding else {})
        self.hand_in()

    def hand_in(self, progress: Progress | None = None) -> None:
        """What is not in the log's inbox yet. A Redis that is away is named once, not at each step."""
        from orchestrator.runbooks.handing import hand_in

        whose = progress or self.kept
        if not whose.pending:
            return
        try:
            with redis_of(self.configuration) as client:
                hand_in(client, whose)
        except Stop as stop:
            if str(stop.said) != self.told:
                remark(stop.said)
                remark(say("what is recorded is kept in {file} and goes into the log as soon as it can", file=self.path))
            self.told = str(stop.said)

    def finish(self) -> list[Path]:
        """What is left to do when every step is settled: a drill's report, in both languages."""
        from orchestrator.runbooks.report import report
        from orchestrator.runbooks.wording import LANGUAGES

        if self.name != "drill" or self.current() is not None:
            return []
        files = []
        for code in LANGUAGES:
            file = self.path.with_name(f"{self.path.stem}-{self.kept.run}.{code}.md")
            file.write_text(report(self.kept, self.shape, self.steps, code), encoding="utf-8")
            files.append(file)
        return files


def open_session(arguments: argparse.Namespace) -> Session:
    """Reads everything and changes nothing.

    Raises:
        ConfigurationError, Stop, DoesNotFit, ProgressError: with what is wrong.
    """
    from orchestrator.cli.runbook_eyes import RealEyes
    from orchestrator.runbooks.plans import Shape, plan

    configuration = configured(arguments)
    shape = Shape(cluster := _cluster(arguments, configuration), configuration.clusters[cluster])
    path = Path(arguments.progress or Path(arguments.config).parent / f"runbook-{arguments.name}-{cluster}.ndjson")
    found = _progress(arguments, path, cluster)
    aside, progress = (found, None) if arguments.new else (None, found)
    given = _given(arguments.value)
    chosen = _options(arguments, shape, progress, RealEyes(configuration, cluster, arguments.config))
    steps = plan(arguments.name, shape, "failure" if chosen.get("kind") == "failure" else "move", chosen.get("to"))
    return Session(
        arguments.name, configuration, arguments.config, shape, steps, path, arguments.by or user(), given, chosen, arguments.run_id,
        progress, aside, language(),
    )  # fmt: skip


def _cluster(arguments: argparse.Namespace, configuration: Configuration) -> str:
    names = sorted(configuration.clusters)
    default = configuration.node.cluster if configuration.node else names[0] if len(names) == 1 else None
    found = arguments.cluster or default
    if found is None:
        raise Stop(WRONG_USE, say("which cluster? name it with --cluster; known: {known}", known=", ".join(names)))
    if found not in names:
        known = ", ".join(names)
        raise Stop(WRONG_USE, say("there is no cluster '{name}' in {file}; known: {known}", name=found, file=arguments.config, known=known))
    return str(found)


def _given(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, _equals, text = pair.partition("=")
        found[name] = checked_value(name, text)
    return found


def checked_value(name: str, text: str) -> str:
    """What a person gave for a value of the texts.

    Raises:
        Stop: there is no such value, or it cannot be that.
    """
    from orchestrator.runbooks.places import NAMES as KNOWN
    from orchestrator.runbooks.progress import clean

    if name not in KNOWN or not text.strip():
        raise Stop(WRONG_USE, say("--value {name}: not NAME=TEXT; names: {known}", name=name, known=", ".join(KNOWN)))
    if name == "limit_s" and not _is_positive(text):
        raise Stop(WRONG_USE, say("{name}: '{text}' is no number of seconds", name=name, text=text))
    return clean(text)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def _progress(arguments: argparse.Namespace, path: Path, cluster: str) -> Progress | None:
    from orchestrator.runbooks.progress import load

    found = load(path)
    if found is None:
        return None
    if (found.runbook, found.cluster) != (arguments.name, cluster):
        values = {"runbook": found.runbook, "cluster": found.cluster}
        raise Stop(WRONG_USE, say("{file} is about {runbook} of cluster '{cluster}'; name another with --progress", file=path, **values))
    if not arguments.new and arguments.run_id not in (None, found.run):
        text = say("{file} is about the run {run}; --new puts it aside, --progress FILE names another", file=path, run=found.run)
        raise Stop(WRONG_USE, text)
    if found.cut:
        remark(say("{file}: the last line was cut off; what it was about is asked again", file=path))
    return found


def _options(arguments: argparse.Namespace, shape: Shape, progress: Progress | None, eyes: RealEyes) -> dict[str, str]:
    """A drill's kind and target, which stay what they were when the run was begun."""
    if arguments.name != "drill":
        return {}
    asked = {name: value for name, value in (("kind", arguments.kind), ("to", arguments.to)) if value}
    if progress is None:
        return {"kind": "move", "to": _next_node(shape, eyes), **asked}
    for name, value in asked.items():
        if progress.options.get(name) != value:
            text = say("this run was begun with --{name} {value}; --new begins another", name=name, value=progress.options.get(name, "-"))
            raise Stop(WRONG_USE, text)
    return progress.options


def _next_node(shape: Shape, eyes: RealEyes) -> str:
    """The first in the group's order that does not have it; the first standby where that cannot be seen."""
    from orchestrator.runbooks.verifying import where

    active = where(eyes) or (shape.first,)
    return next((node for node in shape.settings.nodes if node not in active), shape.first)


# --- showing ------------------------------------------------------------------------------------------------------------------------------


def _print_page(session: Session, code: str) -> int:
    from orchestrator.runbooks.paper import page

    print(page(session.name, session.shape, session.steps, session.values, code), end="")
    return 0


def _show_list(session: Session, as_json: bool) -> int:
    from orchestrator.runbooks.wording import word

    rows = []
    for step in session.steps:
        title = word(step, session.shape, session.values, session.language).title
        rows.append(_row(step, title, session.records.get(step.id), session))
    if as_json:
        about = {"runbook": session.name, "cluster": session.shape.name, "file": str(session.path)}
        output.show_json({**about, **_run_of(session), "steps": rows})
        return 0
    columns = [_("step"), _("node"), _("what"), _("outcome"), _("by"), _("when"), _("seen by dcsup"), _("note")]
    output.table(_title(session), columns, (_cells(row) for row in rows))
    return 0


def _title(session: Session) -> str:
    from orchestrator.runbooks.wording import texts

    run = f" {session.progress.run}" if session.progress else ""
    return f"{texts(session.language)['runbooks'][session.name]}: {session.shape.name}{run}"


def _run_of(session: Session) -> dict[str, Any]:
    step = session.current()
    return {"run": session.progress.run if session.progress else None, "current": step.id if step else None, "finished": step is None}


def _row(step: Step, title: str, record: Record | None, session: Session) -> dict[str, Any]:
    pending = {one.n for one in session.progress.pending} if session.progress else set()
    became: dict[str, Any] = {"outcome": None, "by": None, "at_ms": None, "verified": False, "note": "", "handed_in": False}
    if record is not None:
        at_ms = round(record.wall * 1000) if record.wall else None
        became = {"outcome": record.outcome, "by": record.by or None, "at_ms": at_ms, "verified": record.verified, "note": record.note,
                  "handed_in": record.n not in pending}  # fmt: skip
    return {"id": step.id, "node": step.node, "title": title, "rules": [*step.rules], "danger": step.danger, **became}


def _cells(row: dict[str, Any]) -> list[str]:
    outcome = {"done": _("done"), "skipped": _("skipped"), "failed": _("failed"), None: "-"}[row["outcome"]]
    seen = _("yes") if row["verified"] else "-"
    return [row["id"], row["node"] or "-", row["title"], outcome, row["by"] or "-", moment(row["at_ms"]), seen, row["note"] or "-"]


# --- recording one step -------------------------------------------------------------------------------------------------------------------


def _record_single(session: Session, arguments: argparse.Namespace) -> int:
    step = _asked_step(session, arguments.step)
    finding = None
    if arguments.done:
        finding = session.look(step)
        if finding.answer == "no" and arguments.i_know_better is None:
            raise Stop(BAD_ANSWER, say("{step} is not recorded as done: {found}", step=step.id, found=_joined(finding)))
        session.record(step, "done", arguments.i_know_better or "", finding)
    elif arguments.skip is not None:
        session.record(step, "skipped", arguments.skip)
    else:
        session.record(step, "failed", arguments.failed)
    files = session.finish()
    _tell_single(session, step, finding, files, arguments.json)
    return 0


def _asked_step(session: Session, wanted: str) -> Step:
    """The step that was named; only the one whose turn it is can be recorded, for their order is the procedure."""
    current = session.current()
    if wanted not in (step.id for step in session.steps):
        known = ", ".join(step.id for step in session.steps)
        raise Stop(WRONG_USE, say("there is no step '{step}'; known: {known}", step=wanted, known=known))
    if current is None or current.id != wanted:
        turn = current.id if current else "-"
        raise Stop(WRONG_USE, say("it is not the turn of '{step}' but of '{turn}': the order is the procedure", step=wanted, turn=turn))
    return current


def _tell_single(session: Session, step: Step, finding: Finding | None, files: list[Path], as_json: bool) -> None:
    record = session.kept.records[step.id]
    if as_json:
        found = {"answer": finding.answer, "said": [output.words(said) for said in finding.said]} if finding else None
        output.show_json({**_run_of(session), "step": step.id, "outcome": record.outcome, "verified": record.verified, "found": found,
                          "handed_in": not session.kept.pending, "reports": [str(file) for file in files]})  # fmt: skip
        return
    output.show(say("{step}: recorded ({outcome})", step=step.id, outcome=record.outcome))
    if finding is not None and step.verification is not None:
        for said in finding.said:
            output.show(said)
    tell_files(files)


def tell_files(files: list[Path]) -> None:
    for file in files:
        output.show(say("report: {file}", file=file))


def _joined(finding: Finding) -> str:
    return "; ".join(output.words(said) for said in finding.said)


def answer_of(finding: Finding) -> Said:
    return {"yes": say("it holds"), "no": say("it does NOT hold"), "unknown": say("not known")}[finding.answer]
