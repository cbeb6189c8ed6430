"""Status words and charging states to occupancy and the wish for power. Pure."""

from __future__ import annotations

from adapters.ocpp.wire import v16, v201
from gateway.domain.events import EvseStatus
from gateway.domain.ids import NodeId

_STATUS_16: dict[str, tuple[bool, bool | None]] = {
    "Available": (False, False),
    "Preparing": (True, None),
    "Charging": (True, True),
    "SuspendedEV": (True, False),
    "SuspendedEVSE": (True, True),
    "Finishing": (True, False),
    "Reserved": (False, False),
    "Unavailable": (False, False),
    "Faulted": (False, False),
}
"""SuspendedEVSE means that the limit stops the flow, SuspendedEV that the car does (1.6 §4.9)."""

_CHARGING_STATE: dict[str, bool | None] = {
    "Charging": True,
    "SuspendedEVSE": True,
    "SuspendedEV": False,
    "EVConnected": None,
    "Idle": False,
}


def status_16(message: v16.StatusNotificationRequest, evse: NodeId) -> EvseStatus:
    """OCPP 1.6 §4.9."""
    occupied, wants = _STATUS_16[message.status]
    fault = ""
    if message.status == "Faulted":
        fault = message.error_code if message.error_code != "NoError" else "Faulted"
    return EvseStatus(evse, occupied, wants, fault)


def status_201(message: v201.StatusNotificationRequest, evse: NodeId) -> EvseStatus:
    """OCPP 2.0.1 says here only whether the connector is taken; the rest is in the transaction."""
    occupied = message.connector_status == "Occupied"
    fault = "Faulted" if message.connector_status == "Faulted" else ""
    return EvseStatus(evse, occupied, None if occupied else False, fault)


def wants_power(charging_state: str | None) -> bool | None:
    """Whether the vehicle would take more power; None: not said."""
    return None if charging_state is None else _CHARGING_STATE[charging_state]
