"""A small evening as the world would hand it to the judge, good in every respect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.domain.timeline import rfc3339
from gateway.testing.judge import Acknowledged, Death, Evening, Lie, Notebook, Reported, Visit
from gateway.testing.offline import Answer, Entry, Left
from gateway.testing.physics import Announcement, Draw, LimitBlock, LimitBook, Physics
from gateway.testing.stage import SitePlan, StationPlan

SIX = datetime(2031, 3, 1, 18, tzinfo=UTC)
EVSE = "main/evse-1"
PLAN = SitePlan("depot", "G", "main", (), (StationPlan("CP-1", EVSE, "1.6"),), ("main",))
CUT_S, KILLED_S, READY_S, LIE_S = 1_800, 1_700, 1_900, 3_000
LOW_W, HIGH_W = 6_000.0, 10_000.0


def at(seconds: float) -> datetime:
    return SIX + timedelta(seconds=seconds)


def entry(type_: str, seconds: float, body: dict[str, Any] | None = None, **subject: str) -> Entry:
    return Entry(type_, at(seconds), subject, body or {})


def physics(draw_w: float | None = None, lie_w: float = 0.0, lie_s: float = 10.0) -> Physics:
    """An hour with a cut at its half. ``draw_w`` None follows it; ``lie_w`` more is drawn for ``lie_s``."""

    def draw(instant: datetime) -> float:
        usual = draw_w if draw_w is not None else (LOW_W if instant >= at(CUT_S) else HIGH_W) - 500
        return usual + (lie_w if at(LIE_S) < instant <= at(LIE_S + lie_s) else 0.0)

    book = LimitBook(HIGH_W)
    book.announce(Announcement(at(0), at(0), (LimitBlock(at(CUT_S), at(7_200), LOW_W),)))
    hour = Physics({"main": book}, [Draw(EVSE, draw, lambda _: 11_000.0)])
    hour.forgiven.append((at(LIE_S), at(LIE_S + 60)))
    for second in range(0, 3_601, 5):
        hour.sample(at(second))
    return hour


def notes(hour: Physics) -> Notebook:
    return Notebook(
        forecasts=[Acknowledged("q1", at(5))],
        signal="q1",
        ack_ms=40.0,
        kept_ms=90.0,
        kept_at=at(2_000),
        heartbeats_out=3,
        heartbeats_in=3,
        reports=[Reported(hour.registers["main"].at(at(n)), at(n)) for n in range(60, 3_600, 60)],
        profiles={"CP-1": 2},
        visits=[Visit("CP-1", EVSE, at(100), at(3_000))],
        deaths=[Death(at(KILLED_S), at(READY_S))],
        deadline=at(2_100),
        fresh_at=at(2_400),
        lie=Lie("CP-1", EVSE, at(LIE_S)),
        meter_readings=9,
        meter_refusals=[(at(1_800), at(1_801), "connection refused")],
    )


def log() -> list[Entry]:
    """What a gateway would have recorded of it."""
    window = {"start": rfc3339(at(3_000)), "end": rfc3339(at(3_060)), "limit_w": 6_000, "verdict": "BREACH"}
    return [
        entry("gateway.started", 0, {"epoch": 1}),
        entry("envelope.revised", 4, request_id="q1"),
        entry("session.started", 101, {"started_at": rfc3339(at(100))}, evse=EVSE),
        entry("gateway.started", 1_899, {"epoch": 2}),
        entry("source.lost", 2_100, peer="dso"),
        entry("envelope.state", 2_101, _move("FALLBACK_ELIGIBLE", "ACTIVE_FALLBACK"), node="main", peer="dso"),
        entry("envelope.state", 2_401, _move("ACTIVE_FALLBACK", "ACTIVE"), node="main", peer="dso"),
        entry("session.ended", 3_001, {"ended_at": rfc3339(at(3_000))}, evse=EVSE),
        entry("device.lying", 3_005, {"measured_w": 8_500, "allowed_w": 5_500}, evse=EVSE),
        entry("compliance.interval", 3_065, {**window, "worst_w": 8_480}, node="main"),
        entry("gateway.stopping", 3_600),
    ]


def _move(before: str, after: str) -> dict[str, Any]:
    return {"from": before, "to": after, "values": [{"dimension": "sum_w", "value": 6_000}]}


def left(entries: Sequence[Entry] | None = None) -> Left:
    verified = Answer(0, {"ok": True, "size": 11, "root": "ab"}, "")
    traced = Answer(0, {"requests": ["q1"], "verdicts": [{}], "measurement": {"value": 1}}, "")
    return Left(verified, tuple(log() if entries is None else entries), traced)


def good() -> Evening:
    """An evening in which a station lied by 3 kW for ten seconds, and everything else was well."""
    hour = physics(lie_w=3_000)
    return Evening(PLAN, hour, notes(hour), left(), at(0), at(3_600), 60.0)


def with_notes(**changes: Any) -> Evening:
    evening = good()
    return replace(evening, notes=replace(evening.notes, **changes))


def with_physics(hour: Physics) -> Evening:
    return replace(good(), physics=hour)


def without(type_: str) -> Evening:
    return replace(good(), left=left([e for e in log() if e.type != type_]))


def changed(type_: str, **changes: Any) -> Evening:
    """The first entry of that type is another."""
    entries = log()
    place = next(i for i, e in enumerate(entries) if e.type == type_)
    entries[place] = replace(entries[place], **changes)
    return replace(good(), left=left(entries))


def doubled(type_: str) -> Evening:
    return replace(good(), left=left([e for e in log() for _ in range(1 + (e.type == type_))]))
