"""Judging what was measured against what was in force, and reporting it. Pure.

Windows per binding, aligned to the epoch; late data is waited for a few seconds. Verdicts are
words of ``gateway.domain.compliance``.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from gateway.app.envelopes import limits_at
from gateway.app.limits import surroundings
from gateway.app.state import Session, Work
from gateway.domain.compliance import ComplianceRecord, judge
from gateway.domain.envelope import OperatingEnvelope
from gateway.domain.evidence import Json, canonical, sha256_hex
from gateway.domain.ids import EvidenceId, NodeId, PeerId
from gateway.domain.lifecycle import State
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import Dimension, Direction, WattHours
from gateway.domain.timeline import EPOCH, Interval, rfc3339
from gateway.domain.topology import NodeKind, Tree

KEEP = timedelta(minutes=20)
"""How long samples and limits stay in memory: longer than any window plus its late data."""

MAX_SAMPLES = 5_000
"""Per judged node; at one sample a second it covers ``KEEP``."""


def remember(work: Work) -> None:
    """Note what is measured and what is in force now, for the windows that are open."""
    for envelope in work.envelopes.values():
        if envelope.direction is not Direction.IMPORT:
            continue
        key = str(envelope.id)
        value = in_force_w(work, envelope)
        steps = work.applied.get(key, ())
        if (not steps and value is not None) or (steps and steps[-1][1] != value):
            work.applied[key] = _recent((*steps, (work.now, value)), work.now)


def note_power(work: Work, tick_at: datetime) -> None:
    """Add the power of every judged node as this tick leaves it."""
    for node in {e.node for e in work.envelopes.values()}:
        value = node_power_w(work, node)
        if value is not None:
            samples = work.history.get(node, ())
            if not samples or samples[-1][0] < tick_at:
                kept = [s for s in samples if s[0] > tick_at - KEEP][-MAX_SAMPLES:]
                work.history[node] = (*kept, (tick_at, value))


def node_power_w(work: Work, node: NodeId) -> int | None:
    """Import of a node, W: its own meter when fresh, else the sum below; None when unknown."""
    fresh = timedelta(seconds=work.settings.fresh_s)
    tree = work.facts.tree
    point = work.points.get((node, Quantity.P))
    if point is not None and point.quality is Quality.GOOD and work.now - point.received_at <= fresh:
        return point.value
    children = tree.children(node)
    kind = tree.node(node).kind
    if kind is NodeKind.EVSE:
        # An EVSE without a session and without news draws nothing that its station would hide.
        return 0 if node not in work.sessions and point is None else None
    if not children:
        return None
    parts = [node_power_w(work, child) for child in children]
    return None if any(p is None for p in parts) else sum(p for p in parts if p is not None)


def in_force_w(work: Work, envelope: OperatingEnvelope) -> int | None:
    """The watt limit on the sum that the envelope sets now; None when it sets none."""
    if envelope.state in (State.RECEIVED, State.PENDING, State.WITHDRAWN):
        return None
    values = limits_at(envelope, work.now, surroundings(work, envelope))
    return min((v.value for v in values if v.dimension is Dimension.SUM_W), default=None)


def judge_due(work: Work) -> None:
    """Judge every window that has closed."""
    for envelope in tuple(work.envelopes.values()):
        key = str(envelope.id)
        steps = work.applied.get(key)
        if not steps or envelope.direction is not Direction.IMPORT:
            continue
        policy = work.facts.policy(envelope.source, envelope.node)
        size = timedelta(seconds=policy.window_s)
        start = work.control.judged_until.get(key) or _floor(steps[0][0], size)
        while start + size + timedelta(seconds=work.settings.late_data_s) <= work.now:
            window = Interval(start, start + size)
            _judge_window(work, envelope, window, steps)
            start = window.end
        if start != work.control.judged_until.get(key):
            work.set_control(judged_until={**work.control.judged_until, key: start})


def next_window(work: Work) -> datetime | None:
    """When the next window can be judged."""
    ends = []
    for key, steps in work.applied.items():
        envelope = work.envelopes.get(key)
        if envelope is None or not steps:
            continue
        size = timedelta(seconds=work.facts.policy(envelope.source, envelope.node).window_s)
        start = work.control.judged_until.get(key) or _floor(steps[0][0], size)
        if steps[-1][1] is not None or start < steps[-1][0]:
            ends.append(start + size + timedelta(seconds=work.settings.late_data_s))
    return min(ends, default=None)


def _judge_window(
    work: Work,
    envelope: OperatingEnvelope,
    window: Interval,
    steps: tuple[tuple[datetime, int | None], ...],
) -> None:
    inside = [s for s in steps if s[0] < window.end]
    if not inside or (all(value is None for at, value in inside[-1:]) and inside[-1][0] <= window.start):
        return
    samples = [
        s for s in work.history.get(envelope.node, ()) if window.start - timedelta(minutes=2) <= s[0] < window.end
    ]
    policy = work.facts.policy(envelope.source, envelope.node)
    tightened = [at for (at, value), (_, before) in zip(steps[1:], steps, strict=False) if _tighter(value, before)]
    late = [at for at in (steps[0][0], *tightened) if at < window.end]
    record = judge(
        inside,
        samples,
        window,
        reaction_until=max(late) + timedelta(seconds=policy.reaction_s) if late else None,
    )
    digest = sha256_hex(canonical([[rfc3339(at), value] for at, value in samples]))
    revisions = tuple(v.revision for v in envelope.held) if not envelope.fallen else ()
    work.seal(
        "compliance.interval",
        subject={"node": envelope.node, "envelope": envelope.id, "peer": envelope.source},
        cause=(*(r for r in revisions if r), work.control.decision),
        body={**_record_body(record), "state": envelope.state.value, "samples": len(samples), "samples_sha256": digest},
        reason="" if record.verdict.value != "BREACH" else "ENVELOPE",
    )


def _record_body(record: ComplianceRecord) -> dict[str, Json]:
    return {
        "verdict": record.verdict.value,
        "start": rfc3339(record.window.start),
        "end": rfc3339(record.window.end),
        "limit_w": record.limit_w,
        "mean_w": record.mean_w,
        "excess_w": record.excess_w,
        "excess_wh": record.excess_wh,
        "worst_w": record.worst_w,
        "coverage_pct": record.coverage_pct,
    }


def report_due(work: Work) -> None:
    """Owe every reporting source the registers of its nodes, once a period."""
    period = timedelta(seconds=work.settings.report_s)
    for source, nodes in work.facts.reporting.items():
        known = work.sources.get(source)
        if known is None or known.ended:
            continue
        last = work.control.reported.get(source, EPOCH)
        if work.now < last + period:
            continue
        for node in nodes:
            values = _registers(work, node)
            if values:
                work.owe(
                    PeerId(source),
                    "measurements",
                    {"node": node, "values": values},
                    cause=(work.control.decision,) if work.control.decision else (),
                    expires_at=work.now + timedelta(days=1),
                )
        work.set_control(reported={**work.control.reported, source: work.now})


def next_report(work: Work) -> datetime | None:
    """When the next report is due."""
    period = timedelta(seconds=work.settings.report_s)
    due = [
        work.control.reported.get(s, EPOCH) + period
        for s in work.facts.reporting
        if s in work.sources and not work.sources[s].ended
    ]
    return min(due, default=None)


def complain(work: Work, path: NodeId, expected_w: int) -> None:
    """Announce to the sources of a node that load alone exceeds what they allow, once per message."""
    for envelope in work.envelopes.values():
        if envelope.node != path or envelope.state is not State.ACTIVE:
            continue
        requests = dict(envelope.messages)
        for block in envelope.primary:
            request = requests.get(block.revision, "")
            key = f"{request}/inflexible_load"
            if not block.start <= work.now < block.end or not request or key in work.control.complained:
                continue
            work.set_control(complained=(*work.control.complained, key)[-1_000:])
            work.owe(
                PeerId(envelope.source),
                "compliance_error",
                {
                    "message": f"reason=inflexible_load expected={expected_w}W limit={block.value}W",
                    "blocks": [
                        {
                            "start": rfc3339(block.start),
                            "end": rfc3339(block.end),
                            "value": expected_w,
                            "dimension": block.dimension.value,
                        }
                    ],
                },
                correlation=request,
                cause=(block.revision,),
            )


def conclude(work: Work, session: Session, ended_at: datetime, meter_wh: WattHours | None, ended: EvidenceId) -> None:
    """Seal the outcome of a session: asked, delivered, curtailed per cause."""
    delivered = None
    if meter_wh is not None and session.meter_start_wh is not None:
        delivered = meter_wh - session.meter_start_wh
    asked = session.asked_wh
    work.seal(
        "session.outcome",
        subject={"evse": session.evse, "node": session.evse, "session": session.id},
        cause=(session.evidence, ended, work.grant(session.evse).decision),
        body={
            "started_at": rfc3339(session.started_at),
            "ended_at": rfc3339(ended_at),
            "asked_wh": asked,
            "delivered_wh": delivered,
            "ready": None if asked is None or delivered is None else delivered >= asked,
            "curtailed_wh": {label: mws // 3_600_000 for label, mws in sorted(session.curtailed_mws.items())},
        },
    )


def _registers(work: Work, node: NodeId) -> list[Json]:
    out: list[Json] = []
    for quantity in (Quantity.E_IMPORT, Quantity.E_EXPORT):
        point = work.points.get((node, quantity))
        if point is not None and point.quality is Quality.GOOD:
            out.append(
                {
                    "quantity": quantity.value,
                    "value": point.value,
                    "measured_at": rfc3339(point.measured_at),
                    "scope": "TOTAL",
                }
            )
    flexible = flexible_register_wh(work, work.facts.tree, node)
    if out and flexible is not None:
        value, at = flexible
        out.append(
            {"quantity": Quantity.E_IMPORT.value, "value": value, "measured_at": rfc3339(at), "scope": "FLEXIBLE"}
        )
    return out


def flexible_register_wh(work: Work, tree: Tree, node: NodeId) -> tuple[int, datetime] | None:
    """Sum of the EVSE registers below a node and the oldest of their times; None if one is unknown."""
    points = [work.points.get((evse.path, Quantity.E_IMPORT)) for evse in tree.evses(node)]
    known = [p for p in points if p is not None]
    if not known or len(known) != len(points):
        return None
    return sum(p.value for p in known), min(p.measured_at for p in known)


def _tighter(value: int | None, before: int | None) -> bool:
    return value is not None and (before is None or value < before)


def _floor(instant: datetime, size: timedelta) -> datetime:
    return EPOCH + ((instant - EPOCH) // size) * size


def _recent(steps: tuple[tuple[datetime, int | None], ...], now: datetime) -> tuple[tuple[datetime, int | None], ...]:
    """Steps of the last ``KEEP``, and the one that held before."""
    cut = next((i for i, s in enumerate(steps) if s[0] > now - KEEP), len(steps))
    return steps[max(cut - 1, 0) :]
