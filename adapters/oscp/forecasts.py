"""What a forecast means, whole or in parts, and for what was asked before. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from adapters.oscp import translate, wire
from adapters.oscp.adjusting import Ask, AskState, compared
from adapters.oscp.link import ADAPTER_NAME, Decision, Link, Request, noted
from adapters.oscp.plain import PlainForecast, read_plain
from adapters.oscp.segments import (
    MAX_TOLD_BLOCKS,
    Assembly,
    Misfit,
    Pending,
    Place,
    Segment,
    StoredSegment,
    TooLarge,
)
from adapters.oscp.session import State
from gateway.domain.envelope import RevisionMode, tighten_overlaps
from gateway.domain.errors import GatewayError, MalformedMessage, NotAuthorised, UnknownGroup
from gateway.domain.events import EnvelopeRevised, Event, MessageRefused, SourceHeard
from gateway.domain.evidence import MessageRef
from gateway.domain.ids import PeerId, SourceId
from gateway.ports.gate import AdapterRow
from gateway.ports.grid import GroupBinding

DROPPED_PREFIX = "segments-dropped/"

SEGMENTED = "SEGMENTED"
"""Flag of a forecast that came in parts."""


def whole(
    links: Mapping[PeerId, Link], link: Link, request: Request, message: MessageRef, flags: tuple[str, ...]
) -> Decision:
    """A forecast in one message.

    Raises:
        PeerError, DomainError: refused.
    """
    body = _decode(link, request.body)
    binding = _binding(links, link, body.group_id)
    limit = translate.limit_of(body, binding, now=request.received_at, naive_zone=link.dialect.naive_zone())
    return _effect(link, body.group_id, body.type, binding, limit, message=message, flags=flags)


def part(links: Mapping[PeerId, Link], link: Link, request: Request, message: MessageRef, place: Place) -> Decision:
    """One of several parts of a forecast.

    Raises:
        PeerError, DomainError: refused, with no other effect. Where a part makes its message
        impossible the decision carries the refusal instead.
    """
    correlation = request.headers.get("x-correlation-id", "")
    if place.index > 1 and not correlation:
        raise MalformedMessage("X-Correlation-ID: a segment names the first one, or the one before it")
    stored = StoredSegment(message, place, correlation, request.body)
    segment = _read(links, link, stored)
    heard = _heard_by_forecast(link, message)
    step = noted("oscp.segment", message, f"segment {place.index} of {place.count}")
    before: tuple[Event, ...] = (step, heard) if heard else (step,)
    if link.pending.knows(segment.id):
        # The gate knows whether it is the same; either way nothing else happens.
        return Decision(message, before)
    try:
        pending, assembly, is_new = link.pending.place(segment)
    except Misfit as misfit:
        return _dropping(link, (misfit.assembly,), message, str(misfit), refusal=misfit.problem)
    if not is_new:
        return Decision(message, before)
    if not assembly.is_complete:
        row = AdapterRow(ADAPTER_NAME, segment.key(), segment.to_row())
        return Decision(message, before, rows=(row,), pending=pending)
    return _complete(links, link, assembly, pending, message, step)


def dropped(link: Link, assemblies: Sequence[Assembly], message: MessageRef) -> Decision:
    """Assemblies that did not become complete in time."""
    return _dropping(link, assemblies, message, "not complete in time")


def restored(
    links: Mapping[PeerId, Link], link: Link, rows: Mapping[str, bytes], dropped_ids: Sequence[str]
) -> Pending:
    """What was pending when we stopped; a part that means nothing any more is left out."""
    pending = Pending(dropped=tuple(dropped_ids))
    stored = [StoredSegment.from_row(row, link.id) for row in rows.values()]
    # In the order in which they were accepted, so that what fitted then fits again.
    for part_ in sorted(stored, key=lambda s: (s.message.received_at, s.place.index)):
        try:
            pending = pending.place(_read(links, link, part_))[0]
        except GatewayError:
            # The binding has gone: the rest of its message will be refused, and dropped in time.
            continue
    return pending


# --- parts --------------------------------------------------------------------------------------


def _read(links: Mapping[PeerId, Link], link: Link, stored: StoredSegment) -> Segment:
    body = _decode(link, stored.body)
    binding = _binding(links, link, body.group_id)
    at = stored.message.received_at
    blocks = translate.blocks_of(body, binding, now=at, naive_zone=link.dialect.naive_zone())
    return Segment(
        message=stored.message,
        place=stored.place,
        correlation=stored.correlation,
        body=stored.body,
        subject=(body.group_id, body.type.value),
        blocks=blocks,
    )


def _complete(
    links: Mapping[PeerId, Link],
    link: Link,
    assembly: Assembly,
    pending: Pending,
    message: MessageRef,
    step: Event,
) -> Decision:
    """The last part came: the joined forecast, under the name of its first part."""
    parts = assembly.in_order()
    group, type_ = parts[0].subject
    joined = tuple(block for p in parts for block in p.blocks)
    blocks = tighten_overlaps(joined)
    if len(blocks) > MAX_TOLD_BLOCKS:
        problem = TooLarge(f"the segments tell {len(blocks)} different blocks; at most {MAX_TOLD_BLOCKS} are kept")
        return _dropping(link, (assembly,), message, str(problem), refusal=problem)
    forecast_type = wire.ForecastType(type_)
    limit = translate.limit_in(forecast_type, joined, now=message.received_at)
    effect = _effect(
        link,
        group,
        forecast_type,
        _binding(links, link, group),
        limit and replace(limit, blocks=blocks),
        message=replace(parts[0].message, received_at=message.received_at),
        flags=(SEGMENTED,),
    )
    gone = tuple(AdapterRow(ADAPTER_NAME, p.key(), None) for p in parts if p.message != message)
    return replace(effect, message=message, events=(step, *effect.events), rows=(*effect.rows, *gone), pending=pending)


def _dropping(
    link: Link, assemblies: Sequence[Assembly], message: MessageRef, why: str, refusal: GatewayError | None = None
) -> Decision:
    """Drop assemblies: their rows go, their bodies stay as evidence, their ids are remembered."""
    pending = link.pending.without(assemblies)
    left = [s for a in link.pending.assemblies if a not in pending.assemblies for s in a.segments]
    events = tuple(
        MessageRefused(
            a.segments[0].message,
            "oscp.segments-dropped",
            f"{len(a.segments)} of {a.count} segments dropped: {why}",
        )
        for a in link.pending.assemblies
        if a not in pending.assemblies
    )
    rows = tuple(AdapterRow(ADAPTER_NAME, s.key(), None) for s in left)
    memory = AdapterRow(ADAPTER_NAME, f"{DROPPED_PREFIX}{link.id}", "\n".join(pending.dropped).encode())
    return Decision(message, events, rows=(*rows, memory) if left else (), pending=pending, refusal=refusal)


# --- what it changes ----------------------------------------------------------------------------


def _effect(
    link: Link,
    group: str,
    type_: wire.ForecastType,
    binding: GroupBinding,
    limit: translate.Limit | None,
    *,
    message: MessageRef,
    flags: tuple[str, ...],
) -> Decision:
    if limit is None:
        return Decision(message, (noted("oscp.optimum", message, f"advice for {group}, no effect"),))
    revised = EnvelopeRevised(
        source=SourceId(link.id),
        node=binding.node,
        direction=limit.direction,
        key=f"{ADAPTER_NAME}/{binding.group}",
        kind=limit.kind,
        blocks=limit.blocks,
        mode=RevisionMode.OVERLAY,
        message=message,
        correlation=message.message_id,
        flags=tuple(dict.fromkeys((*flags, *limit.flags))),
    )
    heard = _heard_by_forecast(link, message)
    asks, events, rows = _asked(link, group, type_.value, limit, message)
    return Decision(
        message,
        (heard, revised, *events) if heard else (revised, *events),
        listening=link.listening.heard(heard.alive_until) if heard and heard.alive_until else None,
        rows=rows,
        asks=asks,
        told=(group, type_.value, limit.blocks),
    )


def _asked(
    link: Link, group: str, type_: str, limit: translate.Limit, message: MessageRef
) -> tuple[tuple[Ask, ...] | None, tuple[Event, ...], tuple[AdapterRow, ...]]:
    """What a forecast means for what we asked for: open requests, evidence, rows."""
    changed: dict[str, Ask] = {}
    for ask in link.asks:
        if (ask.group, ask.type) == (group, type_):
            after = compared(ask, limit.blocks, message.received_at)
            if after is not ask:
                changed[ask.id] = after
    if not changed:
        return None, (), ()
    events = tuple(
        noted(f"oscp.adjust_{changed[ask.id].state}", message, f"{ask.id}: {group} {type_}")
        for ask in link.asks
        if ask.id in changed and changed[ask.id].state is not ask.state
    )
    closed = {a.id for a in changed.values() if a.state is AskState.GRANTED}
    rows = tuple(
        AdapterRow(ADAPTER_NAME, a.key(link.id), None if a.id in closed else a.to_row()) for a in changed.values()
    )
    asks = tuple(changed.get(a.id, a) for a in link.asks if a.id not in closed)
    return asks, events, rows


def _heard_by_forecast(link: Link, message: MessageRef) -> SourceHeard | None:
    """A forecast is a sign of life where nothing else can be: before the handshake, or by dialect."""
    early = link.relation.state is State.REGISTERED
    if link.dialect.liveness != "forecast" and not early:
        return None
    return SourceHeard(SourceId(link.id), alive_until(link, message), message)


def alive_until(link: Link, message: MessageRef) -> datetime:
    """Until when a message vouches for its sender."""
    if link.dialect.liveness == "forecast":
        return message.received_at + timedelta(seconds=link.dialect.silence_limit_s)
    return message.received_at + 2 * link.interval


def _decode(link: Link, body: bytes) -> wire.UpdateGroupCapacityForecast | PlainForecast:
    return read_plain(body) or wire.decode(
        wire.UpdateGroupCapacityForecast, body, numeric_strings=link.dialect.numeric_strings
    )


def _binding(links: Mapping[PeerId, Link], link: Link, group: str) -> GroupBinding:
    mine = link.groups.get(group)
    if mine is not None:
        return mine
    if any(group in other.groups for other in links.values()):
        raise NotAuthorised("group_id: not a group of this peer", code="oscp.foreign-group")
    raise UnknownGroup("group_id: unknown group")
