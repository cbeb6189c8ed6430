"""The station's messages, in the words of its version. Pure."""

from __future__ import annotations

from datetime import datetime

from adapters.ocpp.peer.outlet import Outlet
from adapters.ocpp.peer.profiles import MAX_LEVEL, MAX_PERIODS
from adapters.ocpp.wire import encode, v16, v201
from gateway.domain.timeline import rfc3339

VENDOR, MODEL, FIRMWARE = "Simulated", "Depot 22", "1.0.0"

_STATUS_16 = {"Charging": "Charging", "SuspendedEV": "SuspendedEV", "SuspendedEVSE": "SuspendedEVSE"}

CONFIGURATION_16 = {
    "ChargeProfileMaxStackLevel": str(MAX_LEVEL),
    "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
    "ChargingScheduleMaxPeriods": str(MAX_PERIODS),
    "MaxChargingProfilesInstalled": "16",
}
VARIABLES_201 = {
    "ProfileStackLevel": str(MAX_LEVEL),
    "RateUnit": "A,W",
    "PeriodsPerSchedule": str(MAX_PERIODS),
}


def boot_16(serial: str) -> bytes:
    """OCPP 1.6 §4.2."""
    return encode(
        v16.BootNotificationRequest(
            charge_point_vendor=VENDOR,
            charge_point_model=MODEL,
            charge_point_serial_number=serial,
            firmware_version=FIRMWARE,
        )
    )


def boot_201(serial: str) -> bytes:
    """OCPP 2.0.1 B01."""
    station = v201.ChargingStationType(model=MODEL, vendor_name=VENDOR, serial_number=serial, firmware_version=FIRMWARE)
    return encode(v201.BootNotificationRequest(charging_station=station, reason="PowerUp"))


def status_16(outlet: Outlet, now: datetime) -> bytes:
    """OCPP 1.6 §4.9."""
    word = "Available" if outlet.car is None else "Preparing"
    if outlet.car is not None and outlet.running:
        word = _STATUS_16[outlet.state(now)]
    return encode(
        v16.StatusNotificationRequest(
            connector_id=outlet.number,
            error_code="NoError",
            status=word,  # type: ignore[arg-type]  # a str of the enum
            timestamp=rfc3339(now),
        )
    )


def status_201(outlet: Outlet, now: datetime) -> bytes:
    """OCPP 2.0.1 G01."""
    word = "Available" if outlet.car is None else "Occupied"
    return encode(
        v201.StatusNotificationRequest(
            evse_id=outlet.number,
            connector_id=1,
            connector_status=word,  # type: ignore[arg-type]  # a str of the enum
            timestamp=rfc3339(now),
        )
    )


def start_16(outlet: Outlet, token: str, now: datetime) -> bytes:
    """OCPP 1.6 §4.8."""
    return encode(
        v16.StartTransactionRequest(
            connector_id=outlet.number, id_tag=token, meter_start=round(outlet.register_wh), timestamp=rfc3339(now)
        )
    )


def stop_16(transaction: int, meter_wh: int, now: datetime) -> bytes:
    """OCPP 1.6 §4.10."""
    return encode(
        v16.StopTransactionRequest(
            transaction_id=transaction,
            meter_stop=meter_wh,
            timestamp=rfc3339(now),
            reason="EVDisconnected",
        )
    )


def meter_16(outlet: Outlet, transaction: int | None, now: datetime) -> bytes:
    """OCPP 1.6 §4.7."""
    values = tuple(
        v16.SampledValue(
            value=f"{value:g}" if unit != "Wh" else str(round(value)), measurand=name, phase=phase, unit=unit
        )
        for name, phase, value, unit in _values(outlet, now)
    )
    meter = v16.MeterValue(timestamp=rfc3339(now), sampled_value=values)
    return encode(v16.MeterValuesRequest(connector_id=outlet.number, transaction_id=transaction, meter_value=(meter,)))


def event_201(
    outlet: Outlet,
    transaction: str,
    kind: str,
    trigger: str,
    seq_no: int,
    now: datetime,
    *,
    token: str = "",
    offline: bool = False,
) -> bytes:
    """OCPP 2.0.1 E01-E07, with meter values."""
    values = tuple(
        v201.SampledValueType(
            value=round(value, 1), measurand=name, phase=phase, unit_of_measure=v201.UnitOfMeasureType(unit=unit)
        )
        for name, phase, value, unit in _values(outlet, now)
    )
    ended = kind == "Ended"
    info = v201.TransactionType(
        transaction_id=transaction,
        charging_state=None if ended else outlet.state(now),  # type: ignore[arg-type]  # a str of the enum
        stopped_reason="EVDisconnected" if ended else None,
    )
    return encode(
        v201.TransactionEventRequest(
            event_type=kind,  # type: ignore[arg-type]  # a str of the enum
            timestamp=rfc3339(now),
            trigger_reason=trigger,  # type: ignore[arg-type]  # a str of the enum
            seq_no=seq_no,
            transaction_info=info,
            evse=v201.EVSEType(id=outlet.number, connector_id=1) if kind == "Started" else None,
            id_token=v201.IdTokenType(id_token=token, type="ISO14443") if token else None,
            meter_value=(v201.MeterValueType(timestamp=rfc3339(now), sampled_value=values),),
            offline=True if offline else None,
        )
    )


def _values(outlet: Outlet, now: datetime) -> list[tuple[str, str | None, float, str]]:
    power = outlet.power_w(now)
    used = outlet.phases if outlet.car is None else min(outlet.car.phases, outlet.phases)
    rows: list[tuple[str, str | None, float, str]] = [
        ("Power.Active.Import", None, round(power), "W"),
        ("Energy.Active.Import.Register", None, outlet.register_wh, "Wh"),
    ]
    for index in range(outlet.phases):
        amperes = power / (outlet.voltage_v * used) if index < used else 0.0
        rows.append(("Current.Import", f"L{index + 1}", round(amperes, 2), "A"))
        rows.append(("Voltage", f"L{index + 1}-N", outlet.voltage_v, "V"))
    return rows
