"""The commands of the cluster manager that scripts and operators use, in ``<node>/clp/bin``.

``clpstat`` and ``clpgrp`` ask the node's own daemon and fail where it does not run; so does ``clplogcmd``. ``armsleep`` and ``armbcast``
work without it, as scripts that run outside a cluster need them. The text of ``clpstat`` follows the real one, trailing blanks
and cut names included.
"""

from __future__ import annotations

import os
import sys
import time

from .place import Place, ask_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CLUSTER_TIMEOUT_S = 7200.0
STATE_COLUMNS = 17


class Usage(Exception):
    """The command was called in a way it does not know."""


def main(argv: list[str]) -> int:
    """Run: command, node folder, and the caller's own arguments."""
    command, folder, *arguments = argv
    try:
        return _COMMANDS[command](Place(folder), arguments)
    except Usage as error:
        print(f"Error: Invalid option. {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"Error: Could not connect to the cluster service. ({error})", file=sys.stderr)
        return 1


def _ask(place: Place, node: str = "", **request: Any) -> dict[str, Any]:
    nodes = place.settings["nodes"]
    if node and node not in nodes:
        raise Usage(f"there is no server {node}")
    return ask_json(nodes[node or place.node]["control"], request, CLUSTER_TIMEOUT_S)


def _options(arguments: list[str], flags: str, valued: str) -> dict[str, str]:
    """``-x`` flags and ``-y value`` options by their letter; a bare word belongs to the flag before it."""
    options: dict[str, str] = {}
    words = iter(arguments)
    last = ""
    for word in words:
        letter = word[1:] if word.startswith("-") else ""
        if letter in flags.split():
            options[letter], last = "", letter
        elif letter in valued.split():
            options[letter] = next(words, "")
        elif last and not letter and not options[last]:
            options[last] = word
        else:
            raise Usage(word)
    return options


def _clpgrp(place: Place, arguments: list[str]) -> int:
    options = _options(arguments, "s t m n -st", "h a")
    group = next((options[letter] for letter in ("s", "t", "m", "n", "-st") if options.get(letter)), place.settings["group"])
    if group != place.settings["group"]:
        print(f"Error: Group {group} does not exist.", file=sys.stderr)
        return 1
    if "n" in options or "-st" in options:
        view = _ask(place, op="status")["view"]
        print(view["state"] if "-st" in options else view["owner"] or "", end="\n" if "-st" in options or view["owner"] else "")
        return 0
    return _operate(place, options)


def _clpcl(place: Place, arguments: list[str]) -> int:
    options = _options(arguments, "-suspend -resume a", "h")
    op = next((name for name in ("suspend", "resume") if "-" + name in options), None)
    if op is None:
        raise Usage("--suspend or --resume is needed")
    return _told(_ask(place, options.get("h", ""), op=op))


def _clpmonctrl(place: Place, arguments: list[str]) -> int:
    options = _options(arguments, "s r", "h m")
    if "s" not in options and "r" not in options:
        raise Usage("one of -s, -r is needed")
    names = [options["m"]] if "m" in options else []
    return _told(_ask(place, options.get("h", ""), op="monitors", names=names, suspended="s" in options))


def _operate(place: Place, options: dict[str, str]) -> int:
    op = next((name for letter, name in (("s", "start"), ("t", "stop"), ("m", "move")) if letter in options), None)
    if op is None:
        raise Usage("one of -s, -t, -m, -n, --st is needed")
    return _told(_ask(place, op=op, host=options.get("h"), destination=options.get("a")))


def _told(answer: dict[str, Any]) -> int:
    if not answer["ok"]:
        print(f"Error: {answer['error']}.", file=sys.stderr)
        return 1
    print("Command succeeded.")
    return 0


def _clplogcmd(place: Place, arguments: list[str]) -> int:
    options = _options(arguments, "-alert -syslog -mail -trap", "m i l")
    level = options.get("l", "INFO")
    if "m" not in options or level not in ("ERR", "WARN", "INFO"):
        raise Usage("-m message [-i id] [-l ERR|WARN|INFO]")
    _ask(place, op="log", message=options["m"], id=int(_number(options.get("i", "1"))), level=level)
    print("Command succeeded.")
    return 0


def _armsleep(place: Place, arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise Usage("armsleep seconds")
    place.record("sleeps", "armsleep", seconds=_number(arguments[0]), pid=os.getpid(), parent=os.getppid())
    time.sleep(_number(arguments[0]) * place.settings["armsleep_scale"])
    return 0


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise Usage(f"{word} is not a number") from error


def _armbcast(place: Place, arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[0].upper() != "/MSG":
        raise Usage('armbcast /MSG "text" /A')
    place.record("broadcasts", "message", message=arguments[1], argv=arguments, pid=os.getpid())
    return 0


def _clpstat(place: Place, arguments: list[str]) -> int:
    options = _options(arguments, "s -long -local", "h")
    status = _ask(place, options.get("h", ""), op="status")
    print(render_status(status, place.settings, wide="-long" in options))
    return 0


def render_status(status: dict[str, Any], settings: dict[str, Any], *, wide: bool) -> str:
    """``clpstat``'s text for one node's answer; ``wide`` is ``--long``."""
    columns = 34 if wide else 17
    lines = [" ========================  CLUSTER STATUS  ===========================", f"  Cluster : {settings['cluster']}"]
    lines += ["  <server>", *_servers(status, columns)]
    lines += ["  <group>", *_group(status["view"], settings["group"], columns)]
    lines += ["  <monitor>", *_monitors(status["view"], columns)]
    return "\n".join([*lines, " " + "=" * 69])


def _servers(status: dict[str, Any], columns: int) -> list[str]:
    lines = []
    for name, state in status["servers"].items():
        lines.append(_head("*" if name == status["node"] else " ", name, state, columns))
        lines.append(_child("lankhb1", "Offline" if state == "Offline" else "Normal", columns, "Kernel Mode LAN Heartbeat"))
    return lines


def _group(view: dict[str, Any], name: str, columns: int) -> list[str]:
    lines = [_head(" ", name, view["state"], columns), _child("current", view["owner"] or "None", columns, None)]
    return lines + [_child(resource, state, columns, "") for resource, state in view["resources"].items()]


def _monitors(view: dict[str, Any], columns: int) -> list[str]:
    return [f"    {_cut(name, columns):<{columns}}: {state:<{STATE_COLUMNS}}" for name, state in view["monitors"].items()]


def _head(star: str, name: str, state: str, columns: int) -> str:
    name = _cut(name, columns) + " "
    return f"   {star}{name:.<{columns}}: {state:<{STATE_COLUMNS}}"


def _child(name: str, state: str, columns: int, comment: str | None) -> str:
    text = state if comment is None else f"{state:<{STATE_COLUMNS}}{comment}"
    return f"      {_cut(name, columns):<{columns - 2}}: {text}"


def _cut(name: str, columns: int) -> str:
    return name[: columns - 1]


_COMMANDS: dict[str, Callable[[Place, list[str]], int]] = {
    "clpstat": _clpstat,
    "clpgrp": _clpgrp,
    "clpcl": _clpcl,
    "clpmonctrl": _clpmonctrl,
    "clplogcmd": _clplogcmd,
    "armsleep": _armsleep,
    "armbcast": _armbcast,
}
