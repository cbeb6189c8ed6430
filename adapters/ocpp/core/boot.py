"""BootNotification: what it says, and what it is told (OCPP 1.6 §4.2, 2.0.1 B01). No I/O."""

from __future__ import annotations

from datetime import datetime

import msgspec

from adapters.ocpp.core.intake import clean
from adapters.ocpp.wire import Version, encode, v16, v201
from gateway.domain.errors import LocalError
from gateway.domain.timeline import rfc3339


def accepted(version: Version, now: datetime, heartbeat_s: int) -> bytes:
    """The answer: accepted, our time, and how often to send a heartbeat."""
    at = rfc3339(now)
    if version is Version.V16:
        return encode(v16.BootNotificationResponse(status="Accepted", current_time=at, interval=heartbeat_s))
    return encode(v201.BootNotificationResponse(status="Accepted", current_time=at, interval=heartbeat_s))


def about(message: msgspec.Struct) -> tuple[dict[str, str], frozenset[str]]:
    """What a boot says of the station, and the serial numbers in it."""
    if isinstance(message, v16.BootNotificationRequest):
        serials = {s for s in (message.charge_point_serial_number, message.charge_box_serial_number) if s}
        words = {
            "vendor": message.charge_point_vendor,
            "model": message.charge_point_model,
            "firmware": message.firmware_version,
        }
    elif isinstance(message, v201.BootNotificationRequest):
        station = message.charging_station
        serials = {station.serial_number} if station.serial_number else set()
        words = {
            "vendor": station.vendor_name,
            "model": station.model,
            "firmware": station.firmware_version,
            "reason": message.reason,
        }
    else:
        raise LocalError(f"{type(message).__name__} is no BootNotification")
    said = {key: clean(word) for key, word in words.items() if word}
    if serials:
        said["serial"] = clean(sorted(serials)[0])
    return said, frozenset(serials)
