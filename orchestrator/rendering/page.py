"""The page for the integrator: what to set up in CLUSTERPRO so that the rendered scripts are run, for this very cluster.

Markdown, in the language of `words`. What it says of CLUSTERPRO is CLUSTERPRO.md's; what was never tried on a live node of every version
carries a mark that tells the reader to look it up. Rules of the guide are cited (G...), so that a reader finds the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.checking.bound import ACTIVATION_EXTRA_S, Bound, script_bounds
from orchestrator.rendering import Site, Target, Words, alerts, places
from orchestrator.rendering.quoting import NAMES
from orchestrator.rendering.scripts import paste
from orchestrator.said import Said, say
from statemachines.configuration import ServiceSettings

_ROUND_TO_S = 60


def page(site: Site, target: Target, words: Words) -> str:
    """The whole page.

    Args:
        site: with durations in whole seconds (`variables.in_whole_seconds`).
        target: platform, and whether the scripts are a fragment of others.
        words: the page's language.
    """
    writer = _Page(site, target, words)
    return "\n".join(writer.lines()).rstrip("\n") + "\n"


def needed_timeout_s(site: Site) -> float:
    """What CLUSTERPRO's script timeout must be, seconds: the configured one if both scripts fit into it, else the next whole minute."""
    longest = max(bound.total_s for bound in script_bounds(site.cluster))
    configured = site.cluster.clusterpro.script_timeout
    return configured if longest < configured else (longest // _ROUND_TO_S + 1) * _ROUND_TO_S


class _Page:
    """Collects lines; each section is a method."""

    def __init__(self, site: Site, target: Target, words: Words) -> None:
        self.site, self.target, self.words = site, target, words
        self.cluster, self.folder = site.cluster, site.folder(target)
        self.services = site.cluster.services
        self.windows = target.platform == "windows"
        self.timeout_s = needed_timeout_s(site)
        self.check = say("[check]").in_words(words)

    def lines(self) -> Iterator[str]:
        for section in (
            self._top, self._before, self._files, self._resources, self._script, self._watches, self._monitors, self._timeouts,
            self._places, self._risks, self._going_back, self._afterwards, self._alerts,
        ):  # fmt: skip
            yield from section()

    # --- Markdown

    def _text(self, said: Said) -> list[str]:
        return [said.in_words(self.words), ""]

    def _list(self, *items: Said) -> list[str]:
        return [*(f"- {item.in_words(self.words)}" for item in items), ""]

    def _steps(self, *items: Said) -> list[str]:
        return [*(f"{n}. {item.in_words(self.words)}" for n, item in enumerate(items, 1)), ""]

    def _code(self, *lines: str) -> list[str]:
        return ["```", *lines, "```", ""]

    def _heading(self, said: Said) -> list[str]:
        return [f"## {said.in_words(self.words)}", ""]

    def _table(self, columns: Iterable[Said], rows: Iterable[Iterable[str | Said]]) -> list[str]:
        heads = [column.in_words(self.words) for column in columns]
        cells = [[cell.in_words(self.words) if isinstance(cell, Said) else cell for cell in row] for row in rows]
        return [_row(heads), _row(["---"] * len(heads)), *map(_row, cells), ""]

    # --- sections

    def _top(self) -> Iterator[str]:
        names = ", ".join(self.cluster.nodes)
        title = say("CLUSTERPRO settings for cluster {name}", name=self.site.name)
        yield from (f"# {title.in_words(self.words)}", "")
        yield from self._text(
            say(
                "Group `{group}` on {nodes} (in order of priority). Written by `dcsup render clusterpro` from dcsup.toml; render again "
                "when it changes.",
                group=self.cluster.group_there, nodes=names,
            )
        )  # fmt: skip
        yield from self._text(
            say(
                "What is marked {mark} was not tried on every version of CLUSTERPRO X: look it up in your version's reference guide "
                "before you rely on it.",
                mark=self.check,
            )
        )
        if self.cluster.mode == "observe":
            yield from self._text(
                say(
                    "**This cluster is in mode `observe`: the guide's scripts stay as they are, and nothing here is to be done before it "
                    "is set to `supervise`.**"
                )
            )

    def _before(self) -> Iterator[str]:
        yield from self._heading(say("Before you begin"))
        yield from self._list(*self._conditions())

    def _conditions(self) -> Iterator[Said]:
        kinds = {service.kind for service in self.services}
        yield say(
            "The cluster exists, with the group, its floating IP and its disk or mirror disk; DataCoordinator was installed after it (G25)."
        )
        yield say(
            "DataCoordinator's services, the metadata DB server's too, are set to manual start on every node (G33): only the cluster "
            "starts them."
        )
        yield say("`dcsup worker` runs as a service of the operating system on every node, outside the group.")
        if kinds >= {"agent", "server"}:
            yield say(
                "Server and agent share this one group with its floating IP and disk; no second group is made, and the server's metadata "
                "DB path is not the agent's shared folder (G35)."
            )
        for agent in (service for service in self.services if service.kind == "agent"):
            yield self._databases(agent)

    def _databases(self, agent: ServiceSettings) -> Said:
        name = agent.name
        if agent.databases == "remote":
            return say("Agent `{name}` connects to no DBMS of its own server (G2).", name=name)
        if agent.databases == "local":
            return say(
                "A DBMS that agent `{name}` connects to is on the agent's own server: it must be clustered one-way standby in this group "
                "(G2).",
                name=name,
            )
        return say(
            "If even one DBMS that agent `{name}` connects to is on the agent's own server, it must be clustered one-way standby (G2); "
            "say which with `databases` in dcsup.toml.",
            name=name,
        )

    def _files(self) -> Iterator[str]:
        yield from self._heading(say("1. The files"))
        yield from self._steps(
            say(
                "Copy this folder to every node as `{folder}`: a local disk, not the one that moves with the group (G22).",
                folder=self.folder,
            ),
            say(
                "If other paths differ between the nodes, render on each node with its own dcsup.toml; this folder's path must be the same "
                "everywhere."
            ),
            say("Let only administrators write there: CLUSTERPRO runs these files with the rights of the system."),
        )
        yield from self._table((say("file"), say("what it is")), self._files_rows())

    def _files_rows(self) -> Iterator[tuple[str, Said]]:
        suffix, stem = self.target.suffix, "dcsup-" if self.target.fragment else ""
        yield f"`{stem}start{suffix}`, `{stem}stop{suffix}`", say("called by the group's script resource")
        for service in self.services:
            yield (
                f"`watch-{service.name}{suffix}`",
                say("start path of the application resource that watches `{name}` (G22)", name=service.name),
            )
        yield f"`{NAMES[self.target.platform]}`", say("settings, from dcsup.toml")
        yield f"`{places.FOLDER}`", say("the site's own code (G43); never written again")
        if self.target.fragment:
            yield "`paste-into-*.txt`", say("the lines for the scripts that exist")
        yield f"`lib*{suffix}`, `messages*{suffix}`", say("what they share")

    def _resources(self) -> Iterator[str]:
        yield from self._heading(say("2. Resources of the group, in this order"))
        columns = say("resource"), say("type"), say("depends on"), say("what it does")
        yield from self._table(columns, self._resource_rows())
        yield from self._text(
            say("CLUSTERPRO starts them in the order of their dependencies and stops them in reverse; each needs exactly these.")
        )
        yield from self._text(
            say(
                "**Exactly one script resource of the group calls dcsup**, for all of its services ({services}), in this order; a stop "
                "runs in reverse (G23). With a second one each would break off what the other has begun.",
                services=", ".join(f"`{service.name}`" for service in self.services),
            )
        )

    def _resource_rows(self) -> Iterator[tuple[str | Said, ...]]:
        yield "`fip1`", say("floating IP"), "-", say("there already (G25); clients and agents come by it (G28, G36)")
        yield "`sd1` / `md1`", say("disk or mirror disk"), "-", say("there already (G25); metadata DB, shared folder, user databases (G3)")
        kind = say("script") if self.windows else say("EXEC, synchronous")
        what = say("the DBMS's own, with the lines of section 3") if self.target.fragment else say("starts and stops the services")
        yield "`script-dcsup`", kind, "`fip1`, `sd1` / `md1`", what
        kind = say("application, resident") if self.windows else say("EXEC, asynchronous")
        for service in self.services:
            yield f"`appli-{service.name}`", kind, "`script-dcsup`", say("watches `{name}` (G22)", name=service.name)

    def _script(self) -> Iterator[str]:
        yield from self._heading(say("3. The script resource"))
        yield from self._pasted()
        columns = say("setting"), say("value"), say("why")
        yield from self._table(columns, self._script_rows())
        yield from self._text(
            say(
                "CLUSTERPRO's final action for a failed deactivation is 4 by default: stop the cluster service and shut the operating "
                "system down. The stop script therefore returns 0, also when a command failed."
            )
        )
        if self.cluster.stop.report_failure:
            yield from self._text(
                say("**`stop.report_failure` is set here: it returns 1 when a service is proved to be running still at the deadline.**")
            )

    def _pasted(self) -> Iterator[str]:
        for script in ("start", "stop"):
            name = script + self.target.suffix
            yield from self._text(
                say("Lines for the {name} that is there:", name=name) if self.target.fragment else say("Text of its {name}:", name=name)
            )
            yield from self._code(*paste(self.site, self.target, script, self.words))
        if self.target.fragment:
            yield from self._list(
                say("The start lines stand behind those that start the DBMS, where the script gets to only when it is up (G24)."),
                say("The stop lines stand before those that stop the DBMS; it is stopped whatever they return."),
                say("Both look at CLP_EVENT themselves: let START and FAILOVER come by them; on RECOVER they start nothing (G16)."),
                say("A start that failed ends the script with another code than 0, so that CLUSTERPRO hears of it."),
            )

    def _script_rows(self) -> Iterator[tuple[str | Said, ...]]:
        timeout = f"{self.timeout_s:g} s"
        if self.windows:
            yield say("normal return value, start"), "`0`", say("left blank the code is not judged, and a failed start would count as up")
            yield say("normal return value, stop"), *self._stop_judged()
        yield say("start and stop"), say("synchronous"), say("CLUSTERPRO waits for the end, and judges the code")
        yield say("timeout, start and stop"), timeout, say("section 6")
        yield say("run on standby servers"), say("off, for start and for stop"), say("the services run on the active node only (G1)")
        yield (
            say("run on a server that returns (RECOVER)"),
            say("on only if you use the place `recover` {mark}", mark=self.check),
            say("the script starts nothing there (G16)"),
        )
        if self.windows:
            yield say("account"), say("the system's"), say("the DataCoordinator commands need an administrator")
        yield say("activation: retry / failover"), "0 / 1", say("a failed start is not repeated here; the group goes to the next node")

    def _stop_judged(self) -> tuple[str | Said, Said]:
        if self.cluster.stop.report_failure:
            return "`0`", say("`stop.report_failure` is set: a stop that is proved to have failed is to be judged")
        return say("blank"), say("a failed stop would shut the operating system down")

    def _watches(self) -> Iterator[str]:
        yield from self._heading(say("4. The application resources") if self.windows else say("4. The watch resources"))
        yield from self._table((say("resource"), say("start path")), self._watch_rows())
        yield from self._list(
            say("Resident, started without waiting; it lives for as long as the service is healthy (G22).")
            if self.windows
            else say("Asynchronous EXEC resource: the script stays for as long as the service is healthy (G22)."),
            say("It depends on `script-dcsup`: the watch begins when the service is up and ends before it is stopped (G40)."),
            say("No stop path: CLUSTERPRO ends the process, and what it started ends by itself within 2 s."),
            say(
                "The watch script ends with `dcstatus`'s own code. Under maintenance (`dcsup pause`, suspended cluster) it does not end "
                "while dcsup is there."
            ),
        )

    def _watch_rows(self) -> Iterator[tuple[str, str]]:
        for service in self.services:
            path = f"{self.folder}{self.target.separator}watch-{service.name}{self.target.suffix}"
            yield f"`appli-{service.name}`", f"`{path}`"

    def _monitors(self) -> Iterator[str]:
        yield from self._heading(say("5. The monitors"))
        if self.windows:
            yield from self._text(say("An application monitor (`appliw`) appears with each application resource (G40). Set for each:"))
        else:
            yield from self._text(
                say("A process monitor for the EXEC resource (`pidw`) for each watch resource (G40) {mark}. Set:", mark=self.check)
            )
        yield from self._table((say("setting"), say("value"), say("why")), self._monitor_rows())
        yield from self._text(
            say(
                "The monitor of the floating IP and of the disk stay as CLUSTERPRO makes them. Make no monitor that runs `dcstatus` "
                "beside these: it would act on its own."
            )
        )

    def _monitor_rows(self) -> Iterator[tuple[str | Said, ...]]:
        interval = f"{self.cluster.watch.interval:g} s"
        why = say("how soon the end of a watch script is noticed; the product's default is 60 s {mark}", mark=self.check)
        yield say("interval"), interval, why
        yield say("retry"), "0", say("the watch script has confirmed it already")
        yield say("monitoring"), say("while the resource is active"), say("a standby has nothing to watch")
        yield say("recovery target"), say("the group `{group}`", group=self.cluster.group_there), say("all of it moves together")
        yield say("recovery action"), say("failover: reactivation 0, failover 1"), say("G22, G40")
        yield say("final action"), say("no operation"), say("the node itself is not at fault")

    def _timeouts(self) -> Iterator[str]:
        yield from self._heading(say("6. Timeouts"))
        yield from self._text(
            say(
                "A script returns within this time whatever state dcsup is in, as long as the commands keep to their limits. CLUSTERPRO "
                "ends one that outlives its timeout, and takes it for failed."
            )
        )
        if self.target.fragment:
            yield from self._text(say("**Add to each value below what your script itself takes to start or stop the DBMS.**"))
        for bound in script_bounds(self.cluster):
            yield from self._bound(bound)
        yield from self._text(say("Set, for start and for stop:"))
        yield from self._list(
            say("script timeout: **{timeout} s**", timeout=f"{self.timeout_s:g}"),
            say(
                "timeout of the whole activation and deactivation (`act/timeout`, `deact/timeout`): **{timeout} s** (script timeout + "
                "180 s)",
                timeout=f"{self.timeout_s + ACTIVATION_EXTRA_S:g}",
            ),
            say(
                "`clusterpro.script_timeout` in dcsup.toml: the same {timeout} s; `dcsup check` compares it with the scripts",
                timeout=f"{self.timeout_s:g}",
            ),
        )
        if self.timeout_s != self.cluster.clusterpro.script_timeout:
            yield from self._text(
                say(
                    "**dcsup.toml says {configured} s, which is too short.** Set {timeout} s in both places, or shorter limits and "
                    "deadlines in dcsup.toml.",
                    configured=f"{self.cluster.clusterpro.script_timeout:g}", timeout=f"{self.timeout_s:g}",
                )
            )  # fmt: skip

    def _bound(self, bound: Bound) -> Iterator[str]:
        rows: list[tuple[str | Said, ...]] = [(part.said, f"{part.seconds:g}") for part in bound.parts]
        rows.append((say("all together, at most"), f"**{bound.total_s:g}**"))
        name = say("{script} script: what may take its time", script=bound.script)
        yield from self._table((name, say("seconds")), rows)

    def _places(self) -> Iterator[str]:
        yield from self._heading(say("7. The site's own code (G43)"))
        limit = f"{self.cluster.clusterpro.site_limit:g}"
        yield from self._text(
            say(
                "What the guide's samples leave to the site has a file of its own in `{folder}`. Each may take {limit} s "
                "(`clusterpro.site_limit`); a failure is written to the cluster log and changes nothing else. Rendering again never "
                "touches them.",
                folder=places.FOLDER, limit=limit,
            )
        )  # fmt: skip
        rows = ((f"`{place}{self.target.suffix}`", said) for place, said in places.PLACES.items())
        yield from self._table((say("file"), say("when it runs")), rows)

    def _risks(self) -> Iterator[str]:
        yield from self._heading(say("8. What remains"))
        yield from self._list(
            say(
                "A command that the plain sequence itself runs has no time limit, as in the guide: if it hangs, its script hangs until "
                "CLUSTERPRO's timeout, and so does everything behind it."
            ),
            self._beside(),
            say(
                "Nothing is checked after a stop (G41) unless `stop.report_failure` is set; that the metadata DB still holds the disk is "
                "shown, not acted on (G44)."
            ),
            say("If CLUSTERPRO brings the group up on two nodes, dcsup reports it at once and does not decide between them."),
        )

    def _beside(self) -> Said:
        if self.windows:
            return say(
                "The script that comes next waits for such a command within its limit, and then goes on beside it, for a batch file does "
                "not know its process. The guide's samples have the same risk, and do not wait."
            )
        return say("The script that comes next waits for such a command within its limit, ends it if it is still there, and goes on.")

    def _going_back(self) -> Iterator[str]:
        yield from self._heading(say("9. Going back"))
        bypass = self.site.node.folder.rstrip("\\/") + self.target.separator + "dcsup.bypass"
        yield from self._list(
            say(
                "At once, on one node: make the file `{file}`. Every script then runs the guide's plain sequence without dcsup; delete "
                "it to return.",
                file=bypass,
            ),
            say(
                "For good: `dcsup render guide --out FOLDER` writes scripts that do the guide's plain sequence and nothing else. Put "
                "them in the place of these; resources and monitors stay. As in the guide, they return 0 whatever happened, and wait "
                "without limit."
            ),
        )

    def _afterwards(self) -> Iterator[str]:
        yield from self._heading(say("10. Then"))
        yield from self._steps(
            say(
                "`dcsup check` on every node: it compares dcsup.toml, this machine and CLUSTERPRO's exported configuration with all of "
                "this."
            ),
            say("Start the group, move it to every node and back (`dcsup runbook drill` leads through it), and look at `dcsup failovers`."),
        )

    def _alerts(self) -> Iterator[str]:
        yield from self._heading(say("11. The alert extension"))
        yield from self._text(
            say(
                "CLUSTERPRO can run a command for each of its alerts (cluster properties, alert service, command of a module and event "
                "id {mark}). With these it tells dcsup what it saw and what it does: failovers are then measured from their true "
                "beginning, and it is known why one did not happen. The lines only write to this node's disk; without them everything "
                "else works.",
                mark=self.check,
            )
        )
        yield from self._text(
            say(
                "`{message}` is replaced by the alert's text {mark}; leave `--text` out if your version does not.",
                message=alerts.MESSAGE, mark=self.check,
            )
        )  # fmt: skip
        yield from self._text(say("Ids are those of X 4.2 {mark}.", mark=self.check))
        for category, what in alerts.WANTED.items():
            yield from self._text(what)
            yield from self._code(*(alerts.command_line(self.site, self.target, *one) for one in alerts.ids_of(category)))
        yield from self._text(say("For the whole story afterwards, in the same way: {ids}.", ids=alerts.information()))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
