"""The controller of a site: ``step(state, events, now)`` gives the next state and what to do.

Deterministic: ids are derived, time is handed in, nothing is read or written. Everything that
concerns a site passes through here in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from gateway.app import adopt, fleet, judge, operate
from gateway.app.decide import MAX_CAUSES, decide
from gateway.app.envelopes import Move, edges, evolve, fallback_values
from gateway.app.limits import has_changed, next_change, surroundings
from gateway.app.state import SECTIONS, SiteFacts, SiteState, Source, Work, from_sections
from gateway.domain import events as ev
from gateway.domain.effects import Changes
from gateway.domain.envelope import (
    Block,
    BlockKind,
    LimitValue,
    OperatingEnvelope,
    has_overlap,
    prune,
    revise,
)
from gateway.domain.evidence import Json, MessageRef
from gateway.domain.ids import EnvelopeId, EvidenceId, NodeId, SourceId
from gateway.domain.lifecycle import State, Trigger, advance
from gateway.domain.timeline import FOREVER, rfc3339

__all__ = ["SECTIONS", "Controller", "SiteFacts", "SiteState", "from_sections", "step"]


@dataclass(frozen=True)
class Controller:
    """A site's facts with its step; what the runner holds."""

    facts: SiteFacts

    def step(self, state: SiteState, events: Sequence[ev.Event], now: datetime) -> tuple[SiteState, Changes]:
        """See :func:`step`."""
        return step(self.facts, state, events, now)


def step(facts: SiteFacts, state: SiteState, events: Sequence[ev.Event], now: datetime) -> tuple[SiteState, Changes]:
    """Take ``events`` in order at ``now`` and decide once.

    ``now`` never falls behind the last step's: a clock that stepped back waits. The state handed
    in is untouched.
    """
    now = max(now, state.control.last_now)
    work = Work(facts, state, now)
    if state.control.topology not in ("", facts.tree.version):
        adopt.adopt(work, next((e for e in events if isinstance(e, ev.TopologyChanged)), None), _withdraw)
    for event in events:
        if _is_known(work, event):
            _HANDLERS[type(event)](work, event)
    _pass_time(work)
    if work.dirty or (work.decide_at is not None and now >= work.decide_at):
        decide(work)
        work.decide_at, work.causes = None, []
    elif work.slack and work.decide_at is None:
        work.decide_at = now + timedelta(milliseconds=work.settings.gather_ms)
    judge.remember(work)
    judge.judge_due(work)
    judge.report_due(work)
    return _finish(work)


def _is_known(work: Work, event: ev.Event) -> bool:
    """Whether the EVSE of an event is there. What was under way when one was taken out is recorded, and no more."""
    evse: NodeId | None = getattr(event, "evse", None)
    if evse is None or evse in work.facts.tree.nodes:
        return True
    work.seal("evse.unknown", subject={"evse": evse, "node": evse}, body={"event": type(event).__name__})
    return False


def _finish(work: Work) -> tuple[SiteState, Changes]:
    rows = tuple(work.changed_rows())
    moved = bool(rows or work.evidence or work.outbox or work.commands or work.records)
    if moved:
        work.set_control(last_now=work.now)
        rows = tuple(work.changed_rows())
    seq = work.seq if moved else work.state.seq
    after = SiteState(
        seq=seq,
        control=work.control,
        sources=work.sources,
        envelopes=work.envelopes,
        stations=work.stations,
        grants=work.grants,
        sessions=work.sessions,
        points=work.points,
        history=work.history,
        applied=work.applied,
        ticks=work.ticks,
        looked_at=work.looked_at,
        decide_at=work.decide_at,
        causes=tuple(work.causes[:MAX_CAUSES]),
        next_deadline=_next_deadline(work),
    )
    changes = Changes(
        site=work.site,
        seq=seq if moved else 0,
        rows=rows,
        evidence=tuple(work.evidence),
        outbox=tuple(work.outbox),
        commands=tuple(work.commands),
        records=tuple(work.records),
    )
    return after, changes


# --- time -----------------------------------------------------------------------------------


def _pass_time(work: Work) -> None:
    """Everything that is due by the passing of time alone."""
    for source in tuple(work.sources.values()):
        if source.lost_at is None and not source.is_alive(work.now):
            work.sources[source.id] = replace(source, lost_at=work.now)
            _forget_freshness(work, source.id)
            sealed = work.seal("source.lost", subject={"peer": source.id})
            work.causes.append(sealed)
            work.dirty = True
    for envelope in tuple(work.envelopes.values()):
        _evolve(work, envelope)
    fleet.expire_answers(work)
    adopt.forget_departed(work)
    if work.sessions and work.now >= work.looked_at + timedelta(seconds=work.settings.period_s):
        work.dirty = True
    work.dirty = work.dirty or fleet.has_due(work) or _edge_passed(work) or has_changed(work)


def _forget_freshness(work: Work, source: SourceId) -> None:
    """What a source said before it was lost again is not fresh: it has to speak once more."""
    for envelope in tuple(work.envelopes.values()):
        if envelope.source == source and envelope.fresh:
            work.envelopes[envelope.id] = replace(envelope, fresh=False)


def _evolve(work: Work, envelope: OperatingEnvelope, cause: tuple[EvidenceId, ...] = ()) -> None:
    after, moves = evolve(envelope, surroundings(work, envelope))
    if after is envelope:
        return
    work.envelopes[envelope.id] = after
    work.dirty = True
    for move in moves:
        work.causes.append(_seal_move(work, after, move, cause))


def _seal_move(work: Work, envelope: OperatingEnvelope, move: Move, cause: tuple[EvidenceId, ...]) -> EvidenceId:
    values = envelope.fallen or envelope.held
    body: dict[str, Json] = {
        "from": move.before.value,
        "to": move.after.value,
        "trigger": move.trigger.value,
        "revision": envelope.revisions,
        "values": [{"dimension": v.dimension.value, "value": v.value} for v in values],
    }
    if envelope.fallback_rule:
        body["fallback"] = envelope.fallback_rule
    return work.seal(
        "envelope.state",
        subject={"envelope": envelope.id, "node": envelope.node, "peer": envelope.source},
        cause=(*cause, *(v.revision for v in values if v.revision)),
        body=body,
    )


def _edge_passed(work: Work) -> bool:
    """Whether a block began or ended since the last decision."""
    since = work.looked_at
    return any(
        since < edge <= work.now
        for envelope in work.envelopes.values()
        if not envelope.state.is_final
        for block in (*envelope.primary, *envelope.fallback)
        for edge in (block.start, block.end)
    )


def _next_deadline(work: Work) -> datetime:
    due = [work.decide_at or FOREVER]
    for envelope in work.envelopes.values():
        if not envelope.state.is_final:
            due += [e for e in edges(envelope, surroundings(work, envelope)) if e > work.now]
    due += [
        s.alive_until for s in work.sources.values() if s.lost_at is None and not s.ended and s.alive_until is not None
    ]
    due += fleet.deadlines(work)
    due += [gone.until for gone in work.control.departing.values()]
    due += [t for t in (judge.next_window(work), judge.next_report(work), next_change(work)) if t is not None]
    if work.sessions:
        due.append(work.looked_at + timedelta(seconds=work.settings.period_s))
    return max(min(due), work.now)


# --- grid side ------------------------------------------------------------------------------


def _envelope_revised(work: Work, event: ev.EnvelopeRevised) -> None:
    _heard(work, event.source, None)
    overlapping = has_overlap(event.blocks)
    flags = tuple(dict.fromkeys((*event.flags, *(("OVERLAPPING_BLOCKS",) if overlapping else ()))))
    revision = work.seal(
        "envelope.revised",
        subject={"node": event.node, "key": event.key},
        message=event.message,
        body={
            "direction": event.direction.value,
            "kind": event.kind.value,
            "mode": event.mode.value,
            "blocks": [_block_json(b) for b in event.blocks[:400]],
            "blocks_total": len(event.blocks),
            "flags": list(flags),
        },
    )
    work.causes.append(revision)
    known = _current(work, event)
    opened = known is None or known.state.is_final
    before = _new_envelope(work, event) if known is None or opened else known
    if known is not None and opened and known.stale:
        work.envelopes[known.id] = replace(known, stale=False)
    after = _revised(work, before, event, revision, flags)
    work.envelopes[after.id] = after
    if opened:
        work.causes.append(_seal_received(work, after, revision))
    _evolve(work, after, (revision,))
    work.dirty = True


def _seal_received(work: Work, envelope: OperatingEnvelope, revision: EvidenceId) -> EvidenceId:
    return work.seal(
        "envelope.state",
        subject={"envelope": envelope.id, "node": envelope.node, "peer": envelope.source},
        cause=(revision,),
        body={"from": "", "to": State.RECEIVED.value, "trigger": "first_revision", "revision": 1},
    )


def _current(work: Work, event: ev.EnvelopeRevised | ev.EnvelopeWithdrawn) -> OperatingEnvelope | None:
    """The newest envelope under the event's subject."""
    mine = [
        e
        for e in work.envelopes.values()
        if (e.source, e.node, e.direction, e.key) == (event.source, event.node, event.direction, event.key)
    ]
    open_ones = [e for e in mine if not e.state.is_final]
    return max(open_ones or mine, key=lambda e: e.id, default=None)


def _new_envelope(work: Work, event: ev.EnvelopeRevised) -> OperatingEnvelope:
    return OperatingEnvelope(
        id=EnvelopeId(work.new_id("env")),
        source=event.source,
        node=event.node,
        direction=event.direction,
        key=event.key,
        state=State.RECEIVED,
        entered_at=work.now,
    )


def _revised(
    work: Work,
    before: OperatingEnvelope,
    event: ev.EnvelopeRevised,
    revision: EvidenceId,
    flags: tuple[str, ...],
) -> OperatingEnvelope:
    blocks = tuple(replace(b, revision=revision) for b in event.blocks)
    primary, fallback = before.primary, before.fallback
    if event.kind is BlockKind.PRIMARY:
        primary = prune(revise(primary, blocks, event.mode), work.now)
    else:
        fallback = prune(revise(fallback, blocks, event.mode), work.now)
    used = {b.revision for b in (*primary, *fallback)}
    messages = (*(m for m in before.messages if m[0] in used), (revision, event.message.message_id))
    after = replace(
        before,
        primary=primary,
        fallback=fallback,
        correlation=event.correlation,
        revisions=before.revisions + 1,
        flags=flags,
        messages=messages,
        fresh=before.fresh or (event.kind is BlockKind.PRIMARY and before.state is State.ACTIVE_FALLBACK),
    )
    if event.kind is BlockKind.FALLBACK and before.state is State.ACTIVE_FALLBACK:
        values, rule, ends = fallback_values(after, work.now, surroundings(work, after))
        after = replace(after, fallen=values, fallback_rule=rule, fallback_ends=ends)
    return after


def _block_json(block: Block) -> Json:
    return {
        "start": rfc3339(block.start),
        "end": rfc3339(block.end),
        "value": block.value,
        "dimension": block.dimension.value,
    }


def _envelope_withdrawn(work: Work, event: ev.EnvelopeWithdrawn) -> None:
    sealed = work.seal("envelope.withdrawal", subject={"node": event.node, "key": event.key}, message=event.message)
    known = _current(work, event)
    if known is not None:
        _withdraw(work, known, event.cause, sealed)


def _withdraw(work: Work, envelope: OperatingEnvelope, cause: str, sealed: EvidenceId) -> None:
    if envelope.stale:
        work.envelopes[envelope.id] = replace(envelope, stale=False)
        work.dirty = True
    if envelope.state.is_final:
        return
    after = replace(
        envelope, state=advance(envelope.state, Trigger.WITHDRAW), entered_at=work.now, cause=cause, fallen=(), held=()
    )
    work.envelopes[envelope.id] = after
    work.causes.append(_seal_move(work, after, Move(Trigger.WITHDRAW, envelope.state, after.state), (sealed,)))
    work.dirty = True


def _source_heard(work: Work, event: ev.SourceHeard) -> None:
    _heard(work, event.source, event)


def _heard(work: Work, source_id: SourceId, event: ev.SourceHeard | None) -> None:
    """Note a life sign. A message that is no heartbeat vouches only where none ever came."""
    known = work.sources.get(source_id)
    silence = work.now + timedelta(seconds=work.settings.silence_s)
    if event is None:
        if known is not None and known.by_heartbeat:
            return
        until: datetime | None = silence
        by_heartbeat = False
    else:
        until, by_heartbeat = event.alive_until, event.alive_until is not None
    was_alive = known is not None and known.is_alive(work.now)
    source = Source(
        id=source_id,
        heard_at=work.now,
        alive_until=until,
        alive_since=known.alive_since if known is not None and was_alive else work.now,
        by_heartbeat=by_heartbeat or (known is not None and known.by_heartbeat),
    )
    work.sources[source_id] = source
    if not was_alive:
        message = event.message if event is not None else None
        work.causes.append(work.seal("source.alive", subject={"peer": source_id}, message=message))
        work.dirty = True


def _source_ended(work: Work, event: ev.SourceEnded) -> None:
    """End a relation. Its envelopes are withdrawn; the fallback stays as stale policy until released."""
    sealed = work.seal(
        "source.ended", subject={"peer": event.source}, message=event.message, body={"cause": event.cause}
    )
    for envelope in tuple(work.envelopes.values()):
        if envelope.source == event.source and not envelope.state.is_final:
            values, _, _ = fallback_values(envelope, work.now, surroundings(work, envelope))
            _withdraw(work, envelope, event.cause, sealed)
            _keep_as_stale(work, envelope, values)
    known = work.sources.get(event.source)
    if known is not None:
        work.sources[event.source] = replace(known, ended=True, lost_at=work.now)
    work.dirty = True


def _keep_as_stale(work: Work, envelope: OperatingEnvelope, values: tuple[LimitValue, ...]) -> None:
    """A successor that holds the fallback as ``STALE_POLICY`` after its source's relation ended."""
    successor = replace(
        envelope,
        id=EnvelopeId(work.new_id("env")),
        state=State.EXPIRED,
        entered_at=work.now,
        primary=(),
        fallback=(),
        held=(),
        fallen=values,
        stale=True,
        cause="relation_ended",
    )
    work.envelopes[successor.id] = successor


def _message_noted(work: Work, event: ev.MessageNoted) -> None:
    work.seal(event.type, message=event.message, body={"detail": event.detail} if event.detail else {})


def _message_refused(work: Work, event: ev.MessageRefused) -> None:
    work.seal("signal.refused", message=event.message, body={"text": event.text[:500]}, reason=event.code)


def _operator_acted(work: Work, event: ev.OperatorActed) -> None:
    operate.act(work, event, _withdraw)


# --- telemetry and the process --------------------------------------------------------------


def _telemetry_tick(work: Work, event: ev.TelemetryTick) -> None:
    work.ticks = (*work.ticks[-7:], event.sha256)
    for sample in event.samples:
        fleet.take_sample(work, sample)
    judge.note_power(work, work.now)
    fleet.check_draws(work)


def _deadline_reached(_work: Work, _event: ev.DeadlineReached) -> None:
    """Nothing of its own: what is due is found by ``_pass_time`` in every step."""


def _clock_stepped(work: Work, event: ev.ClockStepped) -> None:
    work.causes.append(work.seal("clock.step", body={"by_s": event.by_s}))
    work.dirty = True


def _gateway_started(work: Work, event: ev.GatewayStarted) -> None:
    """A new life: no line stands, every open command may be installed, deadlines are due now."""
    work.seal(
        "gateway.started",
        body={"epoch": event.epoch, "boot": event.boot, "cold": event.cold, "config_sha256": event.config_sha256},
    )
    work.set_control(epoch=event.epoch, boot=event.boot, started_at=work.now)
    for station in tuple(work.stations.values()):
        work.stations[station.id] = replace(station, connected=False)
    for grant in tuple(work.grants.values()):
        work.set_grant(fleet.line_lost(grant, work.now))
    adopt.adopt(work, None, _withdraw)


def _gateway_stopping(work: Work, event: ev.GatewayStopping) -> None:
    work.seal("gateway.stopping", body={"cause": event.cause})


def _report_delivered(work: Work, event: ev.ReportDelivered) -> None:
    work.seal(
        "report.delivered" if event.delivered else "report.failed",
        subject={"peer": event.peer, "work": event.work},
        cause=tuple(EvidenceId(c) for c in event.cause),
        body={"kind": event.kind, "detail": event.detail[:300]},
        reason="" if event.delivered else "gave_up",
    )


_HANDLERS: dict[type, Callable[[Work, Any], None]] = {
    ev.EnvelopeRevised: _envelope_revised,
    ev.EnvelopeWithdrawn: _envelope_withdrawn,
    ev.SourceHeard: _source_heard,
    ev.SourceEnded: _source_ended,
    ev.MessageNoted: _message_noted,
    ev.MessageRefused: _message_refused,
    ev.OperatorActed: _operator_acted,
    ev.StationConnected: fleet.station_connected,
    ev.StationDisconnected: fleet.station_disconnected,
    ev.StationNoted: fleet.station_noted,
    ev.EvseStatus: fleet.evse_status,
    ev.SessionStarted: fleet.session_started,
    ev.SessionUpdated: fleet.session_updated,
    ev.SessionEnded: fleet.session_ended,
    ev.CommandAnswered: fleet.command_answered,
    ev.ClaimRefuted: fleet.claim_refuted,
    ev.ClockCompared: fleet.clock_compared,
    ev.TelemetryTick: _telemetry_tick,
    ev.DeadlineReached: _deadline_reached,
    ev.ClockStepped: _clock_stepped,
    ev.GatewayStarted: _gateway_started,
    ev.EvsesLeaving: adopt.leave,
    ev.TopologyChanged: adopt.changed,
    ev.TopologyRefused: adopt.refused,
    ev.GatewayStopping: _gateway_stopping,
    ev.ReportDelivered: _report_delivered,
}


def message_subject(message: MessageRef, node: NodeId) -> dict[str, str]:
    """Subject of an entry about a message that concerns a node."""
    return {"peer": message.peer, "request_id": message.message_id, "node": node}
