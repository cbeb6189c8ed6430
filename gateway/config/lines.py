"""YAML into plain values, with the line of each. Knows no key of ``site.yaml``.

Nodes are read from ruamel's composer and turned into values here: that keeps every line, finds all
duplicate keys, and makes an alias or a tag a mistake instead of an object. Numbers are decimal; what
YAML would read as a date or an octal number stays text.
"""

from __future__ import annotations

import hashlib
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.config.problems import Place, Problems, shown

MAX_FILE_BYTES = 1024 * 1024
"""Largest file: some 8,000 EVSEs at 120 bytes each."""

MAX_DEPTH = 8
"""Deepest nesting; ours has 5."""

MAX_NESTING = 4 * MAX_DEPTH
"""Where composing stops: what is nested deeper than :data:`MAX_DEPTH` up to here is told with its place."""

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = frozenset(f"{_PREFIX}{name}" for name in ("str", "int", "float", "bool", "timestamp", "merge", "value"))
_NULL = f"{_PREFIX}null"
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]{0,29})")
_QUOTED = re.compile(r"(['\"])(?!<)[^'\"]{2,}\1")


@dataclass
class Source:
    """A file's values. ``lines`` is filled while reading and goes on being used by ``problems``."""

    sha256: str
    lines: dict[Place, int]
    problems: Problems
    values: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Source:
    """Read ``path``; mistakes that leave something readable are collected, not raised.

    Raises:
        ConfigError: there is nothing to go on with.
    """
    lines: dict[Place, int] = {}
    problems = Problems(str(path), lines)
    data = _bytes(path, problems)
    source = Source(hashlib.sha256(data).hexdigest(), lines, problems)
    root = _compose(_text(data, problems, lines), problems, lines)
    if root is None:
        problems.add("empty-file", (), "expected the sections of a site, the file says nothing")
        raise problems.error()
    if not isinstance(root, MappingNode):
        lines[()] = root.start_mark.line + 1
        problems.add("no-mapping", (), "expected a mapping of sections such as site:, nodes:, listeners:")
        raise problems.error()
    source.values = _Reader(problems, lines).value(root, ())
    return source


def _bytes(path: Path, problems: Problems) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            problems.add("no-file", (), "expected a regular file")
            raise problems.error()
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as problem:
        text = problem.strerror if isinstance(problem, OSError) else str(problem)
        problems.add("no-file", (), f"cannot be read: {text}", suggestion="name a site.yaml")
        raise problems.error() from problem
    if len(data) > MAX_FILE_BYTES:
        problems.add("file-size", (), f"larger than {MAX_FILE_BYTES} bytes")
        raise problems.error()
    return data


def _text(data: bytes, problems: Problems, lines: dict[Place, int]) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        lines[()] = data.count(b"\n", 0, problem.start) + 1
        problems.add("encoding", (), "expected UTF-8 text", found=f"byte 0x{data[problem.start]:02x}")
        raise problems.error() from problem


class _TooDeepError(Exception):
    """Composing was given up at ``line``, from 1."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Shallow(Composer):
    """Composes, and gives up at the first node that is too deep: the rest of the file is not even scanned."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self._depth >= MAX_NESTING:
            raise _TooDeepError(self.parser.peek_event().start_mark.line + 1)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _compose(text: str, problems: Problems, lines: dict[Place, int]) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Shallow
    try:
        node: Node | None = yaml.compose(text)
    except _TooDeepError as problem:
        lines[()] = problem.line
        problems.add("too-deep", (), f"nested deeper than {MAX_DEPTH} levels")
        raise problems.error() from problem
    except (YAMLError, ValueError) as problem:
        lines[()] = _line_of(problem, text)
        tab = isinstance(problem, MarkedYAMLError) and "'\\t'" in str(problem.problem)
        problems.add("yaml", (), _reason(problem), suggestion="indent with spaces, not with tabs" if tab else "")
        raise problems.error() from problem
    return node


def _line_of(problem: Exception, text: str) -> int:
    mark = problem.problem_mark if isinstance(problem, MarkedYAMLError) else None
    if mark is not None:
        return int(mark.line) + 1
    position = getattr(problem, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 0


def _reason(problem: Exception) -> str:
    """The parser's words without the pieces of the file that it quotes: one could be a secret."""
    if isinstance(problem, MarkedYAMLError):
        said = ", ".join(str(part) for part in (problem.context, problem.problem) if part)
        return f"no YAML: {_QUOTED.sub('…', said)}"
    if hasattr(problem, "character"):
        return "no YAML: a control character"
    return "no YAML"


class _Reader:
    """Nodes into values, mistakes on the way into ``problems``."""

    def __init__(self, problems: Problems, lines: dict[Place, int]) -> None:
        self._problems = problems
        self._lines = lines
        self._seen: set[int] = set()

    def value(self, node: Node, place: Place) -> Any:
        """The value of ``node``; None where it cannot be one (a mistake is noted)."""
        if id(node) in self._seen:
            text = "an alias; expected the value itself, so that its line says what holds"
            self._problems.add("yaml-alias", place, text, suggestion="write it out")
            return None
        self._seen.add(id(node))
        if place:
            self._lines.setdefault(place, node.start_mark.line + 1)
        if len(place) > MAX_DEPTH:
            self._problems.add("too-deep", place, f"nested deeper than {MAX_DEPTH} levels")
            return None
        if isinstance(node, MappingNode) and node.tag == f"{_PREFIX}map":
            return self._mapping(node, place)
        if isinstance(node, SequenceNode) and node.tag == f"{_PREFIX}seq":
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag in (*_PLAIN, _NULL):
            return self._scalar(node, place)
        self._problems.add("yaml-tag", place, "a YAML tag that says nothing here", suggestion="leave the tag out")
        return None

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode) or not key_node.value:
                self._problems.add("key", place, "expected a name before the colon", line=line)
                continue
            key = str(key_node.value)
            here = (*place, key)
            if here in self._lines:
                first = f"first on line {self._lines[here]}"
                self._problems.add("duplicate-key", here, "the same key twice", found=first, line=line)
                continue
            self._lines[here] = line
            value = self.value(value_node, here)
            if value is not None:
                values[key] = value
        return values

    def _scalar(self, node: ScalarNode, place: Place) -> str | int | float | bool | None:
        text = str(node.value)
        tag = str(node.tag)
        if tag == _NULL:
            hint = "leave the key out for no statement; 0 is nothing allowed"
            self._problems.add("empty-value", place, "expected a value after the key", suggestion=hint)
            return None
        try:
            if tag == f"{_PREFIX}bool" and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if tag == f"{_PREFIX}int" and _WHOLE.fullmatch(text):
                return int(text)
            if tag == f"{_PREFIX}float":
                return float(text.replace("_", ""))
        except ValueError:
            self._problems.add("value", place, "expected a number in decimals", found=shown(text, place))
            return None
        return text
