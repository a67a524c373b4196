"""Reading dcsup.toml: values, or every mistake at once.

The person who reads a refusal has an editor open, not a debugger: each mistake says the file, the line, the dotted path, what stands
there, and what may stand there. A syntax error hides what follows it, so it is told alone; everything else is told in one go.

"In one go" needs a trick. A check of two settings against each other only runs when each of them is good by itself, so a
misspelt number would hide that two services share a name. `_Reader` therefore repairs a copy as it goes: what is wrong is
reported, then dropped or replaced by a stand-in, and the copy is validated again until nothing new turns up. A clash that only
a stand-in caused is not told.

Texts are English templates with named values (`Said`); the CLI puts them into the reader's language.
"""

from __future__ import annotations

import copy
import difflib
import ipaddress
import json
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.said import Said, say
from orchestrator.tomllines import Path as KeyPath
from orchestrator.tomllines import first_trouble, lines_of, nearest
from statemachines.configuration import Clash, Configuration, Inconsistent
from statemachines.durations import parse_duration_s

_FOUND_LENGTH = 60
_SECRET = re.compile(r"pass|secret|token|url", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"(://[^:@/]*:).*(?=@)|(password=)[^&]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PASSES = 100
"""More repairs than any real file needs; a bound, so that no file can keep the reader busy for ever."""


@dataclass(frozen=True)
class Mistake:
    """One mistake. `line` counts from 1, 0: the file as a whole. `where` is the dotted path, empty for the file."""

    file: str
    line: int
    where: str
    found: Said
    expected: Said

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.where + ': ' if self.where else ''}{self.found}; {self.expected}"


class ConfigurationError(Exception):
    """The file cannot be used; `mistakes` holds every reason, in the order of the file."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


def load(path: str | Path) -> Configuration:
    """The configuration in a file.

    Raises:
        ConfigurationError: the file is missing, unreadable, not UTF-8, not TOML, or says something that is not allowed.
    """
    text = _decoded(str(path), _read(str(path)))
    data = _parsed(str(path), text)
    reader = _Reader(data)
    configuration = reader.read()
    if reader.mistakes or configuration is None:
        raise ConfigurationError(_placed(str(path), lines_of(text.encode()), reader.mistakes))
    return configuration


def dotted(where: KeyPath) -> str:
    """`clusters.pair.services[0].name`; keys that TOML would quote are quoted."""
    keys = (f"[{key}]" if isinstance(key, int) else f".{key if _BARE_KEY.fullmatch(key) else json.dumps(key)}" for key in where)
    return "".join(keys).removeprefix(".")


def masked(url: str) -> str:
    """A Redis URL fit for a screen: its password is three asterisks."""
    return _PASSWORD_IN_URL.sub(lambda match: f"{match[1] or match[2]}***", url)


# -- the file as a whole ----------------------------------------------------------------------------------------------------------


def _whole(path: str, line: int, found: Said, expected: Said) -> ConfigurationError:
    return ConfigurationError([Mistake(path, line, "", found, expected)])


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise _whole(path, 0, say("there is no such file"), say("name the configuration with --config FILE or DCSUP_CONFIG")) from None
    except OSError as error:
        found = say("the file cannot be read ({reason})", reason=error.strerror or error)
        raise _whole(path, 0, found, say("give this user the right to read it")) from None


def _decoded(path: str, raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _whole(path, 1, say("the file is UTF-16"), say("save it as UTF-8"))
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = say("the byte 0x{byte:02x} is not UTF-8", byte=raw[error.start])
        expected = say("it looks like Shift_JIS (cp932): save the file as UTF-8") if _is_cp932(raw) else say("save the file as UTF-8")
        raise _whole(path, line, found, expected) from None


def _is_cp932(raw: bytes) -> bool:
    try:
        raw.decode("cp932")
    except UnicodeDecodeError:
        return False
    return True


def _parsed(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _whole(path, 0, say("the values are nested too deeply"), say("write it as TOML")) from None
    except ValueError as error:
        raise _whole(path, *_syntax(text, str(error))) from None


def _syntax(text: str, message: str) -> tuple[int, Said, Said]:
    """Line, and what is wrong; tomllib tells the place inside its message, and only the end where something was left open."""
    what, _, place = message.rpartition(" (at ")
    numbers = re.fullmatch(r"line (\d+), column (\d+)\)", place)
    remedy = say("write it as TOML")
    if numbers:
        return int(numbers[1]), say("syntax error in column {column}: {what}", column=int(numbers[2]), what=what), remedy
    last = text.count("\n") + (not text.endswith("\n"))
    begun = first_trouble(text.encode()) or last
    column = len(text.splitlines()[begun - 1]) + 1
    return begun, say("syntax error in column {column}: {what}", column=column, what=what or message), remedy


def _placed(path: str, lines: Mapping[KeyPath, int], found: Mapping[KeyPath, list[tuple[Said, Said]]]) -> list[Mistake]:
    mistakes = [
        Mistake(path, nearest(lines, where), dotted(where), what, expected)
        for where, several in found.items()
        for what, expected in several
    ]
    return sorted(mistakes, key=lambda mistake: (mistake.line, mistake.where))


# -- what is in it ----------------------------------------------------------------------------------------------------------------


class _Reader:
    """Validates, collects mistakes, repairs the copy, validates again."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.repaired = copy.deepcopy(data)
        self.mistakes: dict[KeyPath, list[tuple[Said, Said]]] = {}
        self.stand_ins: list[str] = []

    def read(self) -> Configuration | None:
        """The configuration; only to be used if no mistakes were found."""
        for _ in range(_PASSES):
            try:
                configuration = Configuration.model_validate(self.repaired)
            except ValidationError as error:
                self._collect(error)
            else:
                for where, expected in _further(configuration):
                    self._note(where, _shown(where, _at(self.data, where)), expected)
                return configuration
        return None

    def _collect(self, error: ValidationError) -> None:
        for detail in error.errors(include_url=False):
            cause = detail.get("ctx", {}).get("error")
            if isinstance(cause, Inconsistent):
                for clash in cause.clashes:
                    self._clash(detail["loc"], clash)
            else:
                self._detail(detail)

    def _note(self, where: KeyPath, found: Said, expected: Said) -> None:
        """Once per place, and not below a place that is wrong already: there the stand-in would be blamed."""
        if not any(where[:n] in self.mistakes for n in range(1, len(where) + 1)):
            self.mistakes[where] = [(found, expected)]

    def _detail(self, detail: ErrorDetails) -> None:
        where, kind = tuple(detail["loc"]), detail["type"]
        if where[-1] == "[key]":
            where = where[:-1]
            self._note(where, _shown(where, where[-1]), _own_words(detail))
        elif kind == "missing":
            self._note(where, say("it is not there"), say("required: {kind}", kind=_kind_at(where)))
        elif kind == "extra_forbidden":
            self._note(where, say("no such key is known here"), _known_keys(where))
        else:
            self._note(where, _shown(where, detail["input"]), _allowed(where, detail))
        self._repair(where)

    def _clash(self, table: KeyPath, clash: Clash) -> None:
        where = (*table, *clash.where)
        if self._is_real(where, clash):
            self.mistakes.setdefault(where, []).append((_shown(where, _at(self.data, where)), Said(clash.text, clash.values)))
        self._repair_clash(where, clash)

    def _is_real(self, where: KeyPath, clash: Clash) -> bool:
        """Whether the file itself says so, and not the repaired copy alone."""
        if any(str(value) in self.stand_ins for value in clash.values.values()):
            return False
        match where:
            case ("redis",):
                return not any(wrong[:1] == ("redis",) for wrong in self.mistakes)
            case ("node", "cluster"):
                misspelt = any(len(wrong) == 2 and wrong[0] == "clusters" for wrong in self.mistakes)
                return not misspelt and _lacks(self.data, ("clusters",), clash.values["cluster"])
            case ("node", "name"):
                return _lacks(self.data, ("clusters", clash.values["cluster"], "nodes"), clash.values["name"])
            case ("keys", _):
                misspelt = any(len(wrong) == 2 and wrong[0] == "clusters" for wrong in self.mistakes)
                if "name" not in clash.values:
                    return not self._is_wrong_below(where)
                return not misspelt and _lacks(self.data, ("clusters",), clash.values["name"])
            case ("node", "key"):
                return not self._is_wrong_below(where)
            case ("node", "services"):
                return _lacks(self.data, where, clash.values["service"])
            case ("node", "services", _, *_):
                services = ("clusters", clash.values["cluster"], "services")
                return not any(wrong[:3] in (services, where[:3]) for wrong in self.mistakes)
            case ("clusters", _, "services", int(), _):
                return (*where[:4], "kind") not in self.mistakes
            case ("clusters", cluster, "clusterpro", "servers", _):
                return not any(wrong[:3] == ("clusters", cluster, "nodes") for wrong in self.mistakes)
            case ("clusters", cluster, "endpoints", int(), "service"):
                return not any(wrong[:3] == ("clusters", cluster, "services") for wrong in self.mistakes)
        return True

    def _is_wrong_below(self, where: KeyPath) -> bool:
        return any(wrong[: len(where)] == where for wrong in self.mistakes)

    def _repair(self, where: KeyPath) -> None:
        around, key = _at(self.repaired, where[:-1]), where[-1]
        if isinstance(around, dict) and key in around:
            del around[key]
        elif isinstance(around, (dict, list)):
            around[key] = self._stand_in(where)  # type: ignore[index]
        if self.repaired.get("clusters") == {} and where[:1] == ("clusters",):
            self.repaired["clusters"] = self._stand_in(("clusters",))

    def _repair_clash(self, where: KeyPath, clash: Clash) -> None:
        around, key = _at(self.repaired, where[:-1]), where[-1]
        match where:
            case ("redis",):
                self.repaired["redis"] = self._stand_in(where)
            case ("clusters", _, "services", int()):
                around.sort(key=lambda service: service["kind"])
            case ("keys", _) | ("node", "key") | ("orchestrator", _) | ("redis", _):
                around.pop(key, None)
            case ("node", *_):
                self.repaired.pop("node", None)
            case (
                ("clusters", _, "services", int(), "verbs" | "databases")
                | ("clusters", _, "endpoints", int(), "service")
                | ("clusters", _, "clusterpro", "servers", _)
            ):
                del around[key]
            case _:
                around[key] = self._stand_in(where)

    def _stand_in(self, where: KeyPath) -> Any:
        """Something that is valid in this place and clashes with nothing."""
        match where:
            case ("redis",):
                return {"url": "redis://localhost"}
            case ("clusters",):
                return {self._name(): self._cluster()}
            case ("clusters", _):
                return self._cluster()
            case ("clusters", _, "nodes"):
                return [self._name()]
            case ("clusters", _, "services"):
                return [self._service()]
            case ("clusters", _, "services", int()):
                return self._service()
            case ("clusters", _, "services", int(n), "kind"):
                before = _at(self.repaired, where[:-2])[:n]
                return "server" if any(service.get("kind") == "server" for service in before) else "agent"
            case ("node", "services"):
                return {}
            case (*_, "command" | "status"):
                return [self._name()]
        return self._name()

    def _name(self) -> str:
        self.stand_ins.append(f"stand-in-{len(self.stand_ins)}-x")
        return self.stand_ins[-1]

    def _service(self) -> dict[str, str]:
        return {"name": self._name(), "kind": "agent"}

    def _cluster(self) -> dict[str, Any]:
        return {"group": self._name(), "nodes": [self._name()], "services": [self._service()]}


def _at(data: Any, where: KeyPath) -> Any:
    """What stands at a path, None where nothing does."""
    for key in where:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _lacks(data: Any, where: KeyPath, key: str) -> bool:
    around = _at(data, where)
    return key not in around if isinstance(around, (dict, list)) else around is None and where[-1] == "services"


def _further(configuration: Configuration) -> Iterator[tuple[KeyPath, Said]]:
    """What the models leave to this reader: how addresses are spelt."""
    settings = configuration.orchestrator
    if not is_address(settings.listen):
        yield ("orchestrator", "listen"), say("an address and a port from 0 to 65535, such as 127.0.0.1:9464")
    elif not (is_loopback(settings.listen) or settings.has_token or settings.open):
        yield (
            ("orchestrator", "listen"),
            say("an address of this machine alone (127.0.0.1), or else token_file, token_env or `open = true`"),
        )


def is_address(listen: str) -> bool:
    host, _, port = listen.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and int(port) <= 65535


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach `host:port`. A name is believed only if it is localhost: what others mean can change."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


# -- words ------------------------------------------------------------------------------------------------------------------------


def _shown(where: KeyPath, value: Any) -> Said:
    """The value as the file would spell it, cut to a length that fits a line; secrets only as asterisks."""
    if value is None:
        return say("it is not there")
    if isinstance(value, dict):
        return say("found a table")
    text = json.dumps(value, ensure_ascii=False, default=str)
    if any(_SECRET.search(str(key)) for key in where[-1:]) or where[:1] == ("keys",) or where[:2] == ("node", "key"):
        text = masked(text) if "@" in text or "password=" in text else text if "url" in str(where[-1]) else "***"
    if len(text) > _FOUND_LENGTH:
        text = text[:_FOUND_LENGTH] + "..."
    return say("found {value}", value=text)


def _own_words(detail: ErrorDetails) -> Said:
    """The sentence of one of our own validators (statemachines/configuration.py, durations.py)."""
    return Said(str(detail["ctx"]["error"]).replace("{", "{{").replace("}", "}}"))


def _allowed(where: KeyPath, detail: ErrorDetails) -> Said:
    limits = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return _own_words(detail)
        case "greater_than":
            return say("more than {limit}", limit=limits["gt"])
        case "greater_than_equal":
            return say("{limit} or more", limit=limits["ge"])
        case "less_than_equal":
            return say("{limit} or less", limit=limits["le"])
        case "too_short":
            return say("at least {limit} of them", limit=limits["min_length"])
    return say("allowed: {kind}", kind=_kind_at(where))


def _known_keys(where: KeyPath) -> Said:
    model = _type_at(where[:-1])
    known = sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
    near = difflib.get_close_matches(str(where[-1]).lower().replace("-", "_"), known, n=1)
    if near:
        return say("did you mean {near}? known: {known}", near=near[0], known=", ".join(known))
    return say("known: {known}", known=", ".join(known))


def _type_at(where: KeyPath) -> Any:
    """The declared type at a path: a model, a Literal, `float`, `Annotated[...]`; None where nothing is declared."""
    declared: Any = Configuration
    for key in where:
        declared = _below(_bare(declared), key)
    return declared if isinstance(declared, type) and issubclass(declared, BaseModel) else _bare_of_optional(declared)


def _below(declared: Any, key: str | int) -> Any:
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        known = declared.model_fields.get(str(key))
        return None if known is None else Annotated[known.annotation, *known.metadata] if known.metadata else known.annotation
    return get_args(declared)[-1] if get_origin(declared) in (list, dict) else None


def _bare_of_optional(declared: Any) -> Any:
    if get_origin(declared) in (Union, types.UnionType):
        return next(one for one in get_args(declared) if one is not types.NoneType)
    return declared


def _bare(declared: Any) -> Any:
    declared = _bare_of_optional(declared)
    return _bare(get_args(declared)[0]) if get_origin(declared) is Annotated else declared


def _kind_at(where: KeyPath) -> Said:
    """What may stand at a path, in words."""
    declared = _type_at(where)
    if get_origin(declared) is Annotated and any(_is_duration(one) for one in get_args(declared)[1:]):
        return say('a duration such as "10s", "500ms" or "2m", or a number of seconds')
    bare = _bare(declared)
    if get_origin(bare) is Literal:
        return say("one of {values}", values=", ".join(json.dumps(value) for value in get_args(bare)))
    if get_origin(bare) is list and _bare(get_args(bare)[0]) is str:
        return say("a list of texts")
    if get_origin(bare) is list:
        return say("a list of tables")
    return _PLAIN.get(bare, _TABLE)


def _is_duration(metadata: object) -> bool:
    return isinstance(metadata, BeforeValidator) and metadata.func is parse_duration_s


_TABLE = say("a table")
_PLAIN: dict[Any, Said] = {
    str: say("a text"),
    int: say("a whole number"),
    float: say("a number"),
    bool: say("true or false"),
}
