"""The checks at the end of a story that ask what the stopped gateway can prove."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gateway.domain.timeline import parse_rfc3339
from gateway.testing.judge import Evening, Trial, Visit
from gateway.testing.meters import EVERY_S
from gateway.testing.narrate import Check, watts
from gateway.testing.offline import Entry, texts
from gateway.testing.physics import TOLERANCE_W

SAME_S = 2.0
"""Story seconds by which a station's instant may differ from the one at which the world acted."""


def evidence(evening: Evening) -> Check:
    """The log verifies against its signed head."""
    said = evening.left.verified
    size = said.document.get("size")
    if said.code == 0 and said.document.get("ok") is True and isinstance(size, int) and size > 0:
        return Check("evidence", True, f"{size} entries verify against the signed head")
    problems = "; ".join(sorted(texts(said.document.get("problems")))) or said.error or "no answer"
    return Check("evidence", False, f"the log does not verify: {problems}")


def trace(evening: Evening) -> Check:
    """``trace`` leads from a meter value to the message that set the limit, and to a verdict."""
    said = evening.left.traced
    if said is None:
        return Check("trace", False, "nothing was kept in time, so there are 0 meter values to trace")
    reached = evening.notes.signal in said.document.get("requests", ())
    verdicts = said.document.get("verdicts") or []
    text = (
        f"from {evening.plan.root}'s meter value, trace reaches the forecast: {'yes' if reached else 'no'}, "
        f"verdicts: {len(verdicts)}" + (f" ({said.error})" if said.error else "")
    )
    measured = said.document.get("measurement") is not None
    return Check("trace", said.code == 0 and measured and reached and bool(verdicts), text)


def recorded_once(evening: Evening) -> Check:
    """Every acknowledged forecast is in the evidence once, however often it was sent, and was before its 204."""
    told = evening.notes.forecasts
    records = [evening.left.of("envelope.revised", request_id=forecast.request) for forecast in told]
    good = [len(found) == 1 and found[0].at <= forecast.at for forecast, found in zip(told, records, strict=True)]
    text = (
        f"of {len(told)} acknowledged forecasts {sum(good)} are recorded once and from before their 204, "
        f"{sum(not found for found in records)} never, {sum(len(found) > 1 for found in records)} more often; "
        f"{evening.notes.repeated} sent twice"
    )
    return Check("recorded_once", bool(told) and all(good), text)


def sessions_once(evening: Evening) -> Check:
    """Every stay of a car is one session in the evidence, with its end if it had one."""
    visits = evening.notes.visits
    started, ended = evening.left.of("session.started"), evening.left.of("session.ended")
    lost = sum(len(_begun(started, visit)) == 0 for visit in visits)
    doubled = sum(len(_begun(started, visit)) > 1 for visit in visits)
    left = [visit for visit in visits if visit.left_at is not None]
    open_ended = sum(len(_over(ended, visit)) != 1 for visit in left)
    invented = len(started) + len(ended) - len(visits) - len(left)
    text = (
        f"{len(visits)} cars came and {len(left)} left: {len(started)} sessions and {len(ended)} ends recorded, "
        f"{lost} lost, {doubled} doubled, {open_ended} ends wrong"
    )
    return Check("sessions_once", bool(visits) and not (lost or doubled or open_ended or invented), text)


def lives(evening: Evening) -> Check:
    """The log tells of every life of the gateway, and of no other."""
    epochs = [entry.body.get("epoch") for entry in evening.left.of("gateway.started")]
    wanted = list(range(1, len(evening.notes.deaths) + 2))
    orderly = len(evening.left.of("gateway.stopping"))
    text = f"lives in the log: {len(epochs)} of {len(wanted)}, orderly ends: {orderly}"
    return Check("lives", epochs == wanted and orderly == 1, text)


def fallback_recorded(fallback_w: int) -> Trial:
    """The log tells of the loss, the fall to ``fallback_w`` and the return, each once and in time."""

    def trial(evening: Evening) -> Check:
        notes, root = evening.notes, evening.plan.root
        lost = evening.left.of("source.lost")
        moves = [e for e in evening.left.of("envelope.state", node=root) if e.subject.get("peer")]
        fell = [e for e in moves if e.body.get("to") == "ACTIVE_FALLBACK"]
        back = [e for e in moves if e.body.get("from") == "ACTIVE_FALLBACK"]
        if notes.deadline is None or notes.fresh_at is None or not (lost and fell and back):
            text = f"losses {len(lost)}, falls {len(fell)}, returns {len(back)}"
            return Check("fallback_recorded", False, text)
        second = timedelta(seconds=evening.speed)
        on_time = all(notes.deadline <= e.at <= notes.deadline + second for e in (lost[0], fell[0]))
        values = [v.get("value") for v in fell[0].body.get("values", ())]
        returned = back[0].body.get("to") == "ACTIVE" and back[0].at >= notes.fresh_at
        text = (
            f"losses {len(lost)}, falls {len(fell)}, returns {len(back)}; fell {_after(fell[0], notes.deadline)} after "
            f"the deadline to {', '.join(watts(v) for v in values if isinstance(v, int))}, returned "
            f"{_after(back[0], notes.fresh_at)} after the DSO's fresh word"
        )
        once = len(lost) == len(fell) == len(back) == 1
        return Check("fallback_recorded", once and on_time and returned and values == [fallback_w], text)

    return trial


def liar_named(evening: Evening) -> Check:
    """The log names the station that lied, no other, and what it drew beyond its limit."""
    lie = evening.notes.lie
    named = evening.left.of("device.lying")
    nodes = sorted({str(entry.subject.get("evse")) for entry in named})
    figures = "; ".join(
        f"{entry.subject.get('evse')} drew {watts(entry.body['measured_w'])} where {watts(entry.body['allowed_w'])} "
        f"was allowed"
        for entry in named
    )
    right = lie is not None and nodes == [lie.node] and all(lie.since <= entry.at for entry in named)
    return Check("liar_named", right, f"stations called lying: {len(nodes)}" + (f" ({figures})" if figures else ""))


def excess_recorded(evening: Evening) -> Check:
    """The compliance records of the time in which an excess was seen have it."""
    root = evening.plan.root
    seen = evening.physics.excess.get(root)
    above = [at for at, over in evening.physics.overs(root) if over > TOLERANCE_W]
    if seen is None or not above:
        return Check("excess_recorded", False, "no excess was seen: 0 W")
    last = above[-1] + timedelta(seconds=2 * EVERY_S)
    windows = [e for e in evening.left.of("compliance.interval", node=root) if _touches(e, above[0], last)]
    over = max((int(e.body["worst_w"]) - int(e.body["limit_w"]) for e in windows if _has_figures(e)), default=0)
    words = ", ".join(str(e.body.get("verdict")) for e in windows) or "none"
    text = (
        f"seen from {above[0]:%H:%M:%S} for {seen.seconds:.0f} s: up to {watts(seen.worst_w)} too much; "
        f"recorded: {watts(max(over, 0))}, verdicts {words}"
    )
    return Check("excess_recorded", over >= RECORDED_PART * seen.worst_w, text)


RECORDED_PART = 0.8
"""The worst second falls between two readings of the meter: the record may have so much less."""


def _begun(started: Sequence[Entry], visit: Visit) -> list[Entry]:
    return [e for e in started if e.subject.get("evse") == visit.node and _near(e.body["started_at"], visit.came_at)]


def _over(ended: Sequence[Entry], visit: Visit) -> list[Entry]:
    return [
        e
        for e in ended
        if visit.left_at is not None
        and e.subject.get("evse") == visit.node
        and _near(e.body["ended_at"], visit.left_at)
    ]


def _near(text: object, instant: datetime) -> bool:
    return abs((parse_rfc3339(str(text)) - instant).total_seconds()) <= SAME_S


def _touches(entry: Entry, first: datetime, last: datetime) -> bool:
    start, end = (parse_rfc3339(str(entry.body[key])) for key in ("start", "end"))
    return start <= last and first < end


def _has_figures(entry: Entry) -> bool:
    return entry.body.get("worst_w") is not None and entry.body.get("limit_w") is not None


def _after(entry: Entry, instant: datetime) -> str:
    return f"{(entry.at - instant).total_seconds():.0f} s"
