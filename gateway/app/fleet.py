"""What stations say, and what became of commands. Handlers of the controller; pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from gateway.app import judge, ledger
from gateway.app.limits import factor_at
from gateway.app.plan import facts_of
from gateway.app.state import Grant, Held, Point, Session, Station, Work
from gateway.app.withheld import begun, counted
from gateway.domain import events as ev
from gateway.domain.ids import EvidenceId, NodeId, SessionId, StationId
from gateway.domain.measurement import Quantity
from gateway.domain.topology import NodeKind

CLOCK_AHEAD = timedelta(seconds=5)
"""A sample from further in the future is suspect; it counts as measured when received."""


def station_connected(work: Work, event: ev.StationConnected) -> None:
    """A line is usable: everything about this station is asked and told anew."""
    sealed = work.seal(
        "station.connected",
        subject={"station": event.station},
        body={"generation": event.generation, "protocol": event.protocol, "listener": event.actor.listener},
    )
    work.causes.append(sealed)
    work.stations[event.station] = Station(
        id=event.station, generation=event.generation, connected=True, protocol=event.protocol, since=work.now
    )
    for known in _grants_of(work, event.station):
        work.set_grant(replace(line_lost(known, work.now), uncommandable_since=None, retry_at=None))
    if event.clock_skew_s is not None:
        _judge_clock(work, event.station, event.clock_skew_s, sealed)
    work.dirty = True


def clock_compared(work: Work, event: ev.ClockCompared) -> None:
    """Whether the times in a station's schedules mean the same to it and to us."""
    station = work.stations.get(event.station)
    if station is None or station.generation != event.generation:
        return
    sealed = work.seal(
        "station.clock",
        subject={"station": event.station},
        message=event.message,
        body={"ahead_s": event.ahead_s},
    )
    _judge_clock(work, event.station, event.ahead_s, sealed)


def _judge_clock(work: Work, station: StationId, skew_s: int, cause: EvidenceId) -> None:
    wrong = abs(skew_s) > work.settings.guard_s
    for known in _grants_of(work, station):
        if wrong == known.wrong_clock:
            continue
        sealed = work.seal(
            "device.clock_wrong" if wrong else "device.clock_right",
            subject={"evse": known.evse, "node": known.evse, "station": station},
            cause=(cause,),
            body={"skew_s": skew_s},
            reason="CLOCK_SKEW",
        )
        work.causes.append(sealed)
        work.set_grant(replace(known, wrong_clock=wrong))
        work.dirty = True


def station_disconnected(work: Work, event: ev.StationDisconnected) -> None:
    """A line is gone; what was under way may or may not have arrived."""
    known = work.stations.get(event.station)
    if known is None or known.generation != event.generation or not known.connected:
        return
    work.stations[event.station] = replace(known, connected=False, since=work.now)
    work.causes.append(
        work.seal(
            "station.disconnected",
            subject={"station": event.station},
            body={"generation": event.generation, "cause": event.cause[:200]},
        )
    )
    for grant in _grants_of(work, event.station):
        work.set_grant(line_lost(grant, work.now))
    work.dirty = True


def line_lost(grant: Grant, _now: datetime) -> Grant:
    """The grant once its line is gone: nothing is waited for, everything sent may be installed."""
    share, session = ledger.unresolved(grant.share), ledger.unresolved(grant.session)
    if share is grant.share and session is grant.session:
        return grant
    return replace(grant, share=share, session=session)


def station_noted(work: Work, event: ev.StationNoted) -> None:
    """Something a station said about itself."""
    work.seal(event.type, subject={"station": event.station}, message=event.message, body=dict(event.detail))


def evse_status(work: Work, event: ev.EvseStatus) -> None:
    """Occupied or not, wanting power or not."""
    grant = work.grant(event.evse)
    if (grant.occupied, grant.wants_power) != (event.occupied, event.wants_power):
        work.set_grant(replace(grant, occupied=event.occupied, wants_power=event.wants_power))
    session = work.sessions.get(event.evse)
    if session is not None and event.wants_power is not None and session.wants_power != event.wants_power:
        work.set_grant(counted(work, work.grant(event.evse)))
        work.sessions[event.evse] = replace(session, wants_power=event.wants_power)
        work.dirty = True


def session_started(work: Work, event: ev.SessionStarted) -> None:
    """A session began. One that stands at the same EVSE has ended without saying so."""
    before = work.sessions.get(event.evse)
    if before is not None and before.transaction != event.transaction:
        judge.conclude(work, before, work.now, None, before.evidence)
        _clear_session(work, event.evse)
    session_id = SessionId(work.new_id("ses"))
    sealed = work.seal(
        "session.started",
        subject={"evse": event.evse, "node": event.evse, "session": session_id, "transaction": event.transaction},
        message=event.message,
        body={
            "started_at": _text(event.started_at),
            "meter_wh": event.meter_wh,
            "user": event.user_hmac,
            "asked_wh": event.energy_asked_wh,
        },
    )
    work.causes.append(sealed)
    work.sessions[event.evse] = Session(
        id=session_id,
        evse=event.evse,
        transaction=event.transaction,
        started_at=event.started_at,
        evidence=sealed,
        meter_start_wh=event.meter_wh,
        asked_wh=event.energy_asked_wh,
        departure_at=event.departure_at,
    )
    work.set_grant(begun(work, replace(work.grant(event.evse), occupied=True)))
    work.dirty = True


def session_updated(work: Work, event: ev.SessionUpdated) -> None:
    """News of a running session; for one that we do not know, nothing."""
    session = work.sessions.get(event.evse)
    if session is None or session.transaction != event.transaction:
        return
    after = replace(
        session,
        wants_power=event.wants_power if event.wants_power is not None else session.wants_power,
        max_w=event.max_w if event.max_w is not None else session.max_w,
    )
    if after != session:
        work.set_grant(counted(work, work.grant(event.evse)))
        work.sessions[event.evse] = after
        work.dirty = True


def session_ended(work: Work, event: ev.SessionEnded) -> None:
    """A session is over: its profile died with it, the share holds again."""
    session = work.sessions.get(event.evse)
    known = session is not None and session.transaction == event.transaction
    sealed = work.seal(
        "session.ended",
        subject={"evse": event.evse, "node": event.evse, "transaction": event.transaction},
        cause=(session.evidence,) if session is not None and known else (),
        message=event.message,
        body={"ended_at": _text(event.ended_at), "meter_wh": event.meter_wh, "reason": event.reason[:64]},
    )
    if session is None or not known:
        return
    work.causes.append(sealed)
    judge.conclude(work, session, event.ended_at, event.meter_wh, sealed)
    _clear_session(work, event.evse)
    work.dirty = True


def _clear_session(work: Work, evse: NodeId) -> None:
    """Forget the session. Commands still on the wire stay possible until they are resolved."""
    work.sessions.pop(evse, None)
    grant = work.grant(evse)
    work.set_grant(settling(work, replace(grant, session=_while_it_lasts(work, evse, "session", grant.session))))


def settling(work: Work, grant: Grant) -> Grant:
    """The grant, remembering what its EVSE might draw until now if that was more.

    Kept until no fresh sample can be as old; a value that a later and larger one covers is dropped.
    """
    before = work.grant(grant.evse)
    facts, settings = facts_of(work, grant.evse), work.settings
    at = work.now - timedelta(seconds=settings.settle_s)
    was_w = ledger.worst_case_w(before, facts, at, settings, 0)
    if was_w <= ledger.worst_case_w(ledger.followed(grant), facts, at, settings, 0):
        return grant
    gone = work.now - timedelta(seconds=settings.fresh_s)
    kept = tuple((until, watts) for until, watts in before.settling if until > gone and watts > was_w)
    return replace(grant, settling=(*kept, (work.now + timedelta(seconds=settings.settle_s), was_w)))


def command_answered(work: Work, event: ev.CommandAnswered) -> None:
    """Resolve a command in the ledger and seal its fate."""
    grant = work.grants.get(event.evse)
    if grant is None:
        return
    layer = "share" if any(s.command == event.command for s in grant.share.maybe) else "session"
    held: Held = getattr(grant, layer)
    sent = next((s for s in held.maybe if s.command == event.command), None)
    sealed = _seal_answer(work, event, EvidenceId("") if sent is None else grant.decision)
    if sent is None:
        return
    match event.outcome:
        case ev.Outcome.ACCEPTED:
            held = ledger.accept(held, event.command, work.now, ordered=event.ordered, settings=work.settings)
            if not _is_owed(_with(grant, layer, held)):
                grant = replace(grant, uncommandable_since=None, retry_at=None)
        case ev.Outcome.SUPERSEDED | ev.Outcome.NOT_SENT:
            held = ledger.drop(held, event.command)
        case ev.Outcome.REJECTED | ev.Outcome.ERROR:
            held = ledger.drop(held, event.command)
            grant = _uncommandable(work, grant, sealed)
        case ev.Outcome.TIMEOUT | ev.Outcome.DISCONNECTED:
            held = ledger.unresolved(held, event.command)
            grant = _uncommandable(work, grant, sealed)
    work.set_grant(settling(work, _with(grant, layer, _while_it_lasts(work, event.evse, layer, held))))
    if event.outcome is ev.Outcome.ACCEPTED:
        work.slack = True  # what it leaves free can wait; what failed cannot
    else:
        work.dirty = True


def claim_refuted(work: Work, event: ev.ClaimRefuted) -> None:
    """A station allows more than it accepted: it counts at its most, until it proves a limit."""
    grant = work.grants.get(event.evse)
    station = None if grant is None else work.stations.get(facts_of(work, event.evse).station)
    if grant is None or station is None or station.generation != event.generation:
        return
    if grant.share.confirmed is None and grant.uncommandable_since is not None:
        return
    sealed = work.seal(
        "device.unproven",
        subject={"evse": event.evse, "node": event.evse, "station": station.id},
        body=dict(event.detail),
        reason="DEVICE_UNCOMMANDABLE",
    )
    work.causes.append(sealed)
    grant = replace(grant, share=replace(grant.share, confirmed=None))
    work.set_grant(_uncommandable(work, grant, sealed))
    work.dirty = True


def _while_it_lasts(work: Work, evse: NodeId, layer: str, held: Held) -> Held:
    """The layer; of a session that is over, only what is still waited for.

    A station refuses a schedule for a transaction that has ended, so none counts beyond its answer.
    """
    if layer == "share" or evse in work.sessions:
        return held
    return Held(maybe=tuple(sent for sent in held.maybe if sent.open))


def _is_owed(grant: Grant) -> bool:
    """Whether the newest command of a layer was not answered in time, so that it has to be repeated."""
    newest = [(held, held.maybe[-1]) for held in (grant.share, grant.session) if held.maybe]
    return any(not sent.open and sent.version > held.confirmed_version for held, sent in newest)


def _with(grant: Grant, layer: str, held: Held) -> Grant:
    return replace(grant, share=held) if layer == "share" else replace(grant, session=held)


def _seal_answer(work: Work, event: ev.CommandAnswered, decision: EvidenceId) -> EvidenceId:
    accepted = event.outcome is ev.Outcome.ACCEPTED
    sealed = work.seal(
        "setpoint.acknowledged" if accepted else "setpoint.failed",
        subject={
            "evse": event.evse,
            "node": event.evse,
            "station": facts_of(work, event.evse).station,
            "command": event.command,
        },
        cause=(decision,) if decision else (),
        body={"outcome": event.outcome.value, "detail": event.detail[:200], "latency_ms": event.latency_ms},
        reason="" if accepted else event.outcome.value,
    )
    work.causes.append(sealed)
    return sealed


def _uncommandable(work: Work, grant: Grant, cause: EvidenceId) -> Grant:
    """Count the EVSE at its worst case and make the others make room (rule 9)."""
    if grant.uncommandable_since is None:
        work.seal(
            "device.uncommandable",
            subject={"evse": grant.evse, "node": grant.evse},
            cause=(cause,),
            reason="DEVICE_UNCOMMANDABLE",
        )
        grant = replace(grant, uncommandable_since=work.now)
    return replace(grant, retry_at=work.now + timedelta(seconds=work.settings.retry_s))


def expire_answers(work: Work) -> None:
    """Stop waiting for what is unanswered for ``confirm_s``; it may still be installed."""
    limit = timedelta(seconds=work.settings.confirm_s)
    for grant in tuple(work.grants.values()):
        after = grant
        for layer in ("share", "session"):
            held: Held = getattr(after, layer)
            late = [s for s in held.maybe if s.open and work.now >= s.sent_at + limit]
            for sent in late:
                held = ledger.unresolved(held, sent.command)
            if late:
                held = _while_it_lasts(work, grant.evse, layer, held)
                after = _uncommandable(work, _with(after, layer, held), EvidenceId(""))
        if after is not grant:
            work.set_grant(settling(work, after))
            work.dirty = True


def has_due(work: Work) -> bool:
    """Whether a retry is due, or a car has had its time to follow. Renewals are seen by the periodic decision."""
    return any(
        (g.retry_at is not None and work.now >= g.retry_at)
        or any(left.until <= work.now for held in (g.share, g.session) for left in held.fading)
        for g in _connected_grants(work)
    )


def deadlines(work: Work) -> list[datetime]:
    """When answers and retries are due, and when replaced schedules are left."""
    out = []
    confirm = timedelta(seconds=work.settings.confirm_s)
    for grant in _connected_grants(work):
        out += [s.sent_at + confirm for held in (grant.share, grant.session) for s in held.maybe if s.open]
        out += [left.until for held in (grant.share, grant.session) for left in held.fading]
        if grant.retry_at is not None:
            out.append(grant.retry_at)
    return out


def take_sample(work: Work, sample: ev.Sample) -> None:
    """Put a sample into the register. A clock ahead of ours is not believed, a node that is gone not asked."""
    if sample.node not in work.facts.tree.nodes:
        return
    measured_at = sample.measured_at
    if measured_at > sample.received_at + CLOCK_AHEAD:
        measured_at = sample.received_at
    key = (sample.node, sample.quantity)
    known = work.points.get(key)
    if known is not None and known.measured_at > measured_at:
        return
    node = work.facts.tree.node(sample.node)
    factor = factor_at(work, node, work.now)
    work.points[key] = Point(sample.value, measured_at, sample.received_at, sample.quality)
    work.dirty = work.dirty or factor_at(work, node, work.now) != factor
    if sample.quantity is Quantity.P and node.kind is NodeKind.LOAD:
        moved = known is None or abs(known.value - sample.value) > work.settings.deadband_w
        work.dirty = work.dirty or moved


def check_draws(work: Work) -> None:
    """Find stations that draw more than everything they may hold: they lie (design, the meter proves)."""
    settings = work.settings
    for grant in tuple(work.grants.values()):
        point = work.points.get((grant.evse, Quantity.P))
        if point is None or grant.lying or grant.share.confirmed is None:
            continue
        if work.now - point.measured_at > timedelta(seconds=settings.fresh_s):
            continue  # what held so long ago is not remembered
        settle = timedelta(seconds=settings.settle_s)
        read_at = point.measured_at - settle
        allowed = ledger.worst_case_w(grant, facts_of(work, grant.evse), read_at, settings, 0)
        allowed = max(allowed, *(watts for until, watts in grant.settling if point.measured_at < until), 0)
        if point.value > allowed + max(settings.lying_w, allowed * settings.lying_pct // 100):
            work.causes.append(
                work.seal(
                    "device.lying",
                    subject={"evse": grant.evse, "node": grant.evse},
                    body={"measured_w": point.value, "allowed_w": allowed, "measured_at": _text(point.measured_at)},
                    reason="DEVICE_UNCOMMANDABLE",
                )
            )
            work.set_grant(replace(grant, lying=True))
            work.dirty = True


def _connected_grants(work: Work) -> list[Grant]:
    """Grants whose station can be told something: only there anything is due."""
    return [g for g in work.grants.values() if (s := work.stations.get(facts_of(work, g.evse).station)) and s.connected]


def _grants_of(work: Work, station: StationId) -> list[Grant]:
    return [
        work.grant(node.path)
        for node in work.facts.tree.evses()
        if node.evse is not None and node.evse.station == station
    ]


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
