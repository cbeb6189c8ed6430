"""Moving envelopes through their lifecycle, and what they limit at an instant. Pure.

The table is ``gateway.domain.lifecycle``; here stands which trigger has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from gateway.app.state import Source
from gateway.domain.envelope import (
    BindingPolicy,
    Block,
    FallbackRule,
    LimitValue,
    LossPolicy,
    OperatingEnvelope,
    covering,
    last_end,
)
from gateway.domain.lifecycle import State, Trigger, advance
from gateway.domain.quantities import Dimension, Direction
from gateway.domain.timeline import FOREVER
from gateway.domain.topology import Node

MAX_STEPS = 8
"""Longest possible chain of transitions at one instant, with room: the table has no longer path."""


@dataclass(frozen=True, slots=True)
class Move:
    """One transition that was made."""

    trigger: Trigger
    before: State
    after: State


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an envelope's moves depend on besides itself."""

    now: datetime
    source: Source | None
    policy: BindingPolicy
    node: Node

    @property
    def alive(self) -> bool:
        """Whether the source lives. A source never heard of is not alive."""
        return self.source is not None and self.source.is_alive(self.now)


def evolve(envelope: OperatingEnvelope, around: Surroundings) -> tuple[OperatingEnvelope, tuple[Move, ...]]:
    """Make every transition that is due at ``around.now``."""
    moves: list[Move] = []
    for _ in range(MAX_STEPS):
        trigger = _due(envelope, around)
        if trigger is None:
            break
        after = advance(envelope.state, trigger)
        moves.append(Move(trigger, envelope.state, after))
        envelope = _enter(envelope, trigger, after, around)
    return _hold(envelope, around), tuple(moves)


def limits_at(envelope: OperatingEnvelope, instant: datetime, around: Surroundings) -> tuple[LimitValue, ...]:
    """What the envelope limits at ``instant`` (now or later), as far as is known now.

    Where an envelope is demanded and no block speaks, the tighter of the value before the gap and
    the fallback is planned for: a plan must not count on a message that has not come. In fallback
    a primary block that covers the instant holds as well where it is tighter: it is known.
    """
    match envelope.state:
        case State.WITHDRAWN:
            return ()
        case State.EXPIRED:
            return envelope.fallen if envelope.stale else ()
        case State.ACTIVE_FALLBACK:
            return _tighter(
                _tighter(envelope.fallen, _values(covering(envelope.fallback, instant))),
                _values(covering(envelope.primary, instant)),
            )
        case State.FALLBACK_ELIGIBLE:
            held = _tighter(envelope.held, _values(covering(envelope.primary, instant)))
            if instant < envelope.entered_at + timedelta(seconds=envelope.grace_s):
                return held
            return _tighter(held, fallback_values(envelope, instant, around)[0])
        case State.RECEIVED | State.PENDING | State.ACTIVE:
            return _planned(envelope, instant, around)


def edges(envelope: OperatingEnvelope, around: Surroundings) -> tuple[datetime, ...]:
    """Every instant from now on at which :func:`limits_at` may change or a move may be due."""
    out = {e for b in (*envelope.primary, *envelope.fallback) for e in (b.start, b.end)}
    if envelope.state is State.FALLBACK_ELIGIBLE:
        out.add(envelope.entered_at + timedelta(seconds=envelope.grace_s))
    if envelope.state is State.ACTIVE_FALLBACK:
        out.add(envelope.entered_at + timedelta(seconds=around.policy.dwell_s))
        if envelope.fallback_ends is not None:
            out.add(envelope.fallback_ends)
        if around.source is not None:
            out.add(around.source.alive_since + timedelta(seconds=around.policy.recover_s))
    return tuple(e for e in out if e > around.now)


def fallback_values(
    envelope: OperatingEnvelope, instant: datetime, around: Surroundings
) -> tuple[tuple[LimitValue, ...], str, datetime | None]:
    """First usable entry of the binding's list: values, its name, and when it ends (None: never)."""
    for rule in around.policy.fallback:
        match rule:
            case FallbackRule.FALLBACK_BLOCKS:
                blocks = covering(envelope.fallback, instant)
                if blocks:
                    return _values(blocks), rule.value, _run_end(envelope.fallback, instant)
            case FallbackRule.FIXED:
                if around.policy.fixed_w is not None:
                    return (LimitValue(Dimension.SUM_W, around.policy.fixed_w),), rule.value, None
            case FallbackRule.ZERO:
                return (LimitValue(Dimension.SUM_W, 0),), rule.value, None
            case FallbackRule.STATIC_ONLY:
                return (), rule.value, None
            case FallbackRule.HOLD_OR_HALF_STATIC:
                return _tighter(envelope.held, _half_static(envelope, around.node)), rule.value, None
    return (LimitValue(Dimension.SUM_W, 0),), FallbackRule.ZERO.value, None


def _due(envelope: OperatingEnvelope, around: Surroundings) -> Trigger | None:
    match envelope.state:
        case State.RECEIVED:
            return _from_received(envelope, around)
        case State.PENDING:
            return _from_pending(envelope, around)
        case State.ACTIVE:
            return _from_active(envelope, around)
        case State.FALLBACK_ELIGIBLE:
            return _from_eligible(envelope, around)
        case State.ACTIVE_FALLBACK:
            return _from_fallback(envelope, around)
        case State.EXPIRED | State.WITHDRAWN:
            return None


def _from_received(envelope: OperatingEnvelope, around: Surroundings) -> Trigger:
    if _all_past(envelope, around.now):
        return Trigger.ALL_PAST
    if covering(envelope.primary, around.now) and around.alive:
        return Trigger.COVERS_NOW
    return Trigger.LIES_AHEAD


def _from_pending(envelope: OperatingEnvelope, around: Surroundings) -> Trigger | None:
    covered = covering(envelope.primary, around.now)
    if around.alive:
        if covered:
            return Trigger.STARTS
    elif covered or covering(envelope.fallback, around.now):
        return Trigger.STARTS_WITHOUT_SOURCE
    return Trigger.ENDED if _all_past(envelope, around.now) else None


def _from_active(envelope: OperatingEnvelope, around: Surroundings) -> Trigger | None:
    covered = covering(envelope.primary, around.now)
    if not around.alive and (around.policy.on_loss is LossPolicy.FALLBACK_NOW or not covered):
        return Trigger.SOURCE_LOST
    if covered:
        return None
    ended = (last_end(envelope.primary) or around.now) <= around.now
    return Trigger.ENDED if ended and not around.policy.demands_envelope else Trigger.GAP


def _from_eligible(envelope: OperatingEnvelope, around: Surroundings) -> Trigger | None:
    if covering(envelope.primary, around.now) and around.alive:
        return Trigger.PRIMARY_BACK
    if not around.policy.demands_envelope and _all_past(envelope, around.now):
        return Trigger.ENDED
    if around.now >= envelope.entered_at + timedelta(seconds=envelope.grace_s):
        return Trigger.GRACE_OVER
    return None


def _from_fallback(envelope: OperatingEnvelope, around: Surroundings) -> Trigger | None:
    policy, source = around.policy, around.source
    if (
        (envelope.fresh or policy.resume_previous)
        and covering(envelope.primary, around.now)
        and around.alive
        and source is not None
        and around.now >= source.alive_since + timedelta(seconds=policy.recover_s)
        and around.now >= envelope.entered_at + timedelta(seconds=policy.dwell_s)
    ):
        return Trigger.RECOVERED
    if envelope.fallback_ends is not None and around.now >= envelope.fallback_ends:
        return Trigger.FALLBACK_ENDED
    return None


def _enter(envelope: OperatingEnvelope, trigger: Trigger, after: State, around: Surroundings) -> OperatingEnvelope:
    grace = around.policy.gap_grace_s if trigger is Trigger.GAP else around.policy.loss_grace_s
    entered = replace(envelope, state=after, entered_at=around.now, cause=trigger.value, grace_s=grace)
    match trigger:
        case Trigger.STARTS_WITHOUT_SOURCE:
            held = _values(covering(envelope.primary, around.now))
            return replace(entered, held=held, fresh=False)
        case Trigger.SOURCE_LOST | Trigger.GAP:
            return replace(entered, fresh=False)
        case Trigger.GRACE_OVER:
            values, rule, ends = fallback_values(envelope, around.now, around)
            return replace(entered, fallen=values, fallback_rule=rule, fallback_ends=ends)
        case Trigger.FALLBACK_ENDED:
            return replace(entered, stale=True)
        case Trigger.RECOVERED | Trigger.PRIMARY_BACK:
            return replace(entered, fallen=(), fallback_rule="", fallback_ends=None, fresh=False)
        case _:
            return entered


def _hold(envelope: OperatingEnvelope, around: Surroundings) -> OperatingEnvelope:
    """Remember what is in force; in fallback let time tighten it, never loosen it."""
    if envelope.state is State.ACTIVE:
        values = _values(covering(envelope.primary, around.now))
        return envelope if values == envelope.held else replace(envelope, held=values)
    if envelope.state is State.ACTIVE_FALLBACK and envelope.fallback_rule == FallbackRule.FALLBACK_BLOCKS.value:
        values = _tighter(envelope.fallen, _values(covering(envelope.fallback, around.now)))
        ends = _run_end(envelope.fallback, around.now) or envelope.fallback_ends
        if values != envelope.fallen or ends != envelope.fallback_ends:
            return replace(envelope, fallen=values, fallback_ends=ends)
    return envelope


def _planned(envelope: OperatingEnvelope, instant: datetime, around: Surroundings) -> tuple[LimitValue, ...]:
    blocks = covering(envelope.primary, instant)
    if blocks:
        return _values(blocks)
    first = min((b.start for b in envelope.primary), default=FOREVER)
    if instant < first:
        return ()
    ended = (last_end(envelope.primary) or instant) <= instant
    if ended and not around.policy.demands_envelope:
        return ()
    before = _values(_last_before(envelope.primary, instant))
    return _tighter(before, fallback_values(envelope, instant, around)[0])


def _last_before(blocks: Sequence[Block], instant: datetime) -> tuple[Block, ...]:
    ended = [b for b in blocks if b.end <= instant]
    latest = max((b.end for b in ended), default=None)
    return tuple(b for b in ended if b.end == latest)


def _run_end(blocks: Sequence[Block], instant: datetime) -> datetime | None:
    """End of the unbroken run of blocks that covers ``instant``."""
    end: datetime | None = None
    at = instant
    for block in sorted(blocks, key=lambda b: b.start):
        if block.start <= at < block.end:
            at = end = block.end
    return end


def _all_past(envelope: OperatingEnvelope, now: datetime) -> bool:
    return (last_end((*envelope.primary, *envelope.fallback)) or now) <= now


def _values(blocks: Sequence[Block]) -> tuple[LimitValue, ...]:
    return tuple(LimitValue(b.dimension, b.value, b.revision) for b in blocks)


def _tighter(a: Sequence[LimitValue], b: Sequence[LimitValue]) -> tuple[LimitValue, ...]:
    """Per dimension the smaller value; a dimension that only one side limits stays limited."""
    out: dict[Dimension, LimitValue] = {}
    for value in (*a, *b):
        known = out.get(value.dimension)
        if known is None or value.value < known.value:
            out[value.dimension] = value
    return tuple(out[d] for d in sorted(out, key=lambda d: d.value))


def _half_static(envelope: OperatingEnvelope, node: Node) -> tuple[LimitValue, ...]:
    static = node.import_max_w if envelope.direction is Direction.IMPORT else node.export_max_w
    return () if static is None else (LimitValue(Dimension.SUM_W, static // 2),)
