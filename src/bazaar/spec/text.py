"""YAML to plain values, with the place of each key and value; bounded, since files are hostile.

Read from the parser's events rather than by a loader of the library: duplicate keys are found,
anchors cannot multiply without bound, depth is limited, and no tag makes an object. Scalars
are those of YAML 1.2's core schema: `on` and `22:30` are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from bazaar.errors import SpecError
from bazaar.model.problem import Problem

MOST_BYTES = 1 << 20
MOST_DEPTH = 32
MOST_NODES = 50_000  # after anchors are followed

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key and its value stand, counted from 1."""

    line: int
    column: int
    key_line: int
    key_column: int


@dataclass
class Document:
    """A parsed text: the value, where everything in it stands, and what is wrong with it."""

    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict[Path, Place])
    problems: list[Problem] = field(default_factory=list[Problem])


@dataclass(frozen=True, slots=True)
class _Node:
    """One node as written; ``items`` of a mapping are pairs of nodes."""

    kind: str  # scalar | sequence | mapping
    line: int
    column: int
    value: Any = None
    items: tuple[Any, ...] = ()


def parse(content: str, file: str) -> Document:
    """Read YAML text.

    Raises SpecError where it is no YAML or exceeds a bound; what is merely wrong in it
    (duplicate keys) is listed in the document, so that other mistakes are shown with it.
    """
    if len(content) > MOST_BYTES:
        raise SpecError([Problem(f"the file is larger than {MOST_BYTES >> 20} MiB", file)])
    document = Document()
    try:
        tree = _Reader(content, file).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise SpecError(
            [Problem(f"this is no YAML: {error.problem}", file, line, column)]
        ) from None
    except yaml.YAMLError as error:
        said = str(error).splitlines()[0]
        raise SpecError([Problem(f"this is no YAML: {said}", file)]) from None
    _Filler(document, file).fill(tree)
    return document


class _Reader:
    """Makes nodes of the parser's events."""

    def __init__(self, content: str, file: str) -> None:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.events: Iterator[Any] = iter(yaml.parse(content, Loader=loader))  # pyright: ignore[reportUnknownMemberType]
        self.file = file
        self.anchors: dict[str, _Node] = {}

    def document(self) -> _Node:
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return _Node("scalar", 1, 1)
        node = self.node(next(self.events), 0)
        next(self.events)  # the document's end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self.refuse(event, "a second document in one file; a file holds one bazaar")
        return node

    def node(self, event: Any, depth: int) -> _Node:
        if depth > MOST_DEPTH:
            self.refuse(event, f"nested deeper than {MOST_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            if str(event.anchor) not in self.anchors:
                self.refuse(event, f"there is no anchor '{event.anchor}' before this alias")
            return self.anchors[str(event.anchor)]
        tag = getattr(event, "tag", None)
        if tag and tag not in ("!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"):
            self.refuse(event, f"the tag '{tag[:60]}' means nothing here; leave it out")
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.ScalarEvent):
            plain = event.style in (None, "") and not tag
            value = scalar(str(event.value)) if plain else event.value
            node = _Node("scalar", line, column, value)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = tuple(self.items(yaml.SequenceEndEvent, depth))
            node = _Node("sequence", line, column, None, items)
        else:
            flat = list(self.items(yaml.MappingEndEvent, depth))
            pairs = tuple(zip(flat[::2], flat[1::2], strict=True))
            node = _Node("mapping", line, column, None, pairs)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def items(self, end: type[Any], depth: int) -> Iterator[_Node]:
        for event in self.events:
            if isinstance(event, end):
                return
            yield self.node(event, depth + 1)

    def refuse(self, event: Any, message: str) -> None:
        mark = event.start_mark
        raise SpecError([Problem(message, self.file, mark.line + 1, mark.column + 1)])


class _Filler:
    """Makes values of nodes, following anchors, and notes where each stands."""

    def __init__(self, document: Document, file: str) -> None:
        self.document = document
        self.file = file
        self.nodes = 0

    def fill(self, tree: _Node) -> None:
        self.document.places[()] = Place(tree.line, tree.column, tree.line, tree.column)
        self.document.value = self.value(tree, ())

    def value(self, node: _Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES or len(path) > MOST_DEPTH:
            raise SpecError(
                [Problem("anchors make this larger than any bazaar", self.file, node.line)]
            )
        if node.kind == "scalar":
            return node.value
        if node.kind == "sequence":
            found: list[Any] = []
            for index, item in enumerate(node.items):
                self.note((*path, index), item, item)
                found.append(self.value(item, (*path, index)))
            return found
        mapping: dict[str, Any] = {}
        for key_node, item in node.items:
            key = self.key(key_node, path)
            if key in mapping:
                first = self.document.places[(*path, key)].key_line
                self.problem(f"'{key}' stands here twice, first in line {first}", key_node, path)
                continue
            self.note((*path, key), item, key_node)
            mapping[key] = self.value(item, (*path, key))
        return mapping

    def key(self, node: _Node, path: Path) -> str:
        if node.kind != "scalar":
            self.problem("a key is one word, not a list or mapping", node, path)
            return ""
        if isinstance(node.value, str):
            return node.value
        return "null" if node.value is None else str(node.value).lower()

    def note(self, path: Path, item: _Node, key: _Node) -> None:
        self.document.places[path] = Place(item.line, item.column, key.line, key.column)

    def problem(self, message: str, node: _Node, path: Path) -> None:
        self.document.problems.append(
            Problem(message, self.file, node.line, node.column, dotted(path))
        )


def dotted(path: Path) -> str:
    """A path as messages show it: services.apache.volumes[0]."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            clean = "".join(c if c.isprintable() else "?" for c in part[:60])
            shown += f".{clean}" if shown else clean
    return shown


_SCALARS: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"~|null|Null|NULL|"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?[0-9]{1,18}"), int),
    (re.compile(r"0x[0-9a-fA-F]{1,16}"), lambda text: int(text, 16)),
    (re.compile(r"0o[0-7]{1,21}"), lambda text: int(text, 8)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]{1,2})?"), float),
    (re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]{1,2}"), float),
)


def scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema; infinities and NaN stay text."""
    if len(text) > 40:
        return text
    for pattern, read in _SCALARS:
        if pattern.fullmatch(text):
            return read(text)
    return text
