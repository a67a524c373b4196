"""The scripts' settings file, for sh and for batch: every value arrives as it is, or it is refused with its place in dcsup.toml.

sh holds any character but those that end a line. Batch does not: `%` and `!` are read as variables wherever they stand, `"` ends a text,
and `call` doubles `^`; no way of writing them is right in every place where a script uses a value. They are refused. So is a character
that the chosen encoding lacks, for cmd would run another path.

A command is written as words: each one quoted, so that a path may hold blanks, `&`, `(` and `)`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

from orchestrator.rendering import Encoding, Target, Unfit, Words
from orchestrator.rendering.variables import Variable
from orchestrator.said import Said, say

NAMES = {"linux": "dcsup.env", "windows": "dcsup-env.bat"}
"""The settings file's name."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_NOT_IN_BATCH = re.compile(r'["%!^]')
_BARE = re.compile(r"[A-Za-z0-9_.:\\/@+-]+")
_FOUND_LENGTH = 60


def settings_file(variables: list[Variable], target: Target, words: Words) -> str:
    """The text of the settings file.

    Raises:
        Unfit: values that cannot be written for this platform or in this encoding.
    """
    refused = [*_refused(variables, target), *(_clashes(variables) if target.platform == "windows" else [])]
    if refused:
        raise Unfit(refused)
    lines = _batch(variables) if target.platform == "windows" else _sh(variables)
    comment = "rem " if target.platform == "windows" else "# "
    head = [say("Settings of the scripts beside this file, as lib{suffix} describes them.", suffix=target.suffix)]
    head += [say("Written by `dcsup render` from dcsup.toml: change that file, and render again.")]
    return "\n".join([*(comment + said.in_words(words) for said in head), *lines]) + "\n"


def sh_command(words: Iterable[str]) -> str:
    """A command line for sh."""
    return shlex.join(words)


def batch_command(words: Iterable[str]) -> str:
    """A command line for batch. The first word is always quoted, so that a reader sees where the path ends."""
    first, *more = words
    return " ".join([f'"{first}"', *(word if _BARE.fullmatch(word) else f'"{word}"' for word in more)])


def _sh(variables: list[Variable]) -> Iterator[str]:
    for variable in variables:
        value = variable.value if isinstance(variable.value, str) else sh_command(variable.value)
        yield f"{variable.name}={shlex.quote(value)}"
    yield 'DCSUP_MESSAGES="$dcsup_here/messages.$DCSUP_LANG.sh"'
    yield "export DCSUP_LANG"


def _batch(variables: list[Variable]) -> Iterator[str]:
    for variable in variables:
        if isinstance(variable.value, str):
            yield f'set "{variable.name}={variable.value}"'
        else:  # no quotes round the whole: within them those of the words would end it
            yield f"set {variable.name}={batch_command(variable.value)}"


def _refused(variables: list[Variable], target: Target) -> Iterator[tuple[tuple[str | int, ...], Said, Said]]:
    for variable in variables:
        for value in (variable.value,) if isinstance(variable.value, str) else variable.value:
            why = _why_not(value, target)
            if why is not None:
                yield variable.where, say("found {value}", value=value[:_FOUND_LENGTH]), why
                break


def _why_not(value: str, target: Target) -> Said | None:
    if _CONTROL.search(value):
        return say("a script cannot hold a line end or a control character in a value")
    if target.platform == "linux":
        return None
    if found := _NOT_IN_BATCH.search(value):
        return say("a batch file cannot hold {character} in a path or a word: choose another path", character=found[0])
    if value.endswith("\\"):
        return say("in quotes a backslash at the end would escape the quote: leave it out")
    lacking = lacks(value, target.encoding)
    if lacking is not None:
        return say(
            "{encoding} has no character {character}: choose another path, or render with --encoding utf-8",
            encoding=target.encoding,
            character=lacking,
        )
    return None


def lacks(text: str, encoding: Encoding) -> str | None:
    """The first character that does not survive this encoding; also one that the encoding would quietly replace by another."""
    for character in text:
        try:
            if character.encode(encoding).decode(encoding) == character:
                continue
        except UnicodeError:
            pass
        return character
    return None


def _clashes(variables: list[Variable]) -> Iterator[tuple[tuple[str | int, ...], Said, Said]]:
    """Batch does not tell `DCSUP_START_deadline`, of a service called deadline, from `DCSUP_START_DEADLINE`."""
    seen: set[str] = set()
    for variable in sorted(variables, key=lambda one: one.where[:1] == ("node",)):
        name = variable.name.upper()
        if name in seen:
            expected = say("another name of the service: batch files cannot tell {one} from a setting of their own", one=variable.name)
            yield variable.where, say("found {value}", value=variable.name), expected
        seen.add(name)
