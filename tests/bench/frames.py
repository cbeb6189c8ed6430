"""What a light station says: a boot, a transaction's start, typical meter values, and fixed answers.

Values stay below the stations' safe share: a gateway that decides about liars is not what is measured.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.domain.timeline import rfc3339

AMPERES = {"L1": 5.8, "L2": 5.7, "L3": 5.9}
VOLTS = {"L1-N": 230.1, "L2-N": 229.9, "L3-N": 231.0}
WATTS = 4_008.0
REGISTER_WH = 123_456.7

CAPABILITIES_16 = {
    "ChargeProfileMaxStackLevel": "2",
    "ChargingScheduleAllowedChargingRateUnit": "Current",
    "ChargingScheduleMaxPeriods": "6",
}
CAPABILITIES_201 = {"ProfileStackLevel": "2", "RateUnit": "A", "PeriodsPerSchedule": "6"}


def call(message_id: str, action: str, payload: Mapping[str, Any]) -> bytes:
    """The text of a CALL, without spaces."""
    return json.dumps([2, message_id, action, payload], separators=(",", ":")).encode()


def boot(version: str) -> dict[str, Any]:
    """A BootNotification."""
    if version == "1.6":
        return {"chargePointVendor": "Bench", "chargePointModel": "Light"}
    return {"reason": "PowerUp", "chargingStation": {"vendorName": "Bench", "model": "Light"}}


@dataclass
class Maker(ABC):
    """One station's words. Each reading is of now and later than the one before: none is a repetition."""

    id: str
    at: datetime = datetime.min.replace(tzinfo=UTC)

    @abstractmethod
    def start(self) -> tuple[str, dict[str, Any]]:
        """The transaction's first message."""

    @abstractmethod
    def values(self) -> tuple[str, dict[str, Any]]:
        """The next periodic meter values."""

    @abstractmethod
    def answer(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What it answers to a CALL."""

    @abstractmethod
    def told(self, answer: bytes) -> None:
        """Hear the answer to a CALL of its own."""

    def next_instant(self) -> str:
        """The time of the next reading."""
        now = datetime.now(UTC)
        self.at = max(now.replace(microsecond=now.microsecond // 1_000 * 1_000), self.at + timedelta(milliseconds=1))
        return rfc3339(self.at)


class Maker16(Maker):
    """OCPP 1.6."""

    transaction = 0

    def start(self) -> tuple[str, dict[str, Any]]:
        message = {"connectorId": 1, "idTag": "CARD", "meterStart": 100_000, "timestamp": self.next_instant()}
        return "StartTransaction", message

    def values(self) -> tuple[str, dict[str, Any]]:
        common = {"context": "Sample.Periodic", "location": "Outlet"}
        rows = [("Current.Import", phase, "A", value) for phase, value in AMPERES.items()]
        rows += [("Voltage", phase, "V", value) for phase, value in VOLTS.items()]
        sampled = [
            {"value": str(value), "measurand": name, "phase": phase, "unit": unit, **common}
            for name, phase, unit, value in rows
        ]
        sampled += [
            {"value": str(WATTS), "measurand": "Power.Active.Import", "unit": "W", **common},
            {"value": str(REGISTER_WH), "measurand": "Energy.Active.Import.Register", "unit": "Wh", **common},
        ]
        values = [{"timestamp": self.next_instant(), "sampledValue": sampled}]
        return "MeterValues", {"connectorId": 1, "transactionId": self.transaction, "meterValue": values}

    def answer(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if action == "GetConfiguration":
            keys = [{"key": k, "readonly": True, "value": v} for k, v in CAPABILITIES_16.items()]
            return {"configurationKey": keys}
        return {"status": _WORDS.get(action, "Accepted")}

    def told(self, answer: bytes) -> None:
        if b"transactionId" in answer:
            self.transaction = json.loads(answer)[2]["transactionId"]


class Maker201(Maker):
    """OCPP 2.0.1."""

    sequence = 0

    def start(self) -> tuple[str, dict[str, Any]]:
        return "TransactionEvent", self._event("Started", "CablePluggedIn")

    def values(self) -> tuple[str, dict[str, Any]]:
        common = {"context": "Sample.Periodic", "location": "Outlet"}
        rows = [("Current.Import", phase, "A", value) for phase, value in AMPERES.items()]
        rows += [("Voltage", phase, "V", value) for phase, value in VOLTS.items()]
        sampled: list[dict[str, Any]] = [
            {"value": value, "measurand": name, "phase": phase, "unitOfMeasure": {"unit": unit}, **common}
            for name, phase, unit, value in rows
        ]
        sampled += [
            {"value": WATTS, "measurand": "Power.Active.Import", "unitOfMeasure": {"unit": "W"}, **common},
            {"value": REGISTER_WH, "measurand": "Energy.Active.Import.Register", **common},
        ]
        event = self._event("Updated", "MeterValuePeriodic")
        return "TransactionEvent", {**event, "meterValue": [{"timestamp": event["timestamp"], "sampledValue": sampled}]}

    def answer(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if action == "GetVariables":
            return {"getVariableResult": [_variable(d) for d in body["getVariableData"]]}
        if action == "SetVariables":
            taken = [{"component": d["component"], "variable": d["variable"]} for d in body["setVariableData"]]
            return {"setVariableResult": [{"attributeStatus": "Accepted", **d} for d in taken]}
        return {"status": _WORDS.get(action, "Accepted")}

    def told(self, answer: bytes) -> None:
        """Nothing: it names its transaction itself."""

    def _event(self, kind: str, trigger: str) -> dict[str, Any]:
        number, self.sequence = self.sequence, self.sequence + 1
        return {
            "eventType": kind,
            "timestamp": self.next_instant(),
            "triggerReason": trigger,
            "seqNo": number,
            "transactionInfo": {"transactionId": f"T-{self.id}", "chargingState": "Charging"},
            "evse": {"id": 1},
        }


_WORDS = {"ClearChargingProfile": "Unknown", "GetChargingProfiles": "NoProfiles", "GetCompositeSchedule": "Rejected"}


def _variable(asked: Mapping[str, Any]) -> dict[str, Any]:
    """One answer of GetVariables."""
    value = CAPABILITIES_201.get(asked["variable"]["name"])
    if value is None:
        return {**asked, "attributeStatus": "UnknownVariable"}
    return {**asked, "attributeStatus": "Accepted", "attributeValue": value}


def maker(station: str, version: str) -> Maker:
    """The words of a station that speaks ``version``."""
    return Maker16(station) if version == "1.6" else Maker201(station)
