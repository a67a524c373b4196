"""The draft as a commented dcsup.toml. Comments are in the reader's language: the caller brings the words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from orchestrator.clpconf.guessing import Draft, Service
from orchestrator.said import Said, say

Words = Callable[[Said], str]
FILL_IN = "FILL-IN"
"""What stands where nobody could know: no legal address, so that the file is refused, with the line, until a person was there."""


def toml_of(draft: Draft, words: Words) -> str:
    """The whole file, ending with a line end."""
    blocks = [_redis(), _cluster(draft), *(_service(draft, one) for one in draft.services), _clusterpro(draft), *_metadata(draft)]
    blocks += [*_endpoints(draft), _node(draft), *(_node_service(draft, one) for one in draft.services), _open(draft)]
    return "\n\n".join("\n".join(_lines(block, words)) for block in blocks) + "\n"


Line = str | Said
"""A line of TOML, or a comment."""


def _lines(block: list[Line], words: Words) -> Iterator[str]:
    for line in block:
        yield line if isinstance(line, str) else "# " + " ".join(words(line).split())


def text(value: str) -> str:
    """A TOML string; literal, so that Windows paths stay readable, where it can be."""
    if "'" not in value and "\\" in value:
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)


def _redis() -> list[Line]:
    return [
        say("written by `dcsup import`; look at every line that says 'guess', then run `dcsup check`"),
        "",
        "[redis]",
        say("not known: the address of your Redis, such as redis://host:6379/0"),
        f"url = {text(FILL_IN)}",
    ]


def _cluster(draft: Draft) -> list[Line]:
    nodes = ", ".join(text(name) for name in draft.nodes.values())
    return [
        f"[clusters.{draft.cluster}]",
        say("dcsup looks on and runs nothing; change it to supervise when the scripts are in place"),
        'mode = "observe"',
        say("CLUSTERPRO's group '{name}'", name=draft.group_there),
        f"group = {text(draft.group)}",
        draft.order_said,
        f"nodes = [{nodes}]",
    ]


def _service(draft: Draft, service: Service) -> list[Line]:
    lines: list[Line] = [f"[[clusters.{draft.cluster}.services]]", service.why, f'name = "{service.kind}"', f'kind = "{service.kind}"']
    if service.kind == "agent":
        lines += [say("not known: is one of its databases on the agent's own server (G2)?"), '# databases = "local"']
    return lines


def _clusterpro(draft: Draft) -> list[Line]:
    timeout = f"{draft.script_timeout_s:g}"
    lines: list[Line] = [f"[clusters.{draft.cluster}.clusterpro]", draft.timeout_said, f"script_timeout = {timeout}"]
    if draft.group_there != draft.group:
        lines.append(f"group = {text(draft.group_there)}")
    servers = ", ".join(f"{text(node)} = {text(host)}" for host, node in draft.nodes.items() if host != node)
    return [*lines, f"servers = {{ {servers} }}"] if servers else lines


def _metadata(draft: Draft) -> Iterator[list[Line]]:
    if any(service.kind == "server" for service in draft.services):
        yield [f"[clusters.{draft.cluster}.metadata]", say("guess: the guide's default (G31)"), "port = 22103"]


def _endpoints(draft: Draft) -> Iterator[list[Line]]:
    for address, resource in draft.addresses:
        for service in draft.services:
            yield [
                say("not known: the port (G28); the host is floating IP resource '{name}'", name=resource),
                f"# [[clusters.{draft.cluster}.endpoints]]",
                f'# name = "{service.kind}"',
                f"# host = {text(address)}",
                "# port = ",
                f'# service = "{service.kind}"',
            ]


def _node(draft: Draft) -> list[Line]:
    folder = "C:\\ProgramData\\dcsup" if draft.windows else "/var/lib/dcsup"
    suffix = ".exe" if draft.windows else ""
    return [
        say("what is different on each machine"),
        "[node]",
        draft.node_said,
        f"name = {text(draft.node)}",
        f"cluster = {text(draft.cluster)}",
        say("guess: a folder on a local disk, one that does not move with the group"),
        f"folder = {text(folder)}",
        say("guess: CLUSTERPRO's commands are on the path"),
        f'clpstat = ["clpstat{suffix}"]',
        f'clpgrp = ["clpgrp{suffix}"]',
        f'encoding = "{"cp932" if draft.windows else "utf-8"}"',
        say("not known: the command that lists the schedules, one JSON object a line"),
        "# probe = []",
    ]


def _node_service(draft: Draft, service: Service) -> list[Line]:
    return [
        f"[node.services.{service.kind}]",
        service.why,
        f"command = [{text(service.command)}]",
        f"status = [{text(service.status)}]",
    ]


def _open(draft: Draft) -> list[Line]:
    return [say("what could not be known:"), *(say("- {what}", what=one) for one in draft.unknown)]
