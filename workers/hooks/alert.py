"""`hook alert`: CLUSTERPRO's alert extension tells of one of its events (CLUSTERPRO.md, section 6); a fact to disk, and that is all.

How the extension quotes what it puts into a command line is not documented, and a text may hold anything: blanks, quotes, cp932
bytes. So nothing is refused: words that belong to no option are text, module and number may stand in front of it without options, and a
number that is none is 0 with what stood there kept in the text. And nothing is ever CLUSTERPRO's trouble: it ends 0, within a
moment, whatever goes wrong; an alert that could not be noted is lost.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

from workers.hooks import EXIT_GOOD
from workers.hooks.common import Facts

OPTIONS = ("folder", "module", "id", "boot")
"""Beside `text`, which takes everything behind it that is no option of these."""

LIMIT_S = 5.0
"""A disk that hangs is no reason to keep CLUSTERPRO waiting."""

TEXT_LIMIT = 2000
MODULE_LIMIT = 32
ID_LIMIT = 99_999
UNKNOWN_MODULE = "unknown"

_IN_FRONT = re.compile(r"\W*(?P<module>[A-Za-z]\w{0,15})\W+(?P<id>[0-9]{1,9})\b\W*(?P<text>.*)", re.DOTALL)


def run(argv: list[str]) -> tuple[int, str]:
    timer = threading.Timer(LIMIT_S, os._exit, (EXIT_GOOD,))
    timer.daemon = True
    timer.start()
    try:
        return EXIT_GOOD, _note(argv)
    finally:
        timer.cancel()


def _note(argv: list[str]) -> str:
    values, words = _sorted_out([_readable(word) for word in argv])
    if not values.get("folder"):
        return "--folder is missing: the alert is lost"
    facts = Facts(Path(values["folder"]), values.get("boot") or None, "alert")
    return "noted" if facts.write("AlertReceived", _alert(values, words)) else "the fact cannot be written: the alert is lost"


def _sorted_out(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options' values, each option's first one, and all other words."""
    values: dict[str, str] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name = word.removeprefix("--") if word.startswith("--") else ""
        if name in OPTIONS and name not in values and rest:
            values[name] = rest.pop(0)
        elif name != "text" or words:
            words.append(word)
    return values, words


def _alert(values: dict[str, str], words: list[str]) -> dict[str, object]:
    """The fact's data, from what was given by name and what was not."""
    module, number, text = values.get("module", ""), values.get("id", ""), " ".join(" ".join(words).split())
    if not module and not number and (front := _IN_FRONT.fullmatch(text)) is not None:
        module, number, text = front["module"], front["id"], front["text"]
    usable = number.isascii() and number.isdigit() and len(number) <= len(str(ID_LIMIT)) and int(number) <= ID_LIMIT
    if number and not usable:
        text = f"[{number[:MODULE_LIMIT]}] {text}"
    return {
        "module": module.strip().lower()[:MODULE_LIMIT] or UNKNOWN_MODULE, "id": int(number) if usable else 0, "text": text[:TEXT_LIMIT]
    }  # fmt: skip


def _readable(word: str) -> str:
    """A word whose bytes were none of this process's encoding: read as UTF-8 or cp932, and what remains is replaced."""
    if sys.platform == "win32":
        return word.encode("utf-8", "replace").decode("utf-8")
    raw = os.fsencode(word)
    for encoding in ("utf-8", "cp932"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", "replace")
