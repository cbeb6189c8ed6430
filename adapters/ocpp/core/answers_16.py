"""What each message of an OCPP 1.6 station means and is told. No I/O, no state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from adapters.ocpp.core.intake import Durability, Facts, Intake, OpenTransaction
from adapters.ocpp.translate.instant import read_instant
from adapters.ocpp.translate.meter import samples_16
from adapters.ocpp.translate.status import status_16
from adapters.ocpp.wire import encode, v16
from gateway.domain.events import SessionEnded, SessionStarted
from gateway.domain.quantities import WattHours
from gateway.domain.timeline import rfc3339

_EMPTY = b"{}"
_ACCEPTED = v16.IdTagInfo(status="Accepted")
_INVALID = v16.IdTagInfo(status="Invalid")


def heartbeat(message: v16.HeartbeatRequest, facts: Facts) -> Intake:
    """§4.6: the station's clock."""
    return Intake(encode(v16.HeartbeatResponse(current_time=rfc3339(facts.now))))


def authorize(message: v16.AuthorizeRequest, facts: Facts) -> Intake:
    """§4.2: whom to charge is not our decision; who has a token may charge within the limits."""
    return Intake(encode(v16.AuthorizeResponse(id_tag_info=_ACCEPTED)))


def status_notification(message: v16.StatusNotificationRequest, facts: Facts) -> Intake:
    """§4.9."""
    binding = facts.binding(message.connector_id)
    if binding is not None:
        return Intake(_EMPTY, events=(status_16(message, binding.evse),))
    if message.status == "Faulted":
        return Intake(_EMPTY, events=(facts.noted("station.fault", "StatusNotification", error=message.error_code),))
    return Intake(_EMPTY)


def start_transaction(message: v16.StartTransactionRequest, facts: Facts) -> Intake:
    """§4.8: the answer carries the id that we chose, and must be the same for a repetition."""
    user = facts.pseudonym(message.id_tag)
    dedup = f"{message.connector_id}|{message.timestamp}|{message.meter_start}|{user[:32]}"
    transaction = _draw(facts)
    binding = facts.binding(message.connector_id)
    info = _INVALID if binding is None else _ACCEPTED
    answer = encode(v16.StartTransactionResponse(transaction_id=transaction, id_tag_info=info))
    if binding is None:
        note = facts.noted("transaction.unknown-connector", "StartTransaction", connector=message.connector_id)
        return Intake(answer, Durability.FULL, (note,), dedup=dedup)
    started_at, _ = read_instant(message.timestamp, facts.now)
    ref = facts.message("StartTransaction", dedup)
    stale = tuple(key for key, other in facts.transactions.items() if other.number == message.connector_id)
    # A connector has one transaction (§3.6): an older one whose end was lost is over.
    ended = tuple(SessionEnded(binding.evse, key, started_at, ref, reason="replaced") for key in stale)
    started = SessionStarted(
        binding.evse, str(transaction), started_at, ref, WattHours(message.meter_start), user_hmac=user
    )
    return Intake(
        answer,
        Durability.FULL,
        (*ended, started),
        dedup=dedup,
        opened=(str(transaction), OpenTransaction(message.connector_id, message.timestamp)),
        closed=stale,
    )


def stop_transaction(message: v16.StopTransactionRequest, facts: Facts) -> Intake:
    """§4.10: always answered, whatever we make of it."""
    transaction = str(message.transaction_id)
    known = facts.transactions.get(transaction)
    binding = None if known is None else facts.binding(known.number)
    info = _ACCEPTED if message.id_tag else None
    answer = encode(v16.StopTransactionResponse(id_tag_info=info))
    if known is None or binding is None:
        note = facts.noted("transaction.unknown", "StopTransaction", transaction=transaction)
        return Intake(answer, Durability.FULL, (note,), dedup=transaction)
    ended_at, _ = read_instant(message.timestamp, facts.now)
    ended = SessionEnded(
        binding.evse,
        transaction,
        ended_at,
        facts.message("StopTransaction", transaction),
        WattHours(message.meter_stop),
        message.reason or "Local",
    )
    point = facts.point(known.number)
    values = tuple(v16.MeterValue(timestamp=d.timestamp, sampled_value=d.sampled_value) for d in _data(message))
    samples = () if point is None else tuple(samples_16(values, point, facts.now))
    return Intake(answer, Durability.FULL, (ended,), samples, transaction, closed=(transaction,))


def meter_values(message: v16.MeterValuesRequest, facts: Facts) -> Intake:
    """§4.7."""
    point = facts.point(message.connector_id)
    samples = () if point is None else tuple(samples_16(message.meter_value, point, facts.now))
    return Intake(_EMPTY, Durability.TELEMETRY, samples=samples)


def data_transfer(message: v16.DataTransferRequest, facts: Facts) -> Intake:
    """§4.3: no vendor's extension is known here."""
    return Intake(encode(v16.DataTransferResponse(status="UnknownVendorId")))


def firmware_status(message: v16.FirmwareStatusNotificationRequest, facts: Facts) -> Intake:
    """§4.5."""
    return Intake(
        _EMPTY, events=(facts.noted("station.firmware", "FirmwareStatusNotification", status=message.status),)
    )


def signed_firmware_status(message: v16.SignedFirmwareStatusNotificationRequest, facts: Facts) -> Intake:
    """Security whitepaper 5.20."""
    note = facts.noted("station.firmware", "SignedFirmwareStatusNotification", status=message.status)
    return Intake(_EMPTY, events=(note,))


def security_event(message: v16.SecurityEventNotificationRequest, facts: Facts) -> Intake:
    """Security whitepaper 5.17."""
    note = facts.noted("station.security", "SecurityEventNotification", event=message.type, at=message.timestamp)
    return Intake(_EMPTY, events=(note,))


def log_status(
    message: v16.DiagnosticsStatusNotificationRequest | v16.LogStatusNotificationRequest, facts: Facts
) -> Intake:
    """§4.4 and security whitepaper 5.13: nobody here asked for an upload."""
    return Intake(_EMPTY, events=(facts.noted("station.log", "LogStatusNotification", status=message.status),))


def sign_certificate(message: v16.SignCertificateRequest, facts: Facts) -> Intake:
    """Security whitepaper 5.18: this gateway signs nothing for stations."""
    note = facts.noted("station.certificate-asked", "SignCertificate")
    return Intake(encode(v16.SignCertificateResponse(status="Rejected")), events=(note,))


HANDLERS: Mapping[str, Callable[[Any, Facts], Intake]] = MappingProxyType(
    {
        "Authorize": authorize,
        "DataTransfer": data_transfer,
        "DiagnosticsStatusNotification": log_status,
        "FirmwareStatusNotification": firmware_status,
        "Heartbeat": heartbeat,
        "LogStatusNotification": log_status,
        "MeterValues": meter_values,
        "SecurityEventNotification": security_event,
        "SignCertificate": sign_certificate,
        "SignedFirmwareStatusNotification": signed_firmware_status,
        "StartTransaction": start_transaction,
        "StatusNotification": status_notification,
        "StopTransaction": stop_transaction,
    }
)


def _data(message: v16.StopTransactionRequest) -> tuple[v16.TransactionData, ...]:
    return message.transaction_data or ()


def _draw(facts: Facts) -> int:
    """An id that no running transaction has; 31 bits make a second try rare."""
    while str(number := facts.draw_transaction()) in facts.transactions:
        pass
    return number
