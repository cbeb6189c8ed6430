"""A station's connection without sockets: what is stored before what is answered."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from adapters.ocpp.core import Memory, Phase, Purpose
from adapters.ocpp.session import Received
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.wire import Version, request_decoder
from gateway.domain.effects import Layer
from gateway.domain.events import (
    CommandAnswered,
    EvseStatus,
    MessageRefused,
    Outcome,
    SessionEnded,
    SessionStarted,
    SessionUpdated,
    StationConnected,
    StationDisconnected,
    StationNoted,
)
from gateway.domain.measurement import Quantity
from gateway.ports.gate import Receipt, Verdict
from tests.support.ocpp import T0, a_command, a_station
from tests.support.ocpp_bench import STORED, Bench

V16, V201 = Version.V16, Version.V201
BOOT_16 = {"chargePointVendor": "v", "chargePointModel": "m", "chargePointSerialNumber": "SN-CP-1"}
BOOT_201 = {"reason": "PowerUp", "chargingStation": {"model": "m", "vendorName": "v", "serialNumber": "SN-CP-1"}}
START = {"connectorId": 1, "idTag": "CARD-1", "meterStart": 100, "timestamp": "2031-03-01T17:00:00Z"}
CAPABILITY_16 = {"configurationKey": [{"key": "ChargingScheduleMaxPeriods", "readonly": True, "value": "6"}]}


def usable(version: Version = V16) -> Bench:
    return Bench(version, Memory(booted=True, capability=Capability(6, 8, "A")))


# --- becoming usable -------------------------------------------------------------------------


def test_a_new_station_is_known_only_after_boot_and_capability_are_stored():
    bench = Bench()
    answer = bench.call("BootNotification", BOOT_16)
    assert answer[2] == {"status": "Accepted", "currentTime": "2031-03-01T17:00:00Z", "interval": 300}
    assert bench.asked() == ["GetConfiguration"]
    assert bench.of(StationConnected) == []
    bench.answer(CAPABILITY_16)
    (connected,) = bench.of(StationConnected)
    assert (connected.generation, connected.protocol) == (7, "OCPP 1.6")
    assert [row.key for job in bench.jobs for row in job.rows] == [
        "boot/CP-1",
        "generation/CP-1",
        "capability/CP-1",
    ]
    assert bench.memory.capability == Capability(6, 1, "A")


def test_a_station_that_booted_before_is_usable_at_once():
    bench = usable()
    assert len(bench.of(StationConnected)) == 1
    assert bench.core.phase is Phase.USABLE


def test_a_station_that_keeps_its_abilities_to_itself_is_used_carefully():
    bench = Bench(memory=Memory(booted=True))
    bench.tick(5)
    assert len(bench.of(StationConnected)) == 1
    bench.do(bench.core.command(a_command(generation=7, limit_w=9_000), T0, 5))
    assert bench.memory.capability is None


def test_five_silent_seconds_ask_for_a_boot_once():
    bench = Bench()
    bench.tick(4.9)
    assert bench.asked() == []
    bench.tick(5)
    bench.tick(20)
    assert bench.asked() == ["TriggerMessage"]


def test_a_16_station_that_refuses_to_boot_is_used_without():
    bench = Bench()
    bench.tick(5)
    bench.answer({"status": "Rejected"})
    assert bench.asked() == ["TriggerMessage", "GetConfiguration"]


def test_a_16_station_that_promised_to_boot_gets_thirty_seconds():
    bench = Bench()
    bench.tick(5)
    bench.answer({"status": "Accepted"})
    bench.tick(34)
    assert bench.asked() == ["TriggerMessage"]
    bench.tick(35)
    assert bench.asked() == ["TriggerMessage", "GetConfiguration"]


def test_a_201_station_says_nothing_before_its_boot():
    bench = Bench(V201)
    assert bench.call("Heartbeat", {})[2] == "SecurityError"
    assert bench.call("BootNotification", BOOT_201)[2]["status"] == "Accepted"
    assert bench.call("Heartbeat", {})[2] == {"currentTime": "2031-03-01T17:00:00Z"}


def test_a_boot_that_is_not_stored_is_not_accepted():
    bench = Bench()
    bench.stores = False
    assert bench.call("BootNotification", BOOT_16)[:1] == [4]
    assert not bench.memory.booted


def test_a_boot_with_another_serial_than_the_certificates_ends_the_connection():
    bench = Bench()
    assert bench.call("BootNotification", BOOT_16 | {"chargePointSerialNumber": "SN-OTHER"}) is None
    assert [close.code for close in bench.closed] == [1008]
    assert [note.type for note in bench.of(StationNoted)] == ["station.serial-mismatch"]


def test_an_announcement_that_is_not_stored_ends_the_connection():
    bench = Bench(memory=Memory(booted=True))
    bench.stores = False
    bench.answer(CAPABILITY_16)
    assert [close.code for close in bench.closed] == [1013]


# --- transactions ------------------------------------------------------------------------------


def test_a_start_is_answered_with_the_stored_transaction():
    bench = usable()
    answer = bench.call("StartTransaction", START)
    assert answer[2] == {"idTagInfo": {"status": "Accepted"}, "transactionId": 4711}
    (started,) = bench.of(SessionStarted)
    assert (started.transaction, started.meter_wh, started.evse) == ("4711", 100, "main/evse-1")
    assert "CARD-1" not in repr(started)
    assert len(started.user_hmac) == 64
    job = bench.jobs[-1]
    assert [row.key for row in job.rows] == ["tx/CP-1/4711"]
    assert job.inbound is not None
    assert "CARD-1" not in job.inbound.message_id


def test_a_repeated_start_is_told_its_first_answer():
    bench = usable()
    bench.receipt = Receipt(Verdict.DUPLICATE, b'{"transactionId":99,"idTagInfo":{"status":"Accepted"}}')
    assert bench.call("StartTransaction", START)[2]["transactionId"] == 99
    assert bench.memory.transactions == {}


def test_the_same_start_has_the_same_key_and_another_start_has_another():
    bench = usable()
    for payload in (START, START, START | {"meterStart": 101}):
        bench.call("StartTransaction", payload)
    keys = [job.inbound.message_id for job in bench.jobs if job.inbound]
    assert keys[0] == keys[1] != keys[2]


def test_a_start_that_is_not_stored_is_refused_so_that_the_station_keeps_it():
    bench = usable()
    bench.stores = False
    assert bench.call("StartTransaction", START)[:1] + bench.sent[-1][2:3] == [4, "InternalError"]
    assert bench.memory.transactions == {}


def test_a_stop_ends_the_session_of_its_transaction():
    bench = usable()
    bench.call("StartTransaction", START)
    stop = {"transactionId": 4711, "meterStop": 900, "timestamp": "2031-03-01T18:00:00Z", "reason": "Remote"}
    assert bench.call("StopTransaction", stop)[2] == {}
    (ended,) = bench.of(SessionEnded)
    assert (ended.transaction, ended.meter_wh, ended.reason) == ("4711", 900, "Remote")
    assert bench.jobs[-1].rows[0].value is None
    assert bench.memory.transactions == {}


def test_a_stop_of_an_unknown_transaction_is_answered_and_noted():
    bench = usable()
    stop = {"transactionId": 5, "meterStop": 1, "timestamp": "2031-03-01T18:00:00Z"}
    assert bench.call("StopTransaction", stop)[2] == {}
    assert [note.type for note in bench.of(StationNoted)] == ["transaction.unknown"]


def test_a_second_start_on_a_connector_ends_the_first_session():
    bench = usable()
    bench.call("StartTransaction", START)
    bench.call("StartTransaction", START | {"timestamp": "2031-03-01T19:00:00Z"})
    assert [(e.transaction, e.reason) for e in bench.of(SessionEnded)] == [("4711", "replaced")]
    assert list(bench.memory.transactions) == ["4712"]


def test_a_start_on_an_unknown_connector_gets_an_invalid_token():
    bench = usable()
    assert bench.call("StartTransaction", START | {"connectorId": 9})[2]["idTagInfo"] == {"status": "Invalid"}
    assert bench.of(SessionStarted) == []


def an_event(kind: str, seq: int, trigger: str = "Authorized", **more: Any) -> dict:
    info = {"transactionId": "tx-1", **more.pop("info", {})}
    stamp = "2031-03-01T17:00:00Z"
    return {
        "eventType": kind,
        "timestamp": stamp,
        "triggerReason": trigger,
        "seqNo": seq,
        "transactionInfo": info,
        **more,
    }


def test_a_201_transaction_is_followed_from_start_to_end():
    bench = usable(V201)
    evse, token = {"id": 1}, {"idToken": "CARD-1", "type": "ISO14443"}
    started = an_event("Started", 0, evse=evse, idToken=token, info={"chargingState": "EVConnected"})
    assert bench.call("TransactionEvent", started)[2] == {"idTokenInfo": {"status": "Accepted"}}
    charging = an_event("Updated", 1, "ChargingStateChanged", info={"chargingState": "Charging"}, numberOfPhasesUsed=1)
    assert bench.call("TransactionEvent", charging)[2] == {}
    bench.call("TransactionEvent", an_event("Ended", 2, "EVDeparted", info={"stoppedReason": "EVDisconnected"}))
    kinds = [type(e) for e in bench.events if isinstance(e, (SessionStarted, SessionUpdated, SessionEnded))]
    assert kinds == [SessionStarted, SessionUpdated, SessionEnded]
    assert (bench.of(SessionUpdated)[0].wants_power, bench.of(SessionUpdated)[0].phases_used) == (True, 1)
    assert [job.inbound.message_id for job in bench.jobs if job.inbound] == ["tx-1|0", "tx-1|1", "tx-1|2"]
    assert bench.memory.transactions == {}


def test_a_periodic_201_reading_waits_for_the_telemetry_alone():
    bench = usable(V201)
    bench.call("TransactionEvent", an_event("Started", 0, evse={"id": 1}, info={"chargingState": "Charging"}))
    values = [{"timestamp": "2031-03-01T17:00:00Z", "sampledValue": [{"value": 5, "measurand": "Power.Active.Import"}]}]
    event = an_event("Updated", 1, "MeterValuePeriodic", meterValue=values, info={"chargingState": "Charging"})
    bench.call("TransactionEvent", event)
    assert not bench.jobs[-1].submit
    assert [s.quantity for s in bench.jobs[-1].samples] == [Quantity.P]


def test_a_periodic_reading_with_news_is_stored_as_news():
    bench = usable(V201)
    bench.call("TransactionEvent", an_event("Started", 0, evse={"id": 1}, info={"chargingState": "Charging"}))
    event = an_event("Updated", 1, "MeterValuePeriodic", info={"chargingState": "SuspendedEV"})
    bench.call("TransactionEvent", event)
    assert bench.jobs[-1].submit
    assert bench.of(SessionUpdated)[-1].wants_power is False


def test_a_session_whose_start_was_lost_begins_with_the_first_event_heard():
    bench = usable(V201)
    bench.call("TransactionEvent", an_event("Updated", 4, "ChargingStateChanged", evse={"id": 1}))
    assert [e.transaction for e in bench.of(SessionStarted)] == ["tx-1"]


# --- the rest --------------------------------------------------------------------------------


def test_meter_values_are_answered_after_the_telemetry_and_a_status_at_once():
    bench = usable()
    values = [{"timestamp": "2031-03-01T17:00:00Z", "sampledValue": [{"value": "5"}]}]
    assert bench.call("MeterValues", {"connectorId": 1, "meterValue": values})[2] == {}
    assert bench.jobs[-1].samples[0].value == 5
    jobs = len(bench.jobs)
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Charging"}
    assert bench.call("StatusNotification", status)[2] == {}
    assert len(bench.jobs) == jobs
    assert bench.of(EvseStatus)[0].wants_power is True


def test_the_stations_own_meter_is_connector_zero():
    bench = usable()
    values = [{"timestamp": "2031-03-01T17:00:00Z", "sampledValue": [{"value": "5"}]}]
    bench.call("MeterValues", {"connectorId": 0, "meterValue": values})
    assert bench.jobs[-1].samples[0].node == "main"


@pytest.mark.parametrize(
    ("version", "action", "payload", "answer"),
    [
        (V16, "Authorize", {"idTag": "x"}, {"idTagInfo": {"status": "Accepted"}}),
        (V16, "DataTransfer", {"vendorId": "x"}, {"status": "UnknownVendorId"}),
        (V16, "FirmwareStatusNotification", {"status": "Idle"}, {}),
        (V16, "DiagnosticsStatusNotification", {"status": "Idle"}, {}),
        (V16, "SignCertificate", {"csr": "x"}, {"status": "Rejected"}),
        (
            V201,
            "Authorize",
            {"idToken": {"idToken": "x", "type": "Central"}},
            {"idTokenInfo": {"status": "Accepted"}},
        ),
        (V201, "NotifyReport", {"requestId": 1, "generatedAt": "2031-03-01T17:00:00Z", "seqNo": 0}, {}),
        (V201, "SecurityEventNotification", {"type": "X", "timestamp": "2031-03-01T17:00:00Z"}, {}),
    ],
)
def test_plain_messages_get_plain_answers(version: Version, action: str, payload: dict, answer: dict):
    assert usable(version).call(action, payload)[2] == answer


def test_a_flood_of_refused_messages_leaves_a_bounded_trace():
    bench = usable()
    for _ in range(200):
        bench.call("Dance", {})
    assert len(bench.of(MessageRefused)) == 60


# --- limits ----------------------------------------------------------------------------------


def test_every_command_has_one_fate():
    bench = usable()
    settle(bench)
    for status in ("Accepted", "Rejected", "NotSupported"):
        bench.do(bench.core.command(a_command(status, generation=7), T0, bench.at))
        bench.at += 0.25
        bench.answer({"status": status})
        if status == "Accepted":
            # It tells no composite schedule: its word has to do.
            bench.answer({"status": "Rejected"})
    answered = bench.of(CommandAnswered)
    assert [a.outcome for a in answered] == [Outcome.ACCEPTED, Outcome.REJECTED, Outcome.REJECTED]
    assert {a.latency_ms for a in answered} == {250}


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ('[4,{id},"NotImplemented","",{{}}]', Outcome.ERROR),
        ('[4,{id},"FormationViolation","",{{}}]', Outcome.ERROR),
        ('[4,{id},"InternalError","",{{}}]', Outcome.TIMEOUT),
        ('[4,{id},"SomethingElse","",{{}}]', Outcome.TIMEOUT),
        ('[3,{id},{{"status":"accepted"}}]', Outcome.TIMEOUT),
        ("[3,{id}]", Outcome.TIMEOUT),
    ],
)
def test_an_answer_that_is_no_clear_refusal_leaves_the_limit_in_doubt(reply: str, outcome: Outcome):
    bench = usable()
    settle(bench)
    bench.do(bench.core.command(a_command(generation=7), T0, 0))
    bench.do(bench.core.receive(reply.format(id=json.dumps(bench.sent[-1][1])), T0, 0))
    assert [a.outcome for a in bench.of(CommandAnswered)] == [outcome]


def settle(bench: Bench) -> None:
    """Answer the housekeeping that follows the connection."""
    for _ in range(8):
        asked = [frame for frame in bench.sent if frame[0] == 2]
        bench.answer({"status": "Accepted"})
        if [frame for frame in bench.sent if frame[0] == 2] == asked:
            return


def test_a_limit_for_another_generation_is_not_sent():
    bench = usable()
    bench.do(bench.core.command(a_command(generation=6), T0, 0))
    assert [a.outcome for a in bench.of(CommandAnswered)] == [Outcome.NOT_SENT]


def test_a_limit_before_the_line_is_known_is_not_sent():
    bench = Bench()
    bench.do(bench.core.command(a_command(generation=7), T0, 0))
    assert [a.outcome for a in bench.of(CommandAnswered)] == [Outcome.NOT_SENT]


def test_a_transactions_limit_waits_until_the_station_knows_the_transaction():
    bench = usable()
    settle(bench)
    (job,) = bench.core.handle(
        Received(b'"s"', "StartTransaction", b"{}", request_decoder(V16, "StartTransaction").decode(json.dumps(START))),
        T0,
        0,
    )
    bench.core.begin(job)
    for name in ("old", "new"):
        command = a_command(name, generation=7, layer=Layer.SESSION, transaction="4711", limit_w=9_000)
        bench.do(bench.core.command(command, T0, 0))
    bench.core.stored(job, STORED)
    bench.sent.clear()
    bench.do(bench.core.done(job, STORED, T0, 0))
    assert [frame[0] for frame in bench.sent] == [3, 2]
    assert bench.sent[1][2] == "SetChargingProfile"
    assert [(a.command, a.outcome) for a in bench.of(CommandAnswered)] == [("old", Outcome.SUPERSEDED)]


def test_silence_is_a_timeout_after_thirty_seconds():
    bench = usable()
    settle(bench)
    bench.do(bench.core.command(a_command(generation=7), T0, 0))
    bench.tick(30)
    (answered,) = bench.of(CommandAnswered)
    assert (answered.outcome, answered.ordered) == (Outcome.TIMEOUT, False)


def test_a_lost_line_leaves_what_was_sent_in_doubt_and_what_was_not_unsent():
    bench = usable()
    settle(bench)
    for name, layer in (("a", Layer.SAFE_SHARE), ("b", Layer.SESSION)):
        bench.do(bench.core.command(a_command(name, generation=7, layer=layer, transaction="7"), T0, 0))
    events = bench.core.gone("connection lost")
    assert [(e.command, e.outcome) for e in events[:2]] == [("a", Outcome.DISCONNECTED), ("b", Outcome.NOT_SENT)]
    assert isinstance(events[2], StationDisconnected)


def test_a_connection_that_was_never_known_ends_unheard():
    assert Bench().core.gone("lost") == ()


def test_a_leftover_profile_is_cleared_before_but_never_after_a_new_limit():
    bench = usable()
    assert bench.asked() == ["ClearChargingProfile"]
    other = Bench(memory=Memory(booted=True, capability=Capability()), evses=2)
    # The clear of the second EVSE still waits when a limit for it arrives: the limit takes its place.
    evse_2 = a_station(evses=2).evses[1].evse
    other.do(
        other.core.command(a_command("new", generation=7, evse=evse_2, layer=Layer.SESSION, transaction="7"), T0, 0)
    )
    for _ in range(5):
        other.answer({"status": "Accepted"})
    assert other.asked().count("ClearChargingProfile") == 1
    assert "SetChargingProfile" in other.asked()


def test_a_rejected_list_of_measurands_is_shortened():
    bench = usable()
    bench.answer({"status": "Accepted"})
    bench.answer({"status": "Accepted"})
    bench.answer({"status": "Rejected"})
    settle(bench)
    lists = [f[3]["value"] for f in bench.sent if f[0] == 2 and f[3].get("key") == "MeterValuesSampledData"]
    assert [text.count(",") for text in lists] == [3, 1]


def test_the_next_deadline_is_the_earliest():
    bench = Bench()
    assert bench.core.next_deadline == 5
    bench.call("BootNotification", BOOT_16)
    assert bench.core.next_deadline == 5
    bench.answer(CAPABILITY_16)
    assert bench.core.next_deadline == 30


def test_events_carry_instants_of_ours():
    bench = usable()
    bench.call("StartTransaction", START | {"timestamp": "2031-03-01T16:00:00Z"})
    (started,) = bench.of(SessionStarted)
    assert started.message.received_at == T0
    assert started.started_at == T0 - timedelta(hours=1)
    assert Purpose.MESSAGE in {job.purpose for job in bench.jobs}
