"""What we asked a Capacity Provider for, and what became of it. No I/O, no clock.

OSCP has no answer to ``adjust_group_capacity_forecast`` but later forecasts, and no correlation
between them. So each later forecast on the same blocks is compared with what was asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from gateway.domain.envelope import Block, overlay
from gateway.domain.ids import PeerId
from gateway.domain.quantities import Dimension
from gateway.domain.timeline import parse_rfc3339, rfc3339

ROW_PREFIX = "ask/"

MAX_ASKS = 100
"""Open per peer; a further one is refused."""


class AskState(StrEnum):
    """Of what we asked for."""

    REQUESTED = "requested"
    GRANTED = "granted"
    PARTLY_GRANTED = "partly_granted"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``given``: what was known to hold before; ``told``: what came since, on its blocks."""

    id: str
    group: str
    type: str
    blocks: tuple[Block, ...]
    given: tuple[Block, ...] = ()
    told: tuple[Block, ...] = ()
    state: AskState = AskState.REQUESTED

    @property
    def deadline(self) -> datetime:
        """When the last block that was asked for is over."""
        return max(b.end for b in self.blocks)

    def key(self, peer: PeerId) -> str:
        """Name of its row."""
        return f"{ROW_PREFIX}{peer}/{self.id}"

    def to_row(self) -> bytes:
        """JSON of the adapter row."""
        document = {
            "id": self.id,
            "group": self.group,
            "type": self.type,
            "state": self.state.value,
            **{name: [_written(b) for b in getattr(self, name)] for name in ("blocks", "given", "told")},
        }
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_row(cls, row: bytes) -> Ask:
        """The inverse of :meth:`to_row`."""
        data = json.loads(row)
        lists = {name: tuple(_read(b) for b in data[name]) for name in ("blocks", "given", "told")}
        return cls(data["id"], data["group"], data["type"], state=AskState(data["state"]), **lists)


def asked(ident: str, body: Mapping[str, Any], heard: Mapping[tuple[str, str], Iterable[Sequence[Block]]]) -> Ask:
    """A request as its outgoing fact has it: ``group``, ``type``, ``blocks``.

    Raises:
        KeyError, TypeError, ValueError: not such a fact: a bug of ours.
    """
    group, type_ = str(body["group"]), str(body["type"])
    blocks = tuple(_read([b["start"], b["end"], b["value"], b["dimension"]]) for b in body["blocks"])
    return Ask(ident, group, type_, blocks, known_before(heard.get((group, type_), ()), blocks))


def compared(ask: Ask, news: Sequence[Block], now: datetime) -> Ask:
    """The request after a forecast for its group and type; the same object when that says nothing.

    What had passed when the forecast came cannot be granted any more and does not count.
    """
    touching = tuple(b for b in news if any(_overlap(b, asked) for asked in ask.blocks))
    if not touching:
        return ask
    told = overlay(ask.told, touching)
    open_parts = [_from(b, now) for b in ask.blocks if b.end > now]
    if not open_parts:
        return ask
    if all(_is_kept(part, told) for part in open_parts):
        state = AskState.GRANTED
    elif any(_is_bettered(part, told, ask.given) for part in open_parts):
        state = AskState.PARTLY_GRANTED
    else:
        state = AskState.REQUESTED
    return replace(ask, told=told, state=state)


def known_before(earlier: Iterable[Sequence[Block]], asked: Sequence[Block]) -> tuple[Block, ...]:
    """What forecasts, oldest first, had said about the blocks that are asked for."""
    out: tuple[Block, ...] = ()
    for blocks in earlier:
        out = overlay(out, [b for b in blocks if any(_overlap(b, part) for part in asked)])
    return out


def _overlap(a: Block, b: Block) -> bool:
    return a.dimension is b.dimension and a.start < b.end and b.start < a.end


def _from(block: Block, now: datetime) -> Block:
    return Block(max(block.start, now), block.end, block.value, block.dimension, block.revision)


def _is_kept(asked: Block, told: Sequence[Block]) -> bool:
    """Whether every instant of a block has been given what was asked. ``told`` is disjoint and sorted."""
    at = asked.start
    for block in told:
        if _overlap(block, asked) and block.start <= at:
            if block.value < asked.value:
                return False
            at = max(at, block.end)
    return at >= asked.end


def _is_bettered(asked: Block, told: Sequence[Block], given: Sequence[Block]) -> bool:
    """Whether some part of a block has been given what was asked, or more than it had."""
    for block in (b for b in told if _overlap(b, asked)):
        before = [g.value for g in given if _overlap(g, block) and _overlap(g, asked)]
        if block.value >= asked.value or (before and block.value > min(before)):
            return True
    return False


def _written(block: Block) -> list[Any]:
    return [rfc3339(block.start), rfc3339(block.end), block.value, block.dimension.value]


def _read(data: Sequence[Any]) -> Block:
    return Block(parse_rfc3339(data[0]), parse_rfc3339(data[1]), int(data[2]), Dimension(data[3]))
