"""What a station really holds: proof of limits, and profiles that are not ours."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.ocpp.core import Memory, OpenTransaction
from adapters.ocpp.core.leftovers import request_id
from adapters.ocpp.core.proof import RECHECK_S
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.wire import Version
from gateway.domain.effects import Layer
from gateway.domain.events import ClaimRefuted, CommandAnswered, Outcome, StationNoted
from tests.support.ocpp import T0, a_command
from tests.support.ocpp_bench import Bench

V16, V201 = Version.V16, Version.V201
SHARE_A = 6.5
"""What 5,000 W become on three phases."""


def usable(version: Version = V16, *, running: bool = False, level: int = 1) -> Bench:
    """A station in use whose housekeeping is over."""
    transactions = {"77": OpenTransaction(1, "2031-03-01T16:00:00Z")} if running else {}
    bench = Bench(version, Memory(booted=True, capability=Capability(6, level, "A"), transactions=transactions))
    settle(bench)
    return bench


def settle(bench: Bench, *, status: str = "Accepted") -> list[dict[str, Any]]:
    """Answer everything that is asked but composite schedules; what was asked."""
    asked = []
    while (open_call := bench.open()) is not None and open_call[2] != "GetCompositeSchedule":
        asked.append({"action": open_call[2], **open_call[3]})
        bench.answer({"status": status})
    return asked


def limit(bench: Bench, name: str = "cmd", *, watts: int = 5_000, layer: Layer = Layer.SAFE_SHARE) -> None:
    """Send a limit and have it accepted."""
    transaction = "77" if layer is Layer.SESSION else None
    command = a_command(name, generation=7, limit_w=watts, layer=layer, transaction=transaction)
    bench.do(bench.core.command(command, T0, bench.at))
    bench.answer({"status": "Accepted"})


def say(bench: Bench, amperes: float) -> None:
    """Answer the composite schedule: so much for the whole hour."""
    open_call = bench.open()
    assert open_call is not None
    assert open_call[2] == "GetCompositeSchedule"
    schedule: dict[str, Any] = {
        "duration": 3_600,
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": amperes}],
    }
    if bench.core.version is V16:
        bench.answer({"status": "Accepted", "connectorId": 1, "chargingSchedule": schedule})
    else:
        schedule |= {"evseId": 1, "scheduleStart": "2031-03-01T17:00:00Z"}
        bench.answer({"status": "Accepted", "schedule": schedule})


def outcomes(bench: Bench) -> list[Outcome]:
    return [event.outcome for event in bench.of(CommandAnswered)]


# --- proof -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", Version)
def test_the_first_accepted_of_a_layer_counts_when_the_composite_schedule_agrees(version: Version):
    bench = usable(version)
    limit(bench)
    assert outcomes(bench) == []
    say(bench, SHARE_A)
    assert outcomes(bench) == [Outcome.ACCEPTED]


@pytest.mark.parametrize("version", Version)
def test_what_is_proven_once_is_believed_afterwards(version: Version):
    bench = usable(version)
    limit(bench)
    say(bench, SHARE_A)
    limit(bench, "next", watts=4_500)
    assert outcomes(bench) == [Outcome.ACCEPTED] * 2
    assert bench.open() is None


@pytest.mark.parametrize("version", Version)
def test_a_station_that_allows_more_is_swept_and_asked_again(version: Version):
    bench = usable(version, level=2)
    limit(bench)
    say(bench, 32)
    swept = settle(bench)
    # Ours is sent again afterwards, for a station that clears more than it was told to.
    assert [word["action"] for word in swept] == ["ClearChargingProfile"] * 4 + ["SetChargingProfile"]
    cleared = [word.get("chargingProfileCriteria", word) for word in swept[:4]]
    assert [(c["chargingProfilePurpose"], c["stackLevel"]) for c in cleared] == [
        ("TxDefaultProfile", 1),
        ("TxDefaultProfile", 2),
        ("TxProfile", 0),
        ("TxProfile", 2),
    ]
    say(bench, SHARE_A)
    assert outcomes(bench) == [Outcome.ACCEPTED]
    assert bench.of(ClaimRefuted) == []


@pytest.mark.parametrize("version", Version)
def test_a_station_that_still_allows_more_is_not_confirmed(version: Version):
    bench = usable(version)
    limit(bench)
    say(bench, 32)
    settle(bench)
    say(bench, 32)
    (answered,) = bench.of(CommandAnswered)
    assert (answered.outcome, answered.ordered) == (Outcome.TIMEOUT, False)
    assert answered.detail == "accepted, but it allows 32 A, not 6.5"
    (refuted,) = bench.of(ClaimRefuted)
    assert (refuted.evse, refuted.generation) == ("main/evse-1", 7)
    (note,) = [n for n in bench.of(StationNoted) if n.type == "station.composite-mismatch"]
    assert dict(note.detail) == {"evse": "1", "from_s": "0", "allowed": "6.5 A", "reported": "32 A"}


def test_a_refuted_station_proves_every_limit_until_one_agrees():
    bench = usable()
    limit(bench)
    say(bench, 32)
    settle(bench)
    say(bench, 32)
    limit(bench, "again")
    say(bench, 32)
    limit(bench, "at last")
    say(bench, SHARE_A)
    limit(bench, "believed")
    assert outcomes(bench) == [Outcome.TIMEOUT, Outcome.TIMEOUT, Outcome.ACCEPTED, Outcome.ACCEPTED]


def test_after_a_sweep_both_layers_are_sent_again_and_nothing_old_follows_something_newer():
    bench = usable(running=True)
    limit(bench)
    limit(bench, "session", watts=11_000, layer=Layer.SESSION)
    say(bench, 32)
    newer = a_command("newer", generation=7, limit_w=8_000, layer=Layer.SESSION, transaction="77")
    bench.do(bench.core.command(newer, T0, 0))
    asked = settle(bench)
    say(bench, 32)
    asked += settle(bench)
    say(bench, 10.5)
    assert outcomes(bench) == [Outcome.ACCEPTED] * 3
    limits = [w["csChargingProfiles"] for w in asked if w["action"] == "SetChargingProfile"]
    amperes = [p["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"] for p in limits]
    assert [p["chargingProfilePurpose"] for p in limits].count("TxDefaultProfile") == 1
    assert 14.4 not in amperes
    assert bench.of(ClaimRefuted) == []


def test_distrust_outlives_the_connection():
    bench = usable()
    bench.memory.distrusted.add(1)
    limit(bench)
    say(bench, SHARE_A)
    assert bench.memory.distrusted == set()


@pytest.mark.parametrize("version", Version)
def test_in_a_transaction_the_session_is_what_is_proven(version: Version):
    bench = usable(version, running=True)
    limit(bench)
    assert outcomes(bench) == [Outcome.ACCEPTED]
    limit(bench, "session", watts=11_000, layer=Layer.SESSION)
    say(bench, 14.4)
    assert outcomes(bench) == [Outcome.ACCEPTED] * 2


def test_a_station_that_obeys_the_share_alone_in_a_cut_below_it_is_found():
    bench = usable(running=True)
    limit(bench)
    limit(bench, "cut", watts=0, layer=Layer.SESSION)
    say(bench, SHARE_A)
    settle(bench)
    say(bench, SHARE_A)
    assert outcomes(bench) == [Outcome.ACCEPTED, Outcome.TIMEOUT]


@pytest.mark.parametrize("code", ["NotSupported", "NotImplemented", "InternalError"])
def test_a_station_without_composite_schedules_is_believed_and_swept_once(code: str):
    bench = usable(level=1)
    limit(bench)
    bench.fault(code)
    assert outcomes(bench) == [Outcome.ACCEPTED]
    assert [n.type for n in bench.of(StationNoted)] == ["station.no-composite"]
    assert [w["action"] for w in settle(bench)] == ["ClearChargingProfile"] * 2 + ["SetChargingProfile"]
    limit(bench, "next")
    assert outcomes(bench) == [Outcome.ACCEPTED] * 2
    assert bench.open() is None


def test_five_silent_seconds_are_no_composite_schedule():
    bench = usable()
    limit(bench)
    bench.tick(5)
    assert outcomes(bench) == [Outcome.ACCEPTED]


def test_a_refusal_for_now_is_asked_three_times():
    bench = usable()
    for name in ("a", "b", "c"):
        limit(bench, name)
        bench.answer({"status": "Rejected"})
        settle(bench)
    limit(bench, "d")
    assert outcomes(bench) == [Outcome.ACCEPTED] * 4


def test_what_waits_for_proof_when_the_line_breaks_is_in_doubt():
    bench = usable()
    limit(bench)
    events = bench.core.gone("lost")
    assert [e.outcome for e in events if isinstance(e, CommandAnswered)] == [Outcome.DISCONNECTED]


@pytest.mark.parametrize("version", Version)
def test_everything_is_proven_again_every_day(version: Version):
    bench = usable(version)
    limit(bench)
    say(bench, SHARE_A)
    assert bench.core.next_deadline == RECHECK_S
    bench.tick(RECHECK_S)
    say(bench, 32)
    settle(bench)
    say(bench, 32)
    assert len(bench.of(ClaimRefuted)) == 1
    assert outcomes(bench) == [Outcome.ACCEPTED]


def test_a_limit_in_doubt_may_be_what_the_station_holds():
    bench = usable()
    command = a_command("lost", generation=7, limit_w=9_000)
    bench.do(bench.core.command(command, T0, 0))
    bench.tick(30)
    limit(bench, "heard", watts=5_000)
    # The first one may have arrived after the second: 11.8 A is then right.
    say(bench, 11.8)
    assert outcomes(bench) == [Outcome.TIMEOUT, Outcome.ACCEPTED]


# --- profiles that are not ours ----------------------------------------------------------------


def a_report(*profiles: dict[str, Any], evse: int = 1) -> dict[str, Any]:
    return {
        "requestId": request_id(7, 0),
        "chargingLimitSource": "CSO",
        "evseId": evse,
        "chargingProfile": list(profiles),
    }


def a_profile(
    identity: int, limit_a: float = 32, *, purpose: str = "TxDefaultProfile", level: int = 3
) -> dict[str, Any]:
    return {
        "id": identity,
        "stackLevel": level,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": "Absolute",
        "chargingSchedule": [
            {
                "id": 1,
                "startSchedule": "2031-03-01T00:00:00Z",
                "chargingRateUnit": "A",
                "chargingSchedulePeriod": [{"startPeriod": 0, "limit": limit_a}],
            }
        ],
    }


def test_a_201_station_is_asked_what_it_holds_a_16_station_cannot_be():
    purposes = {}
    for version in Version:
        bench = Bench(version, Memory(booted=True, capability=Capability(6, 8, "A")))
        asked = settle(bench)
        purposes[version] = [
            word["chargingProfile"]["chargingProfilePurpose"]
            for word in asked
            if word["action"] == "GetChargingProfiles"
        ]
    assert purposes == {V16: [], V201: ["TxDefaultProfile", "TxProfile"]}


@pytest.mark.parametrize(
    ("report", "cleared"),
    [
        (a_report(a_profile(5)), [5]),
        (a_report(a_profile(5, purpose="TxProfile")), [5]),
        (a_report(a_profile(5), evse=0), [5]),
        (a_report(a_profile(5), a_profile(6)), [5, 6]),
        (a_report(a_profile(900_099)), [900_099]),
        (a_report(a_profile(900_002, level=0)), []),
        (a_report(a_profile(900_003, purpose="TxProfile", level=1)), []),
        (a_report(a_profile(5, purpose="ChargingStationMaxProfile"), evse=0), []),
        (a_report(a_profile(5, purpose="ChargingStationExternalConstraints"), evse=0), []),
        (a_report(a_profile(5, 6.0)), []),
    ],
    ids=[
        "default",
        "transaction",
        "for all EVSEs",
        "two",
        "our range, not our number",
        "our share",
        "our session",
        "a maximum",
        "an external limit",
        "one that is tighter",
    ],
)
def test_a_foreign_profile_that_may_allow_more_is_cleared_and_noted(report: dict[str, Any], cleared: list[int]):
    bench = usable(V201)
    limit(bench)
    say(bench, SHARE_A)
    assert bench.call("ReportChargingProfiles", report)[2] == {}
    asked = settle(bench)
    assert [word["chargingProfileId"] for word in asked] == cleared
    assert len([n for n in bench.of(StationNoted) if n.type == "station.foreign-profile"]) == len(cleared)


def test_before_the_share_is_known_every_foreign_default_goes():
    bench = usable(V201)
    bench.call("ReportChargingProfiles", a_report(a_profile(5, 1.0)))
    assert [word["chargingProfileId"] for word in settle(bench)] == [5]


def test_a_station_with_endless_profiles_is_cleared_within_bounds():
    bench = usable(V201)
    for start in range(0, 100, 10):
        bench.call("ReportChargingProfiles", a_report(*(a_profile(start + i) for i in range(10))))
    assert len(settle(bench)) == 32
