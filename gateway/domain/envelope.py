"""Operating envelopes: what one source says about one node in one direction under one key. Pure.

An envelope has primary blocks and fallback blocks, each naming the message that set it.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from gateway.domain.errors import InvalidBlock
from gateway.domain.ids import EnvelopeId, EvidenceId, NodeId, SourceId
from gateway.domain.lifecycle import State
from gateway.domain.quantities import Dimension, Direction, Watts
from gateway.domain.timeline import FOREVER, require_utc


class BlockKind(StrEnum):
    """Which of the two timelines a revision writes."""

    PRIMARY = "primary"
    FALLBACK = "fallback"


class RevisionMode(StrEnum):
    """How a revision meets what stands. OSCP overlays; OpenADR and 2030.5 replace whole."""

    OVERLAY = "overlay"
    REPLACE = "replace"
    REPLACE_FUTURE = "replace_future"


class LossPolicy(StrEnum):
    """What losing a source does to its envelopes."""

    FALLBACK_NOW = "fallback_now"
    EXHAUST_SCHEDULE = "exhaust_schedule"


class FallbackRule(StrEnum):
    """One entry of a binding's ordered fallback list."""

    FALLBACK_BLOCKS = "fallback_blocks"
    HOLD_OR_HALF_STATIC = "hold_or_half_static"
    FIXED = "fixed"
    STATIC_ONLY = "static_only"
    ZERO = "zero"


class Block(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A limit on ``[start, end)``: W or mA by ``dimension``, never negative.

    ``revision`` is the evidence id of the message that set it.

    Raises:
        InvalidBlock: end not after start, or a negative value.
        NotUtc: an instant that is not UTC.
    """

    start: datetime
    end: datetime
    value: int
    dimension: Dimension = Dimension.SUM_W
    revision: EvidenceId = EvidenceId("")

    def __post_init__(self) -> None:
        require_utc(self.start)
        require_utc(self.end)
        if self.end <= self.start:
            raise InvalidBlock(f"block ends ({self.end}) before it starts ({self.start})", code="INVALID_BLOCK")
        if self.value < 0:
            raise InvalidBlock(f"limit {self.value} is negative", code="INVALID_BLOCK")


@dataclass(frozen=True, slots=True)
class BindingPolicy:
    """How a binding of a source to a node treats gaps, silence and expiry. Durations in s."""

    on_loss: LossPolicy = LossPolicy.FALLBACK_NOW
    demands_envelope: bool = True
    resume_previous: bool = False
    loss_grace_s: int = 0
    gap_grace_s: int = 60
    recover_s: int = 60
    dwell_s: int = 0
    fallback: tuple[FallbackRule, ...] = (FallbackRule.FALLBACK_BLOCKS, FallbackRule.HOLD_OR_HALF_STATIC)
    fixed_w: Watts | None = None
    reaction_s: int = 60
    window_s: int = 60


class LimitValue(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One value in force: W or mA by ``dimension``; ``revision`` names the message behind it.

    ``revision`` is empty for what no message set (a share of the static limit).
    """

    dimension: Dimension
    value: int
    revision: EvidenceId = EvidenceId("")


class OperatingEnvelope(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The subject of the lifecycle. Times are instants of the controller.

    ``held`` is what was in force last (it goes on holding in FALLBACK_ELIGIBLE); ``fallen`` is what
    holds since the fallback began and never loosens by itself, also after EXPIRED as the stale
    policy (``stale`` is then True). ``fallback_ends`` is when the fallback blocks behind
    ``fallen`` end; ``fresh`` says that a primary revision came after the outage began.
    ``messages`` maps the revisions still in use to the sender's own message ids.
    """

    id: EnvelopeId
    source: SourceId
    node: NodeId
    direction: Direction
    key: str
    state: State
    entered_at: datetime
    primary: tuple[Block, ...] = ()
    fallback: tuple[Block, ...] = ()
    correlation: str = ""
    grace_s: int = 0
    fresh: bool = False
    held: tuple[LimitValue, ...] = ()
    fallen: tuple[LimitValue, ...] = ()
    fallback_rule: str = ""
    fallback_ends: datetime | None = None
    stale: bool = False
    cause: str = ""
    revisions: int = 0
    flags: tuple[str, ...] = ()
    messages: tuple[tuple[EvidenceId, str], ...] = ()


def overlay(old: Sequence[Block], new: Sequence[Block]) -> tuple[Block, ...]:
    """``new`` overwrites ``old`` exactly where it says something, per dimension.

    Blocks of ``new`` that overlap each other keep the tighter value where they do.
    """
    flat = tighten_overlaps(new)
    holes = {dimension: [b for b in flat if b.dimension is dimension] for dimension in {b.dimension for b in flat}}
    starts = {dimension: [b.start for b in mine] for dimension, mine in holes.items()}
    ends = {dimension: [b.end for b in mine] for dimension, mine in holes.items()}
    kept: list[Block] = []
    for block in old:
        mine = holes.get(block.dimension, [])
        # Disjoint and sorted: those that can touch the block stand side by side.
        first = bisect.bisect_right(ends.get(block.dimension, []), block.start)
        last = bisect.bisect_left(starts.get(block.dimension, []), block.end)
        kept.extend(_cut(block, mine[first:last]))
    return tuple(sorted((*kept, *flat), key=_order))


def tighten_overlaps(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Disjoint blocks per dimension; where the given ones overlap the tighter value holds."""
    if _is_in_order(blocks):
        return tuple(sorted(_merge(blocks), key=_order))
    out: list[Block] = []
    for dimension in dict.fromkeys(b.dimension for b in blocks):
        out += _flat([b for b in blocks if b.dimension is dimension])
    return tuple(sorted(_merge(out), key=_order))


def has_overlap(blocks: Sequence[Block]) -> bool:
    """Whether two blocks of one dimension overlap with different values."""
    if _is_in_order(blocks):
        return False
    by_dimension: dict[Dimension, list[Block]] = {}
    for block in sorted(blocks, key=_order):
        by_dimension.setdefault(block.dimension, []).append(block)
    for mine in by_dimension.values():
        latest = mine[0]
        for block in mine[1:]:
            if block.start < latest.end and (block.value != latest.value or block.end != latest.end):
                return True
            latest = max(latest, block, key=lambda b: b.end)
    return False


def revise(old: Sequence[Block], new: Sequence[Block], mode: RevisionMode) -> tuple[Block, ...]:
    """The blocks that hold after a revision."""
    match mode:
        case RevisionMode.REPLACE:
            return tighten_overlaps(new)
        case RevisionMode.REPLACE_FUTURE:
            if not new:
                return tuple(old)
            first = min(b.start for b in new)
            kept = [_until(b, first) for b in old if b.start < first]
            return overlay(kept, new)
        case RevisionMode.OVERLAY:
            return overlay(old, new)


def covering(blocks: Iterable[Block], instant: datetime) -> tuple[Block, ...]:
    """The blocks (one per dimension at most) that hold at ``instant``."""
    return tuple(b for b in blocks if b.start <= instant < b.end)


def last_end(blocks: Iterable[Block]) -> datetime | None:
    """End of the last block; None without blocks."""
    return max((b.end for b in blocks), default=None)


def next_edge(blocks: Iterable[Block], after: datetime) -> datetime:
    """The next start or end after an instant; ``FOREVER`` when there is none."""
    return min((e for b in blocks for e in (b.start, b.end) if e > after), default=FOREVER)


def prune(blocks: Iterable[Block], now: datetime, keep: timedelta = timedelta(hours=1)) -> tuple[Block, ...]:
    """Without the blocks that ended longer than ``keep`` ago; evidence remembers them."""
    return tuple(b for b in blocks if b.end > now - keep)


def _is_in_order(blocks: Sequence[Block]) -> bool:
    """Whether each block ends before the next one starts: nearly every forecast, and cheap to see."""
    return all(a.end <= b.start for a, b in itertools.pairwise(blocks))


def _order(block: Block) -> tuple[datetime, str, datetime]:
    return (block.start, block.dimension.value, block.end)


def _flat(blocks: Sequence[Block]) -> list[Block]:
    """One dimension's blocks without overlap: a sweep over the edges, the tightest open one on top."""
    out: list[Block] = []
    coming = deque(sorted(enumerate(blocks), key=lambda pair: pair[1].start))
    open_ones: list[tuple[int, int, Block]] = []
    for start, end in itertools.pairwise(sorted({e for b in blocks for e in (b.start, b.end)})):
        while coming and coming[0][1].start <= start:
            place, block = coming.popleft()
            heapq.heappush(open_ones, (block.value, place, block))
        while open_ones and open_ones[0][2].end <= start:
            heapq.heappop(open_ones)
        if open_ones:
            out.append(replace(open_ones[0][2], start=start, end=end))
    return out


def _until(block: Block, end: datetime) -> Block:
    return block if block.end <= end else replace(block, end=end)


def _cut(block: Block, holes: Sequence[Block]) -> list[Block]:
    pieces = [block]
    for hole in holes:
        rest: list[Block] = []
        for piece in pieces:
            if hole.end <= piece.start or piece.end <= hole.start:
                rest.append(piece)
                continue
            if piece.start < hole.start:
                rest.append(replace(piece, end=hole.start))
            if hole.end < piece.end:
                rest.append(replace(piece, start=hole.end))
        pieces = rest
    return pieces


def _merge(blocks: Sequence[Block]) -> list[Block]:
    out: list[Block] = []
    for block in sorted(blocks, key=lambda b: (b.dimension.value, b.start)):
        last = out[-1] if out else None
        same = last is not None and (last.dimension, last.value, last.revision) == (
            block.dimension,
            block.value,
            block.revision,
        )
        if last is not None and same and last.end == block.start:
            out[-1] = replace(last, end=block.end)
        else:
            out.append(block)
    return out
