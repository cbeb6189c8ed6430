"""What a person sees of a story: a live tree on a terminal, a line per event elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TextIO

from gateway.testing.physics import Reading

BAR_CELLS = 20
"""Width of a bar."""

LAST_EVENTS = 8
"""Events kept below the live tree."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the judge looked at. ``detail`` has the figures behind ``ok``."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verdict:
    """How a story ended. None: not reached, because the story broke before."""

    story: str
    seed: int
    signal_to_ack_ms: int | None = None
    excess_w: int | None = None
    excess_s: int | None = None
    evidence: int | None = None
    root: str = ""
    checks: tuple[Check, ...] = ()
    figures: Mapping[str, int | float | str] = field(default_factory=dict)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether every check held and there were some."""
        return not self.error and bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def word(self) -> str:
        """``ok`` or ``failed``."""
        return "ok" if self.ok else "failed"

    def line(self) -> str:
        """The last line of a story."""
        parts = {
            "signal_to_ack_ms": self.signal_to_ack_ms,
            "excess_w": self.excess_w,
            "excess_s": self.excess_s,
            "evidence": self.evidence,
            "root": self.root or None,
        }
        words = (f"{name}={'-' if value is None else value}" for name, value in parts.items())
        return " ".join((f"verdict {self.word}", *words))

    def document(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {
            "verdict": self.word,
            "story": self.story,
            "seed": self.seed,
            "signal_to_ack_ms": self.signal_to_ack_ms,
            "excess_w": self.excess_w,
            "excess_s": self.excess_s,
            "evidence": self.evidence,
            "root": self.root or None,
            "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in self.checks],
            "figures": dict(self.figures),
            "error": self.error or None,
        }


class Narrator(Protocol):
    """Where a story tells itself."""

    def open(self, title: str) -> None:
        """Begin."""
        ...

    def event(self, at: datetime, text: str) -> None:
        """Something happened at ``at`` of the story."""
        ...

    def frame(self, reading: Reading, notes: Mapping[str, str]) -> None:
        """The tree as it is now; ``notes`` by node."""
        ...

    def close(self, verdict: Verdict) -> None:
        """End."""
        ...


def narrator(json_output: bool, out: TextIO | None = None) -> Narrator:
    """The one that suits the output."""
    stream = out if out is not None else sys.stdout
    if json_output:
        return JsonNarrator(stream)
    return LiveNarrator(stream) if stream.isatty() else LineNarrator(stream)


class JsonNarrator:
    """Says nothing until the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def open(self, title: str) -> None:
        """Nothing."""

    def event(self, at: datetime, text: str) -> None:
        """Nothing."""

    def frame(self, reading: Reading, notes: Mapping[str, str]) -> None:
        """Nothing."""

    def close(self, verdict: Verdict) -> None:
        """One object."""
        self._out.write(json.dumps(verdict.document(), indent=2) + "\n")
        self._out.flush()


class LineNarrator:
    """One line per event."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def open(self, title: str) -> None:
        """The title."""
        self._write(title)

    def event(self, at: datetime, text: str) -> None:
        """Story time and text."""
        self._write(f"{at:%H:%M:%S}  {printable(text)}")

    def frame(self, reading: Reading, notes: Mapping[str, str]) -> None:
        """Nothing: a line per event is enough."""

    def close(self, verdict: Verdict) -> None:
        """Every check, then the verdict."""
        for line in closing_lines(verdict):
            self._write(line)

    def _write(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()


class LiveNarrator:
    """The tree, redrawn in place, with the last events below it."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=out, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=8, transient=False)
        self._title = ""
        self._rows: Sequence[str] = ()
        self._events: list[str] = []

    def open(self, title: str) -> None:
        """Take the screen."""
        self._title = title
        self._live.start()

    def event(self, at: datetime, text: str) -> None:
        """Add to the last events."""
        self._events = [*self._events[1 - LAST_EVENTS :], f"{at:%H:%M:%S}  {printable(text)}"]
        self._draw()

    def frame(self, reading: Reading, notes: Mapping[str, str]) -> None:
        """Redraw the tree."""
        self._rows = [f"{reading.at:%H:%M:%S}", *tree_rows(reading, notes)]
        self._draw()

    def close(self, verdict: Verdict) -> None:
        """Give the screen back, then every check and the verdict."""
        self._live.stop()
        for line in closing_lines(verdict):
            self._console.print(line, markup=False, soft_wrap=True)

    def _draw(self) -> None:
        from rich.text import Text

        self._live.update(Text("\n".join((self._title, *self._rows, "", *self._events))))


def tree_rows(reading: Reading, notes: Mapping[str, str]) -> list[str]:
    """One row per node, parents first: bar, limit, use, note. Bars are against the root's largest."""
    full = max((w for w in reading.limit_w.values() if w < float("inf")), default=1.0)
    rows = []
    for node in sorted(reading.power_w):
        depth = node.count("/")
        name = ("  " * depth + node.rpartition("/")[2]).ljust(14)
        used = reading.power_w[node]
        cells = min(BAR_CELLS, round(used / full * BAR_CELLS)) if full > 0 else 0
        bar = "▇" * cells + "▁" * (BAR_CELLS - cells)
        limit = reading.limit_w.get(node, float("inf"))
        words = f"{watts(limit)} limit" if limit < float("inf") else "-"
        rows.append(f"{name}{bar}  {words:>16}  {watts(used):>9} used  {notes.get(node, '')}".rstrip())
    return rows


def closing_lines(verdict: Verdict) -> list[str]:
    """Error, figures, checks, verdict line."""
    lines = [f"error  {printable(part)}" for part in verdict.error.splitlines()]
    lines += [f"{name}: {value}" for name, value in verdict.figures.items()]
    lines += [f"{'ok    ' if c.ok else 'FAILED'}  {c.name}: {printable(c.detail)}" for c in verdict.checks]
    return [*lines, verdict.line()]


def watts(value: float) -> str:
    """``38 870 W``."""
    return f"{round(value):,} W".replace(",", " ")


def printable(text: str) -> str:
    """Text from elsewhere without anything a terminal would obey."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
