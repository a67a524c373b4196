"""From the bytes of a clp.conf to a tree of elements that know their lines.

Files in the wild declare one encoding and hold another (Japanese comments in a file that says ASCII), so encodings are tried:
the declared one, the one that the file's `<encode>` names, UTF-8, cp932; at last, everything undecodable is replaced, and said. The text
then goes to the XML parser as UTF-8, without its declaration. A file that breaks off or breaks a rule of XML gives the
tree up to there, and a finding.

XML can attack its reader. defusedxml refuses DTDs and entities; depth, elements and size are bounded here.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException
from defusedxml.sax import make_parser

from orchestrator.said import Said, say

SIZE_MAX = 20_000_000
"""Bytes. Real files have some ten to some hundred kilobytes."""
ELEMENTS_MAX = 200_000
DEPTH_MAX = 64

_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_DECLARED = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_ENCODE = re.compile(rb"<encode>\s*([A-Za-z0-9._-]{1,40})\s*</encode>")
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CODECS = {
    "ascii": "ascii",
    "us-ascii": "ascii",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "sjis": "cp932",
    "shift_jis": "cp932",
    "windows-31j": "cp932",
    "cp932": "cp932",
    "euc-jp": "euc_jp",
    "eucjp": "euc_jp",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5",
    "iso-8859-1": "latin-1",
}
"""The encodings that such files name. Only these: some codecs that Python knows are no encodings of text."""
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class ClpConfError(Exception):
    """The file cannot be used at all; `said` is why and what to do. Never quotes the file: it may hold secrets."""

    def __init__(self, said: Said) -> None:
        super().__init__(str(said))
        self.said = said


@dataclass(frozen=True)
class Place:
    """Where something stands: a path as `/root/group@failover1/policy@nodea`, and a line from 1 (0: the file as a whole)."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path} ({self.line})" if self.line else self.path


@dataclass(frozen=True)
class Finding:
    """What makes no sense in the file, and where."""

    said: Said
    place: Place


@dataclass(repr=False, eq=False)
class Element:
    """One element; `text` is what stands in it before and between its children, without blanks around it."""

    tag: str
    line: int
    attributes: dict[str, str] = field(default_factory=dict)
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)
    text: str = ""

    @property
    def name(self) -> str:
        """What CLUSTERPRO's own paths put behind an `@`."""
        own = self.attributes.get("name") or self.attributes.get("id")
        inner = next(self.all("name"), None) if own is None else None
        return clean(own or (inner.text if inner is not None else ""))

    @property
    def place(self) -> Place:
        own = f"{clean(self.tag)}@{self.name}" if self.name else clean(self.tag)
        return Place(f"{self.parent.place.path if self.parent else ''}/{own}", self.line)

    def all(self, tag: str) -> Iterator[Element]:
        return (child for child in self.children if child.tag == tag)

    def find(self, path: str) -> Element | None:
        """The first element at `a/b/c` below this one."""
        found: Element | None = self
        for tag in path.split("/"):
            found = next(found.all(tag), None) if found is not None else None
        return found


@dataclass(frozen=True)
class Tree:
    root: Element
    encoding: str
    findings: tuple[Finding, ...]


def clean(text: str) -> str:
    """A name from the file, fit for a terminal: one line, no control characters, of a length that a name may have."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", "\ufffd", " ".join(text.split()))[:255]


def read_tree(raw: bytes) -> Tree:
    """The tree in the bytes of a clp.conf.

    Raises:
        ClpConfError: too large, hostile, not XML at all, or not a configuration of CLUSTERPRO.
    """
    if len(raw) > SIZE_MAX:
        raise ClpConfError(say("the file is larger than {limit} MB; no clp.conf is", limit=SIZE_MAX // 1_000_000))
    text, encoding, findings = _decoded(raw)
    handler = _Handler()
    findings += _parse(text, handler)
    if handler.root is None:
        raise ClpConfError(say("this is no XML file; name the clp.conf that `clpcfctrl --pull` wrote"))
    if handler.root.tag != "root":
        raise ClpConfError(say("this is no configuration of CLUSTERPRO: its outermost element is not <root>"))
    return Tree(handler.root, encoding, tuple(findings))


# --- bytes to text ------------------------------------------------------------------------------------------------------------------


def _decoded(raw: bytes) -> tuple[str, str, list[Finding]]:
    """Text, encoding, and what had to be replaced."""
    findings = []
    try:
        encoding = next(codec for codec in _candidates(raw) if _decodes(raw, codec))
    except StopIteration:
        encoding = "cp932"
        findings.append(_about_file(say("no encoding fits the whole file; characters that cannot be read were replaced")))
    text = raw.decode(encoding, "replace")
    if _ILLEGAL.search(text):
        text = _ILLEGAL.sub("\ufffd", text)
        findings.append(_about_file(say("the file holds control characters; they were replaced")))
    return text, encoding, findings


def _about_file(said: Said) -> Finding:
    return Finding(said, Place("", 0))


def _decodes(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _candidates(raw: bytes) -> Iterator[str]:
    for mark, codec in _MARKS:
        if raw.startswith(mark):
            yield codec
    declared = [found[1].decode() for pattern in (_DECLARED, _ENCODE) if (found := pattern.search(raw)) is not None]
    yield from (_CODECS[name.lower()] for name in declared if name.lower() in _CODECS)
    yield from ("utf-8", "cp932")


# --- text to tree -------------------------------------------------------------------------------------------------------------------


class _TooMuch(Exception):
    """A bound of this module was reached."""


class _Handler(ContentHandler):
    """Builds the tree, with lines, within the bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.root: Element | None = None
        self.open: list[Element] = []
        self._count = 0
        self._locator: Any = None

    def setDocumentLocator(self, locator: Any) -> None:
        self._locator = locator

    def startElement(self, name: str, attributes: Any) -> None:
        self._count += 1
        if self._count > ELEMENTS_MAX or len(self.open) >= DEPTH_MAX:
            raise _TooMuch
        parent = self.open[-1] if self.open else None
        element = Element(name, self._locator.getLineNumber(), dict(attributes.items()), parent)
        if parent is not None:
            parent.children.append(element)
        elif self.root is None:
            self.root = element
        self.open.append(element)

    def characters(self, content: str) -> None:
        if content.strip() and self.open:
            self.open[-1].text = f"{self.open[-1].text}{content}" if self.open[-1].text else content.lstrip()

    def endElement(self, name: str) -> None:
        self.open.pop()


def _parse(text: str, handler: _Handler) -> list[Finding]:
    """Fills the handler; what XML cannot read is a finding, and what was read before it stays."""
    parser = make_parser()
    parser.forbid_dtd = True
    parser.setContentHandler(handler)
    # The declaration names an encoding that is no longer true; its line ends stay, so that lines are the file's.
    body = _DECLARATION.sub(lambda found: "\n" * found[0].count("\n"), text.removeprefix("\ufeff"), count=1).lstrip(" \t")
    try:
        parser.parse(io.BytesIO(body.encode()))
    except DefusedXmlException:
        raise ClpConfError(
            say("the file holds a DTD or entities, which no clp.conf does; it was not read, for such files can do harm")
        ) from None
    except _TooMuch:
        raise ClpConfError(say("the file is nested too deeply or has too many elements for a clp.conf; it was not read")) from None
    except SAXParseException as error:
        place = handler.open[-1].place.path if handler.open else ""
        found = say("here the file is no well-formed XML; what follows was not read")
        return [Finding(found, Place(place, error.getLineNumber() or 0))]
    return []
