"""What we ask a station once it is there: what it can hold, and to report its meter. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from adapters.ocpp.session import Request
from adapters.ocpp.translate.profile import Capability, clear_profile, session_id
from adapters.ocpp.wire import Version, encode, response_decoder, v16, v201
from gateway.ports.fleet import EvseBinding

HOUSEKEEPING = 2
"""Priority after every limit."""

CAPABILITY_DEADLINE_S = 5.0
"""A station that does not say soon what it can hold is taken for one that can hold little."""

MAX_PERIODS = 24
"""More periods than this in one schedule are of no use, whatever a station claims."""

CAPABILITY, TRIGGER, INTERVAL, MEASURANDS, CLEAR = "capability", "trigger", "interval", "measurands", "clear"
ALIGNED, ENDS = "aligned", "ends"

UNREADABLE = "unreadable answer"

MEASURAND_LISTS = (
    "Power.Active.Import,Energy.Active.Import.Register,Current.Import,Voltage",
    "Power.Active.Import,Energy.Active.Import.Register",
    "Energy.Active.Import.Register",
)
"""Richest first: a list with one unsupported measurand is rejected as a whole (1.6 §9.1.18)."""

_KEYS_16 = ("ChargeProfileMaxStackLevel", "ChargingScheduleAllowedChargingRateUnit", "ChargingScheduleMaxPeriods")
_VARIABLES_201 = ("ProfileStackLevel", "RateUnit", "PeriodsPerSchedule")


def trigger_boot(version: Version) -> Request:
    """Ask for a BootNotification."""
    message: msgspec.Struct
    if version is Version.V16:
        message = v16.TriggerMessageRequest(requested_message="BootNotification")
    else:
        message = v201.TriggerMessageRequest(requested_message="BootNotification")
    return Request(TRIGGER, "TriggerMessage", encode(message), HOUSEKEEPING)


def read_capability(version: Version) -> Request:
    """Ask what profiles the station can hold."""
    if version is Version.V16:
        payload = encode(v16.GetConfigurationRequest(key=_KEYS_16))
        return Request(CAPABILITY, "GetConfiguration", payload, HOUSEKEEPING, deadline_s=CAPABILITY_DEADLINE_S)
    component = v201.ComponentType(name="SmartChargingCtrlr")
    wanted = tuple(
        v201.GetVariableDataType(component=component, variable=v201.VariableType(name=name)) for name in _VARIABLES_201
    )
    payload = encode(v201.GetVariablesRequest(get_variable_data=wanted))
    return Request(CAPABILITY, "GetVariables", payload, HOUSEKEEPING, deadline_s=CAPABILITY_DEADLINE_S)


def capability_of(version: Version, payload: bytes, assumed: Capability) -> Capability:
    """What the station said; where it said nothing usable, what is assumed.

    The unit is the configured one unless the station allows only the other.
    """
    action = "GetConfiguration" if version is Version.V16 else "GetVariables"
    try:
        message = response_decoder(version, action).decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return assumed
    if isinstance(message, v16.GetConfigurationResponse):
        said = {item.key: item.value or "" for item in message.configuration_key or ()}
        level, unit, periods = (said.get(key, "") for key in _KEYS_16)
        units = {"A" if word.strip() == "Current" else "W" for word in unit.split(",") if word.strip()}
    elif isinstance(message, v201.GetVariablesResponse):
        said = {r.variable.name: r.attribute_value or "" for r in message.get_variable_result}
        level, unit, periods = (said.get(name, "") for name in _VARIABLES_201)
        units = {word.strip() for word in unit.split(",") if word.strip() in ("A", "W")}
    else:
        return assumed
    return Capability(
        periods=max(1, min(_number(periods, assumed.periods), MAX_PERIODS)),
        max_level=max(0, _number(level, assumed.max_level)),
        unit=assumed.unit if not units or assumed.unit in units else units.pop(),
    )


def report_meter(version: Version, interval_s: int, attempt: int = 0) -> list[Request]:
    """Have the meter reported every ``interval_s`` seconds, with the list of ``attempt``."""
    measurands = MEASURAND_LISTS[attempt]
    if version is Version.V16:
        settings = [(MEASURANDS, "MeterValuesSampledData", measurands)]
        if attempt == 0:
            settings.insert(0, (INTERVAL, "MeterValueSampleInterval", str(interval_s)))
        return [
            Request(
                _attempt(tag, attempt),
                "ChangeConfiguration",
                encode(v16.ChangeConfigurationRequest(key=key, value=value)),
                HOUSEKEEPING,
            )
            for tag, key, value in settings
        ]
    sampled = (("TxUpdatedInterval", str(interval_s)), ("TxUpdatedMeasurands", measurands))
    requests = [_set_variables(_attempt(MEASURANDS, attempt), "SampledDataCtrlr", sampled)]
    if attempt == 0:
        # The session's energy is the difference of the registers at both ends (E02, E06).
        register = (("TxStartedMeasurands", MEASURAND_LISTS[-1]), ("TxEndedMeasurands", MEASURAND_LISTS[-1]))
        requests.append(_set_variables(ENDS, "SampledDataCtrlr", register))
    return requests


def report_grid_meter(version: Version, interval_s: int) -> list[Request]:
    """Have the station's own meter (connector or EVSE 0) reported, also while nobody charges.

    Only clock-aligned values exist outside of transactions (1.6 §3.15, 2.0.1 J01).
    """
    if version is Version.V16:
        pairs = (("MeterValuesAlignedData", MEASURAND_LISTS[1]), ("ClockAlignedDataInterval", str(interval_s)))
        return [
            Request(
                ALIGNED,
                "ChangeConfiguration",
                encode(v16.ChangeConfigurationRequest(key=key, value=value)),
                HOUSEKEEPING,
            )
            for key, value in pairs
        ]
    values = (("Measurands", MEASURAND_LISTS[1]), ("Interval", str(interval_s)))
    return [_set_variables(ALIGNED, "AlignedDataCtrlr", values)]


def clear_leftovers(version: Version, idle: Iterable[EvseBinding]) -> list[Request]:
    """Take back transaction profiles that outlived their transaction.

    They share the key of a session's limit, so that a newer limit never meets a waiting clear.
    """
    return [
        Request(
            CLEAR,
            "ClearChargingProfile",
            clear_profile(version, session_id(binding.number)),
            HOUSEKEEPING,
            key=f"{binding.evse}|session",
        )
        for binding in idle
    ]


def accepted(version: Version, action: str, payload: bytes) -> tuple[bool, str]:
    """Whether an answer says Accepted (or as good as), and the word that it says."""
    try:
        message = response_decoder(version, action).decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False, UNREADABLE
    if isinstance(message, v201.SetVariablesResponse):
        words = [result.attribute_status for result in message.set_variable_result]
        return all(word in ("Accepted", "RebootRequired") for word in words), ",".join(words)
    word = str(getattr(message, "status", ""))
    info = getattr(message, "status_info", None)
    reason = f" ({info.reason_code})" if isinstance(info, v201.StatusInfoType) else ""
    return word in ("Accepted", "RebootRequired"), f"{word}{reason}"


def next_attempt(tag: str) -> int | None:
    """The next list of measurands after the one of ``tag``; None when there is none."""
    name, _, number = tag.partition("/")
    following = int(number or 0) + 1
    return following if name == MEASURANDS and following < len(MEASURAND_LISTS) else None


def _attempt(tag: str, attempt: int) -> str:
    return f"{tag}/{attempt}"


def _set_variables(tag: str, component: str, values: tuple[tuple[str, str], ...]) -> Request:
    data = tuple(
        v201.SetVariableDataType(
            component=v201.ComponentType(name=component),
            variable=v201.VariableType(name=name),
            attribute_value=value,
        )
        for name, value in values
    )
    return Request(tag, "SetVariables", encode(v201.SetVariablesRequest(set_variable_data=data)), HOUSEKEEPING)


def _number(text: str, default: int) -> int:
    return int(text) if text.strip().isdecimal() and len(text) < 10 else default
