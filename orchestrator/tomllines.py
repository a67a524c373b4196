"""On which line of a TOML file a key stands.

`tomllib` gives values without lines; a parser that keeps them, tree-sitter, gives lines without values. This module walks
tree-sitter's tree and answers with a map from key path to line, for everything that TOML can spell: tables, arrays of tables, dotted
keys, quoted keys, inline tables, elements of arrays. A path is a tuple of keys and indices as pydantic names them:
`("clusters", "pair", "services", 0, "name")`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

Path = tuple[str | int, ...]

_KEYS = frozenset({"bare_key", "quoted_key", "dotted_key"})
_NOT_ELEMENTS = frozenset({"[", "]", ",", "comment"})


def lines_of(source: bytes) -> dict[Path, int]:
    """The line (from 1) of every key, table and array element of well-formed TOML; a table's line is its header's."""
    return _Lines().read(_tree(source))


def first_trouble(source: bytes) -> int | None:
    """The line on which tree-sitter stops understanding: where an unclosed bracket or text begins, which `tomllib` cannot tell."""
    return next((_line(node) for node in _walk(_tree(source)) if node.is_error or node.is_missing), None)


def nearest(lines: Mapping[Path, int], path: Path) -> int:
    """The line of the path, or of the nearest table around it; 0 when the file says nothing about it."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)


def _tree(source: bytes) -> Node:
    return Parser(Language(tree_sitter_toml.language())).parse(source).root_node


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _line(node: Node) -> int:
    return int(node.start_point[0]) + 1


def _keys(node: Node) -> list[str]:
    """A bare key, a quoted one, or the parts of a dotted one."""
    if node.type == "dotted_key":
        return [key for child in node.children if child.type in _KEYS for key in _keys(child)]
    text = (node.text or b"").decode()
    if node.type == "bare_key":
        return [text]
    return list(tomllib.loads(f"{text} = 0"))  # let TOML itself undo the quotes


class _Lines:
    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.last: dict[Path, int] = {}
        """Array of tables -> index of its latest element: what a later header below it means."""

    def read(self, root: Node) -> dict[Path, int]:
        here: Path = ()
        for node in root.children:
            if node.type == "pair":
                self._pair(here, node)
            elif node.type in ("table", "table_array_element"):
                here = self._header(node)
                for pair in node.children:
                    if pair.type == "pair":
                        self._pair(here, pair)
        return self.lines

    def _header(self, node: Node) -> Path:
        keys = next(_keys(child) for child in node.children if child.type in _KEYS)
        path: Path = ()
        for key in keys[:-1]:
            path = self._into((*path, key), node)
        path = (*path, keys[-1])
        if node.type == "table_array_element":
            self.lines.setdefault(path, _line(node))
            self.last[path] = self.last.get(path, -1) + 1
            path = (*path, self.last[path])
        self.lines[path] = _line(node)
        return path

    def _into(self, path: Path, node: Node) -> Path:
        self.lines.setdefault(path, _line(node))
        return (*path, self.last[path]) if path in self.last else path

    def _pair(self, here: Path, node: Node) -> None:
        key = next(child for child in node.children if child.type in _KEYS)
        for part in _keys(key):
            here = (*here, part)
            self.lines.setdefault(here, _line(node))
        self._value(here, node.children[-1])

    def _value(self, path: Path, node: Node) -> None:
        if node.type == "inline_table":
            for pair in node.children:
                if pair.type == "pair":
                    self._pair(path, pair)
        elif node.type == "array":
            for n, element in enumerate(child for child in node.children if child.type not in _NOT_ELEMENTS):
                self.lines[*path, n] = _line(element)
                self._value((*path, n), element)
