"""From a tree to the model: named places are looked up, what makes no sense becomes a finding with its place.

Both spellings are taken: `<policy name="a"><order>0</order></policy>` and `<policy name="a" order="0"/>`. Names of elements that are
not proved for Windows (CLUSTERPRO.md, section 9) are looked for in every place where they may be; if none is there, the value is unknown
rather than the default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from orchestrator.clpconf.model import (
    ACTIVATION_EXTRA_S,
    NO_ACTION,
    SCRIPT_TIMEOUT_S,
    STOP_AND_SHUT_DOWN,
    AlertCommand,
    ClpConf,
    Group,
    Monitor,
    Resource,
    Server,
    Value,
)
from orchestrator.clpconf.reading import Element, Finding, Place, clean, read_tree
from orchestrator.said import Said, say

T = TypeVar("T")
_PROGRAM = re.compile(r"\s*(?:\"([^\"]*)\"|(.*?\.(?:bat|cmd|exe|com|sh|ps1|vbs|js|py|pl))(?=\s|$)|(\S*))", re.IGNORECASE | re.DOTALL)
_DCSUP_ALERT = re.compile(r"\bdcsup\b.*\bhook\s+alert\b", re.IGNORECASE | re.DOTALL)
_COMMAND_MAX = 2_000
"""Characters of a command line that are looked at."""
_FINDINGS_MAX = 200
_NORMAL = re.compile(r"[0-9,\s-]{1,60}")


def parse(raw: bytes) -> ClpConf:
    """The model of a clp.conf's bytes; `findings` tells what could not be used.

    Raises:
        ClpConfError: nothing of it can be used (reading.py).
    """
    tree = read_tree(raw)
    return _Parser(list(tree.findings)).whole(tree.root, tree.encoding)


def program_of(command: str) -> str:
    """The program of a command line, without its arguments: those may hold a password."""
    found = _PROGRAM.match(command[:_COMMAND_MAX])
    return clean(next((part for part in found.groups() if part), "")) if found else ""


class _Parser:
    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings

    def whole(self, root: Element, encoding: str) -> ClpConf:
        servers = self._once([self._server(one) for one in root.all("server") if self._named(one)], lambda one: one.name)
        resources = self._once([self._resource(one) for one in self._typed(root, "resource")], lambda one: one.key)
        monitors = self._once([self._monitor(one) for one in self._typed(root, "monitor")], lambda one: one.name)
        groups = self._once([self._group(one) for one in root.all("group") if self._named(one)], lambda one: one.name)
        self._check_references(servers, groups, resources)
        for missing, there in ((say("the file names no server"), servers), (say("the file has no failover group"), groups)):
            if not there:
                self._note(missing, root.place)
        return ClpConf(
            cluster=self._text(root, "cluster/name"),
            os=self._os(root),
            version=self._text(root, "trekking/savedversion"),
            encoding=encoding,
            servers=tuple(sorted(servers, key=lambda one: one.priority if one.priority is not None else len(servers))),
            groups=tuple(groups),
            resources=tuple(resources),
            monitors=tuple(monitors),
            alerts=tuple(self._alerts(root)),
            api=self._flag(root, ("cluster/api/use", "cluster/rest/use", "api/use", "rest/use", "restapi/use", "webmgr/rest/use"), None),
            findings=tuple(self.findings),
        )

    # objects

    def _server(self, element: Element) -> Server:
        priority = self._number(element, ("priority",), None)
        devices = [one for one in element.all("device") if self._text(one, "type") in ("lan", "")]
        addresses = tuple(dict.fromkeys(address for one in devices if (address := self._text(one, "info"))))
        return Server(element.name, None if priority.value is None else int(priority.value), addresses, element.place)

    def _group(self, element: Element) -> Group:
        members = tuple(dict.fromkeys(one.name for one in element.all("resource") if self._named(one)))
        policies = [(self._number(one, ("order",), None).value, n, one.name) for n, one in enumerate(self._policies(element)) if one.name]
        order = tuple(name for _order, _n, name in sorted(policies, key=lambda one: (one[0] is None, one[0] or 0, one[1])))
        return Group(
            name=element.name,
            resources=members,
            order=order,
            auto_start=self._flag(element, ("start",), True),
            auto_failover=self._flag(element, ("failover",), True),
            auto_failback=self._flag(element, ("failback",), False),
            place=element.place,
        )

    def _policies(self, group: Element) -> Iterable[Element]:
        """`<policy name="a">`, or `<policy><server name="a">` inside one."""
        for policy in group.all("policy"):
            yield from ([policy] if policy.name else policy.children)

    def _resource(self, element: Element) -> Resource:
        start_s = self._number(element, ("parameters/timeout/start",), SCRIPT_TIMEOUT_S)
        stop_s = self._number(element, ("parameters/timeout/stop",), SCRIPT_TIMEOUT_S)
        return Resource(
            type=element.tag,
            name=element.name,
            depends=self._depends(element),
            start_timeout=start_s,
            stop_timeout=stop_s,
            act_timeout=self._number(element, ("act/timeout",), SCRIPT_TIMEOUT_S + ACTIVATION_EXTRA_S),
            deact_timeout=self._number(element, ("deact/timeout",), SCRIPT_TIMEOUT_S + ACTIVATION_EXTRA_S),
            act_action=self._whole_number(element, ("act/action",), NO_ACTION),
            deact_action=self._whole_number(element, ("deact/action",), STOP_AND_SHUT_DOWN),
            start_sync=self._flag(element, ("parameters/act/sync",), True),
            stop_sync=self._flag(element, ("parameters/deact/sync",), True),
            normal_start=self._normal(element, ("parameters/act/normalval", "parameters/normalval/start", "parameters/start/normalval")),
            normal_stop=self._normal(element, ("parameters/deact/normalval", "parameters/normalval/stop", "parameters/stop/normalval")),
            resident=self._flag(element, ("parameters/resident",), None),
            start_path=self._program(element, ("parameters/actpath", "parameters/act/path")),
            stop_path=self._program(element, ("parameters/deactpath", "parameters/deact/path")),
            address=self._string(element, ("parameters/ip",)),
            volume=self._string(element, ("parameters/volumemountpoint", "parameters/mount/point", "parameters/mountpoint")),
            place=element.place,
        )

    def _depends(self, element: Element) -> Value[tuple[str, ...]]:
        names = tuple(dict.fromkeys(name for one in element.all("depend") if (name := one.name or clean(one.text))))
        there = next(element.all("depend"), None)
        return Value(names, "file", there.place) if there is not None else Value(None, "unknown", element.place)

    def _monitor(self, element: Element) -> Monitor:
        return Monitor(
            type=element.tag,
            name=element.name,
            target=self._string(element, ("target", "polling/target")),
            relation_type=self._string(element, ("relation/type",)),
            relation_name=self._string(element, ("relation/name",)),
            interval=self._number(element, ("polling/interval",), None),
            timeout=self._number(element, ("polling/timeout",), None),
            restarts=self._whole_number(element, ("emergency/threshold/restart",), None),
            failovers=self._whole_number(element, ("emergency/threshold/fo2", "emergency/threshold/fo"), None),
            final_action=self._whole_number(element, ("emergency/action",), None),
            place=element.place,
        )

    def _alerts(self, root: Element) -> Iterable[AlertCommand]:
        """`messages/<module>@<id>/cmd@n/cmdline`, below the root or below the cluster."""
        for messages in (root.find("messages"), root.find("cluster/messages")):
            for one in messages.children if messages is not None else ():
                lines = [cmd.find("cmdline") for cmd in one.all("cmd")] + [one.find("cmdline")]
                texts = [line.text for line in lines if line is not None]
                if texts:
                    yield AlertCommand(clean(one.tag), one.name, any(_DCSUP_ALERT.search(text[:_COMMAND_MAX]) for text in texts), one.place)

    # what must hold between objects

    def _typed(self, root: Element, kind: str) -> Iterable[Element]:
        """The objects in `<resource>` or `<monitor>`; `<types name=.../>` beside them only registers types."""
        for container in root.all(kind):
            yield from (one for one in container.children if one.tag != "types" and self._named(one))

    def _named(self, element: Element) -> bool:
        if not element.name:
            self._note(say("it has no name, so it was left out"), element.place)
        return bool(element.name)

    def _once(self, found: Sequence[T], key: Callable[[T], str]) -> list[T]:
        kept: dict[str, T] = {}
        for one in found:
            if key(one) in kept:
                self._note(say("it is there twice; the first one counts"), one.place)  # type: ignore[attr-defined]
            kept.setdefault(key(one), one)
        return list(kept.values())

    def _check_references(self, servers: Sequence[Server], groups: Sequence[Group], resources: Sequence[Resource]) -> None:
        known = {one.key for one in resources}
        names, hosts = {one.name for one in resources}, {one.name for one in servers}
        for group in groups:
            for key in group.resources:
                if key not in known:
                    self._note(say("the group names the resource '{name}', which the file does not describe", name=key), group.place)
            for name in group.order:
                if hosts and name not in hosts:
                    self._note(say("the group names the server '{name}', which the file does not describe", name=name), group.place)
        for one in resources:
            for name in one.depends.value or ():
                if name not in names:
                    self._note(say("it depends on '{name}', which the file does not describe", name=name), one.depends.place)

    # values

    def _note(self, said: Said, place: Place) -> None:
        if len(self.findings) < _FINDINGS_MAX:
            self.findings.append(Finding(said, place))
        elif len(self.findings) == _FINDINGS_MAX:
            self.findings.append(Finding(say("there is more of this kind; only the first {count} are told", count=_FINDINGS_MAX), place))

    def _raw(self, element: Element, paths: Sequence[str]) -> tuple[str, Place] | None:
        """The first of the paths that is there: as an element, or with its last step as an attribute."""
        for path in paths:
            if (found := element.find(path)) is not None:
                return found.text.strip(), found.place
            above, _, last = path.rpartition("/")
            holder = element.find(above) if above else element
            if holder is not None and last in holder.attributes and last not in ("name", "id"):
                return holder.attributes[last].strip(), holder.place
        return None

    def _text(self, element: Element, path: str) -> str:
        found = self._raw(element, (path,))
        return clean(found[0]) if found else ""

    def _string(self, element: Element, paths: Sequence[str]) -> Value[str]:
        found = self._raw(element, paths)
        return Value(clean(found[0]), "file", found[1]) if found else Value(None, "unknown", element.place)

    def _program(self, element: Element, paths: Sequence[str]) -> Value[str]:
        found = self._raw(element, paths)
        return Value(program_of(found[0]), "file", found[1]) if found else Value(None, "unknown", element.place)

    def _normal(self, element: Element, paths: Sequence[str]) -> Value[str]:
        found = self._raw(element, paths)
        if found is not None and found[0] and not _NORMAL.fullmatch(found[0]):
            self._note(say("this is no list of return values, such as 0 or 0,2,4-6"), found[1])
            found = None
        return Value(clean(found[0]), "file", found[1]) if found else Value(None, "unknown", element.place)

    def _number(self, element: Element, paths: Sequence[str], default: float | None) -> Value[float]:
        found = self._raw(element, paths)
        if found is None:
            return Value(default, "default" if default is not None else "unknown", element.place)
        if re.fullmatch(r"[0-9]{1,9}", found[0]):
            return Value(float(found[0]), "file", found[1])
        self._note(say("a whole number from 0 on must stand here"), found[1])
        return Value(None, "unknown", found[1])

    def _whole_number(self, element: Element, paths: Sequence[str], default: int | None) -> Value[int]:
        found = self._number(element, paths, default)
        return Value(None if found.value is None else int(found.value), found.origin, found.place)

    def _flag(self, element: Element, paths: Sequence[str], default: bool | None) -> Value[bool]:
        found = self._raw(element, paths)
        if found is None:
            return Value(default, "default" if default is not None else "unknown", element.place)
        if found[0] in ("0", "1"):
            return Value(found[0] == "1", "file", found[1])
        self._note(say("0 or 1 must stand here"), found[1])
        return Value(None, "unknown", found[1])

    def _os(self, root: Element) -> Literal["windows", "linux"] | None:
        found = self._raw(root, ("all/serveros",))
        match found[0].lower() if found else "":
            case "windows":
                return "windows"
            case "linux":
                return "linux"
        if found is not None:
            self._note(say("'windows' or 'linux' must stand here"), found[1])
        return None
