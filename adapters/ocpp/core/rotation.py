"""How a station says that its terminals are wired, against how it is configured. No I/O.

The configuration wins: a factory's default is said as readily as what an installer measured. What
contradicts it is for a person to look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from adapters.ocpp.core.setup import HOUSEKEEPING
from adapters.ocpp.session import Request
from adapters.ocpp.wire import Version, encode, response_decoder, v16, v201
from gateway.domain.quantities import Phase
from gateway.ports.fleet import EvseBinding

ROTATION = "rotation"
"""Tag of the question."""

MAX_EVSES = 8
"""EVSEs of one 2.0.1 station that are asked about: two variables each, and one message for all."""

_KEY = "ConnectorPhaseRotation"
_LETTERS = {"R": Phase.L1, "S": Phase.L2, "T": Phase.L3}
_ORDER = "RST"
_WHOLE = 0
"""The station as a whole against the grid, in 1.6 (index 0) and here."""


def ask(version: Version, bindings: Iterable[EvseBinding]) -> Request:
    """Ask how the station is wired (1.6 §9.1.5; 2.0.1: the variable PhaseRotation)."""
    if version is Version.V16:
        return Request(
            ROTATION, "GetConfiguration", encode(v16.GetConfigurationRequest(key=(_KEY,))), HOUSEKEEPING, key=ROTATION
        )
    numbers = [binding.number for binding in bindings][:MAX_EVSES]
    components = [v201.ComponentType(name="ChargingStation")]
    for number in numbers:
        components.append(v201.ComponentType(name="EVSE", evse=v201.EVSEType(id=number)))
        components.append(v201.ComponentType(name="Connector", evse=v201.EVSEType(id=number, connector_id=1)))
    wanted = tuple(
        v201.GetVariableDataType(component=component, variable=v201.VariableType(name="PhaseRotation"))
        for component in components
    )
    payload = encode(v201.GetVariablesRequest(get_variable_data=wanted))
    return Request(ROTATION, "GetVariables", payload, HOUSEKEEPING, key=ROTATION)


def read(version: Version, payload: bytes) -> Mapping[int, tuple[Phase | None, ...]]:
    """The grid's phase on each terminal, by connector (2.0.1: EVSE); None: that terminal is not connected.

    What is not known, not applicable or unreadable is left out.
    """
    action = "GetConfiguration" if version is Version.V16 else "GetVariables"
    try:
        message = response_decoder(version, action).decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    if isinstance(message, v16.GetConfigurationResponse):
        return _read_16(message)
    return _read_201(message) if isinstance(message, v201.GetVariablesResponse) else {}


def contradictions(
    said: Mapping[int, tuple[Phase | None, ...]], bindings: Iterable[EvseBinding]
) -> list[tuple[EvseBinding, str]]:
    """EVSEs whose configured terminals are wired otherwise by the station's word, and that word."""
    return [
        (binding, words(reported))
        for binding in bindings
        if (reported := said.get(binding.number)) is not None and reported[: len(binding.phases)] != binding.phases
    ]


def words(phases: Iterable[Phase | None]) -> str:
    """Phases as people write them; a dash: not connected."""
    return " ".join("-" if phase is None else str(phase) for phase in phases)


def _read_16(message: v16.GetConfigurationResponse) -> dict[int, tuple[Phase | None, ...]]:
    """``0.RST, 1.RTS, 2.Unknown``: 0 is the main meter against the grid, the others against it."""
    value = next((item.value or "" for item in message.configuration_key or () if item.key == _KEY), "")
    found: dict[int, str] = {}
    for entry in value.split(","):
        number, _, rotation = entry.strip().partition(".")
        if number.isdecimal() and len(number) < 6 and _is_rotation(rotation.strip()):
            found[int(number)] = rotation.strip()
    whole = found.pop(_WHOLE, _ORDER)
    return {number: _phases(_seen_through(whole, rotation)) for number, rotation in found.items()}


def _read_201(message: v201.GetVariablesResponse) -> dict[int, tuple[Phase | None, ...]]:
    """Each component against the one around it: station, EVSE, connector."""
    said: dict[tuple[str, int], str] = {}
    for result in message.get_variable_result:
        value = (result.attribute_value or "").strip()
        if result.attribute_status == "Accepted" and _is_rotation(value):
            evse = result.component.evse
            said[result.component.name, _WHOLE if evse is None else evse.id] = value
    whole = said.get(("ChargingStation", _WHOLE), _ORDER)
    numbers = {number for name, number in said if name in ("EVSE", "Connector")}
    return {
        number: _phases(
            _seen_through(
                _seen_through(whole, said.get(("EVSE", number), _ORDER)), said.get(("Connector", number), _ORDER)
            )
        )
        for number in numbers
    }


def _is_rotation(text: str) -> bool:
    """Three letters of R, S, T, each at most once, or x for a terminal without a phase (2.0.1)."""
    connected = [letter for letter in text if letter != "x"]
    return len(text) == len(_ORDER) and set(connected) <= set(_ORDER) and 0 < len(connected) == len(set(connected))


def _seen_through(outer: str, inner: str) -> str:
    """What is on the inner terminals when ``inner`` is relative to terminals that carry ``outer``."""
    return "".join("x" if letter == "x" else outer[_ORDER.index(letter)] for letter in inner)


def _phases(rotation: str) -> tuple[Phase | None, ...]:
    return tuple(_LETTERS.get(letter) for letter in rotation)
