"""What each message of an OCPP 2.0.1 station means and is told. No I/O, no state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from adapters.ocpp.core.intake import Durability, Facts, Intake, OpenTransaction
from adapters.ocpp.translate.instant import read_instant
from adapters.ocpp.translate.meter import samples_201
from adapters.ocpp.translate.status import status_201, wants_power
from adapters.ocpp.wire import encode, v201
from gateway.domain.events import Event, SessionEnded, SessionStarted, SessionUpdated
from gateway.domain.evidence import MessageRef
from gateway.domain.measurement import Measurement, Quantity
from gateway.domain.quantities import WattHours
from gateway.domain.timeline import rfc3339
from gateway.ports.fleet import EvseBinding

MAX_ALERTS = 5
"""Lines of evidence for one NotifyEvent."""

_EMPTY = b"{}"
_ACCEPTED = v201.IdTokenInfoType(status="Accepted")
_INVALID = v201.IdTokenInfoType(status="Invalid")
_PERIODIC = frozenset({"MeterValuePeriodic", "MeterValueClock"})


def heartbeat(message: v201.HeartbeatRequest, facts: Facts) -> Intake:
    """G02: the station's clock."""
    return Intake(encode(v201.HeartbeatResponse(current_time=rfc3339(facts.now))))


def authorize(message: v201.AuthorizeRequest, facts: Facts) -> Intake:
    """C01: whom to charge is not our decision; who has a token may charge within the limits."""
    return Intake(encode(v201.AuthorizeResponse(id_token_info=_ACCEPTED)))


def status_notification(message: v201.StatusNotificationRequest, facts: Facts) -> Intake:
    """G01."""
    binding = facts.binding(message.evse_id)
    return Intake(_EMPTY, events=() if binding is None else (status_201(message, binding.evse),))


def transaction_event(message: v201.TransactionEventRequest, facts: Facts) -> Intake:
    """E01–E10. Only the first events need to name EVSE and token: the rest is remembered."""
    transaction = message.transaction_info.transaction_id
    known = facts.transactions.get(transaction)
    number = message.evse.id if message.evse is not None else known.number if known is not None else None
    binding = None if number is None else facts.binding(number)
    dedup = f"{transaction}|{message.seq_no}"
    if binding is None:
        note = facts.noted("transaction.unknown-evse", "TransactionEvent", transaction=transaction, evse=number)
        return Intake(_answer(message, _INVALID), Durability.FULL, (note,), dedup=dedup)
    samples = _samples(message, binding, facts)
    if _routine(message, known):
        return Intake(_answer(message, _ACCEPTED), Durability.TELEMETRY, samples=samples)
    ref = facts.message("TransactionEvent", dedup)
    events = _session_events(message, known, binding, ref, facts, samples)
    ended = message.event_type == "Ended"
    stale = tuple(k for k, t in facts.transactions.items() if t.number == binding.number and k != transaction)
    return Intake(
        _answer(message, _ACCEPTED),
        Durability.FULL,
        events,
        samples,
        dedup,
        None if ended else (transaction, _merged(message, known, binding.number)),
        (*(stale if known is None else ()), *((transaction,) if ended else ())),
    )


def meter_values(message: v201.MeterValuesRequest, facts: Facts) -> Intake:
    """J01: values outside of transactions."""
    point = facts.point(message.evse_id)
    samples = () if point is None else tuple(samples_201(message.meter_value, point, facts.now))
    return Intake(_EMPTY, Durability.TELEMETRY, samples=samples)


def data_transfer(message: v201.DataTransferRequest, facts: Facts) -> Intake:
    """P02: no vendor's extension is known here."""
    return Intake(encode(v201.DataTransferResponse(status="UnknownVendorId")))


def firmware_status(message: v201.FirmwareStatusNotificationRequest, facts: Facts) -> Intake:
    """L01."""
    return Intake(
        _EMPTY, events=(facts.noted("station.firmware", "FirmwareStatusNotification", status=message.status),)
    )


def security_event(message: v201.SecurityEventNotificationRequest, facts: Facts) -> Intake:
    """A04."""
    note = facts.noted("station.security", "SecurityEventNotification", event=message.type, at=message.timestamp)
    return Intake(_EMPTY, events=(note,))


def charging_limit(message: v201.NotifyChargingLimitRequest, facts: Facts) -> Intake:
    """K12: somebody else limits the station as well. It keeps the tighter one by itself."""
    limit = message.charging_limit
    periods = [p.limit for s in message.charging_schedule or () for p in s.charging_schedule_period]
    unit = message.charging_schedule[0].charging_rate_unit if message.charging_schedule else None
    note = facts.noted(
        "station.external-limit",
        "NotifyChargingLimit",
        source=limit.charging_limit_source,
        evse=message.evse_id,
        critical=limit.is_grid_critical,
        lowest=min(periods, default=None),
        unit=unit,
    )
    return Intake(_EMPTY, events=(note,))


def cleared_limit(message: v201.ClearedChargingLimitRequest, facts: Facts) -> Intake:
    """K13: that limit has ended; ours goes on to hold."""
    source = message.charging_limit_source
    note = facts.noted("station.external-limit-ended", "ClearedChargingLimit", source=source, evse=message.evse_id)
    return Intake(_EMPTY, events=(note,))


def log_status(message: v201.LogStatusNotificationRequest, facts: Facts) -> Intake:
    """N01: nobody here asked for an upload."""
    return Intake(_EMPTY, events=(facts.noted("station.log", "LogStatusNotification", status=message.status),))


def published_firmware(message: v201.PublishFirmwareStatusNotificationRequest, facts: Facts) -> Intake:
    """L03."""
    note = facts.noted("station.firmware", "PublishFirmwareStatusNotification", status=message.status)
    return Intake(_EMPTY, events=(note,))


def monitored_event(message: v201.NotifyEventRequest, facts: Facts) -> Intake:
    """N07: what a station monitors by itself; alerts are worth a line, periodic values are not."""
    alerts = [data for data in message.event_data if data.trigger == "Alerting"]
    notes = tuple(
        facts.noted(
            "station.alert",
            "NotifyEvent",
            component=data.component.name,
            variable=data.variable.name,
            value=data.actual_value,
            cleared=data.cleared,
        )
        for data in alerts[:MAX_ALERTS]
    )
    return Intake(_EMPTY, events=notes)


def sign_certificate(message: v201.SignCertificateRequest, facts: Facts) -> Intake:
    """A02: this gateway signs nothing for stations."""
    note = facts.noted("station.certificate-asked", "SignCertificate", use=message.certificate_type)
    return Intake(encode(v201.SignCertificateResponse(status="Rejected")), events=(note,))


def contract_certificate(message: v201.Get15118EVCertificateRequest, facts: Facts) -> Intake:
    """M01: no pool of contract certificates stands behind this gateway."""
    note = facts.noted("vehicle.certificate-asked", "Get15118EVCertificate", wanted=message.action)
    return Intake(encode(v201.Get15118EVCertificateResponse(status="Failed", exi_response="")), events=(note,))


def certificate_status(message: v201.GetCertificateStatusRequest, facts: Facts) -> Intake:
    """M06: no OCSP responder is asked here; the station decides without."""
    return Intake(encode(v201.GetCertificateStatusResponse(status="Failed")))


def charging_needs(message: v201.NotifyEVChargingNeedsRequest, facts: Facts) -> Intake:
    """K15: an acceptance would promise a schedule for the vehicle within a minute."""
    needs = message.charging_needs
    note = facts.noted(
        "vehicle.needs",
        "NotifyEVChargingNeeds",
        evse=message.evse_id,
        transfer=needs.requested_energy_transfer,
        departure=needs.departure_time,
        energy_wh=None if needs.ac_charging_parameters is None else needs.ac_charging_parameters.energy_amount,
    )
    return Intake(encode(v201.NotifyEVChargingNeedsResponse(status="Rejected")), events=(note,))


def charging_schedule(message: v201.NotifyEVChargingScheduleRequest, facts: Facts) -> Intake:
    """K15: what the vehicle plans lies within the limits that the station enforces."""
    return Intake(encode(v201.NotifyEVChargingScheduleResponse(status="Accepted")))


def plain(message: msgspec.Struct, facts: Facts) -> Intake:
    """Read, and nothing to say."""
    return Intake(_EMPTY)


HANDLERS: Mapping[str, Callable[[Any, Facts], Intake]] = MappingProxyType(
    {
        "Authorize": authorize,
        "ClearedChargingLimit": cleared_limit,
        "DataTransfer": data_transfer,
        "FirmwareStatusNotification": firmware_status,
        "Get15118EVCertificate": contract_certificate,
        "GetCertificateStatus": certificate_status,
        "Heartbeat": heartbeat,
        "LogStatusNotification": log_status,
        "MeterValues": meter_values,
        "NotifyChargingLimit": charging_limit,
        "NotifyCustomerInformation": plain,
        "NotifyDisplayMessages": plain,
        "NotifyEVChargingNeeds": charging_needs,
        "NotifyEVChargingSchedule": charging_schedule,
        "NotifyEvent": monitored_event,
        "NotifyMonitoringReport": plain,
        "NotifyReport": plain,
        "PublishFirmwareStatusNotification": published_firmware,
        "ReportChargingProfiles": plain,
        "ReservationStatusUpdate": plain,
        "SecurityEventNotification": security_event,
        "SignCertificate": sign_certificate,
        "StatusNotification": status_notification,
        "TransactionEvent": transaction_event,
    }
)


def _answer(message: v201.TransactionEventRequest, info: v201.IdTokenInfoType) -> bytes:
    """E01.FR.05: idTokenInfo only where there was a token."""
    return encode(v201.TransactionEventResponse(id_token_info=info if message.id_token is not None else None))


def _routine(message: v201.TransactionEventRequest, known: OpenTransaction | None) -> bool:
    """A periodic reading of a known transaction that changes nothing else."""
    info = message.transaction_info
    return (
        known is not None
        and message.event_type == "Updated"
        and message.trigger_reason in _PERIODIC
        and info.charging_state in (None, known.charging_state)
        and message.number_of_phases_used in (None, known.phases_used)
    )


def _merged(message: v201.TransactionEventRequest, known: OpenTransaction | None, number: int) -> OpenTransaction:
    state, phases = message.transaction_info.charging_state, message.number_of_phases_used
    if known is None:
        return OpenTransaction(number, message.timestamp, state, phases)
    return OpenTransaction(
        number,
        known.started,
        state or known.charging_state,
        known.phases_used if phases is None else phases,
    )


def _session_events(
    message: v201.TransactionEventRequest,
    known: OpenTransaction | None,
    binding: EvseBinding,
    ref: MessageRef,
    facts: Facts,
    samples: tuple[Measurement, ...],
) -> tuple[Event, ...]:
    transaction = message.transaction_info.transaction_id
    at, _ = read_instant(message.timestamp, facts.now)
    meter = next((WattHours(s.value) for s in reversed(samples) if s.quantity is Quantity.E_IMPORT), None)
    events: list[Event] = []
    if known is None:
        # Also when the Started event was lost: the first one heard of opens the session.
        events += [
            SessionEnded(binding.evse, key, at, ref, reason="replaced")
            for key, other in facts.transactions.items()
            if other.number == binding.number
        ]
        user = facts.pseudonym(message.id_token.id_token) if message.id_token is not None else ""
        first_meter = meter if message.event_type == "Started" else None
        events.append(SessionStarted(binding.evse, transaction, at, ref, first_meter, user_hmac=user))
    if message.event_type == "Ended":
        reason = message.transaction_info.stopped_reason or "Local"
        events.append(SessionEnded(binding.evse, transaction, at, ref, meter, reason))
    else:
        wants = wants_power(message.transaction_info.charging_state)
        phases = message.number_of_phases_used
        if wants is not None or phases is not None or known is not None:
            events.append(SessionUpdated(binding.evse, transaction, ref, wants, phases))
    return tuple(events)


def _samples(message: v201.TransactionEventRequest, binding: EvseBinding, facts: Facts) -> tuple[Measurement, ...]:
    point = facts.point(binding.number)
    return () if point is None else tuple(samples_201(message.meter_value or (), point, facts.now))
