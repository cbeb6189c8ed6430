"""Judging what was measured against what was in force, and reporting it. Pure.

Windows per binding, aligned to the epoch; late data is waited for a few seconds. Verdicts are
words of ``gateway.domain.compliance``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from gateway.app import registers
from gateway.app.envelopes import limits_at
from gateway.app.limits import as_watts, surroundings
from gateway.app.loads import Load
from gateway.app.state import AppliedStep, Session, Work
from gateway.app.withheld import counted
from gateway.domain.compliance import ComplianceRecord, judge
from gateway.domain.envelope import Block, LimitValue, OperatingEnvelope
from gateway.domain.evidence import Json, canonical, sha256_hex
from gateway.domain.ids import EvidenceId, NodeId, PeerId
from gateway.domain.lifecycle import State
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import Dimension, Direction, WattHours
from gateway.domain.timeline import EPOCH, Interval, rfc3339
from gateway.domain.topology import NodeKind

KEEP = timedelta(minutes=20)
"""How long samples and limits stay in memory: longer than any window plus its late data."""

MAX_CITED = 16
"""Revisions cited by one window; more than one a second are not told apart."""

CLEARED_W = 1_000
"""So far below its limit a node must come until the same complaint may be made again."""

MAX_COMPLAINTS = 1_000
"""Announcements remembered; the oldest may be made again."""

MAX_TOLD_BLOCKS = 100
"""Blocks named in one announcement."""

MAX_SAMPLES = 5_000
"""Per judged node; at one sample a second it covers ``KEEP``."""


def remember(work: Work) -> None:
    """Note what is measured and what is in force now, for the windows that are open."""
    for envelope in work.envelopes.values():
        if envelope.direction is not Direction.IMPORT:
            continue
        key = str(envelope.id)
        value, revisions = in_force(work, envelope)
        steps = work.applied.get(key, ())
        if (not steps and value is not None) or (steps and steps[-1][1:] != (value, revisions)):
            work.applied[key] = _recent((*steps, (work.now, value, revisions)), work.now)


def note_power(work: Work, tick_at: datetime) -> None:
    """Add the power of every judged node as this tick leaves it."""
    for node in sorted({e.node for e in work.envelopes.values()}):
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


def in_force(work: Work, envelope: OperatingEnvelope) -> tuple[int | None, tuple[EvidenceId, ...]]:
    """The watt limit on the sum that the envelope sets now, and the revisions that say so.

    None: it sets none.
    """
    if envelope.state in (State.RECEIVED, State.PENDING, State.WITHDRAWN):
        return None, ()
    values = limits_at(envelope, work.now, surroundings(work, envelope))
    on_sum = [v for v in values if v.dimension is Dimension.SUM_W]
    revisions = tuple(sorted({EvidenceId(v.revision) for v in on_sum if v.revision}))
    return min((v.value for v in on_sum), default=None), revisions


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
    steps: tuple[AppliedStep, ...],
) -> None:
    inside = [s for s in steps if s[0] < window.end]
    if not inside or (inside[-1][1] is None and inside[-1][0] <= window.start):
        return
    samples = [
        s for s in work.history.get(envelope.node, ()) if window.start - timedelta(minutes=2) <= s[0] < window.end
    ]
    policy = work.facts.policy(envelope.source, envelope.node)
    tightened = [at for (_, before, _), (at, value, _) in pairwise(steps) if _tighter(value, before)]
    late = [at for at in (steps[0][0], *tightened) if at < window.end]
    record = judge(
        [(at, value) for at, value, _ in inside],
        samples,
        window,
        reaction_until=max(late) + timedelta(seconds=policy.reaction_s) if late else None,
    )
    digest = sha256_hex(canonical([[rfc3339(at), value] for at, value in samples]))
    # What held within the window: the last step before it and every step inside.
    first = next((i for i, s in reversed(list(enumerate(inside))) if s[0] <= window.start), 0)
    revisions = tuple(dict.fromkeys(r for _, _, said in inside[first:] for r in said))
    work.seal(
        "compliance.interval",
        subject={"node": envelope.node, "envelope": envelope.id, "peer": envelope.source},
        cause=(*revisions[-MAX_CITED:], work.control.decision),
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
    """Owe every reporting source the registers of its nodes, once a period; later where none is known yet."""
    period = timedelta(seconds=work.settings.report_s)
    for source, nodes in work.facts.reporting.items():
        known = work.sources.get(source)
        if known is None or known.ended:
            continue
        last = work.control.reported.get(source, EPOCH)
        if work.now < last + period:
            continue
        told = {node: values for node in nodes if (values := registers.values_of(work, node, last))}
        for node, values in told.items():
            work.owe(
                PeerId(source),
                "measurements",
                {"node": node, "values": values},
                cause=(work.control.decision,) if work.control.decision else (),
                expires_at=work.now + timedelta(days=1),
            )
        if told:
            work.set_control(reported={**work.control.reported, source: work.now})


def next_report(work: Work) -> datetime | None:
    """When the next report is due. One that is overdue lacks values and comes with the first of them."""
    period = timedelta(seconds=work.settings.report_s)
    due = [
        work.control.reported.get(s, EPOCH) + period
        for s in work.facts.reporting
        if s in work.sources and not work.sources[s].ended
    ]
    return min((at for at in due if at > work.now), default=None)


def complain(work: Work, path: NodeId, expected: Load) -> None:
    """Announce to the sources of a node the blocks that load and safe shares alone exceed.

    One error per message; again when the shortfall has grown by a tenth or by 1 kW, or after it
    had cleared. ``expected``: what the node takes although nothing is given out.
    """
    for envelope in work.envelopes.values():
        if envelope.node != path or envelope.direction is not Direction.IMPORT or envelope.state.is_final:
            continue
        blocks = envelope.fallback if envelope.fallen else envelope.primary
        requests = dict(envelope.messages)
        by_request: dict[str, list[tuple[Block, int]]] = {}
        for block in blocks:
            request = requests.get(block.revision, "")
            if request and block.end > work.now:
                limit_w = as_watts(work.facts.tree, path, LimitValue(block.dimension, block.value), expected)
                by_request.setdefault(request, []).append((block, limit_w))
        for request, limits in by_request.items():
            _announce(work, envelope, request, limits, expected.power_w)


def _announce(
    work: Work, envelope: OperatingEnvelope, request: str, limits: list[tuple[Block, int]], expected_w: int
) -> None:
    key = f"{request}/inflexible_load"
    short_w = expected_w - min(limit for _, limit in limits)
    known = work.control.complained.get(key)
    if known is not None and short_w <= -CLEARED_W:
        work.set_control(complained={k: v for k, v in work.control.complained.items() if k != key})
    if short_w <= 0 or (known is not None and short_w < known + min(max(known // 10, 100), 1_000)):
        return
    kept = list(work.control.complained.items())[-MAX_COMPLAINTS:]
    work.set_control(complained={**dict(kept), key: short_w})
    tight = [(block, limit) for block, limit in limits if limit < expected_w]
    work.owe(
        PeerId(envelope.source),
        "compliance_error",
        {
            "message": f"reason=inflexible_load expected={expected_w}W limit={min(limit for _, limit in tight)}W",
            "blocks": [
                {
                    "start": rfc3339(block.start),
                    "end": rfc3339(block.end),
                    "value": expected_w if block.dimension is Dimension.SUM_W else block.value,
                    "dimension": block.dimension.value,
                }
                for block, _ in tight[:MAX_TOLD_BLOCKS]
            ],
        },
        correlation=request,
        cause=tuple(dict.fromkeys(block.revision for block, _ in tight)),
    )


def conclude(work: Work, session: Session, ended_at: datetime, meter_wh: WattHours | None, ended: EvidenceId) -> None:
    """Seal the outcome of a session: asked, delivered, curtailed per cause."""
    delivered = None
    if meter_wh is not None and session.meter_start_wh is not None:
        delivered = WattHours(meter_wh - session.meter_start_wh)
    registers.note_finished(work, session, ended_at, delivered)
    asked = session.asked_wh
    grant = counted(work, work.grant(session.evse))
    work.seal(
        "session.outcome",
        subject={"evse": session.evse, "node": session.evse, "session": session.id},
        cause=(session.evidence, ended, grant.decision),
        body={
            "started_at": rfc3339(session.started_at),
            "ended_at": rfc3339(ended_at),
            "asked_wh": asked,
            "delivered_wh": delivered,
            "ready": None if asked is None or delivered is None else delivered >= asked,
            "curtailed_wh": {label: mws // 3_600_000 for label, mws in sorted(grant.withheld_mws.items())},
        },
    )


def _tighter(value: int | None, before: int | None) -> bool:
    return value is not None and (before is None or value < before)


def _floor(instant: datetime, size: timedelta) -> datetime:
    return EPOCH + ((instant - EPOCH) // size) * size


def _recent(steps: tuple[AppliedStep, ...], now: datetime) -> tuple[AppliedStep, ...]:
    """Steps of the last ``KEEP``, and the one that held before."""
    cut = next((i for i, s in enumerate(steps) if s[0] > now - KEEP), len(steps))
    return steps[max(cut - 1, 0) :]
