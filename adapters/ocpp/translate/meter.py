"""Sampled values of both versions to measurements in the domain's units and phases. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TypeAlias

from adapters.ocpp.translate.instant import read_instant
from adapters.ocpp.wire import v16, v201
from gateway.domain.calendar import WHOLE
from gateway.domain.ids import NodeId
from gateway.domain.measurement import CURRENT, VOLTAGE, Measurement, Quality, Quantity
from gateway.domain.quantities import Phase, Volts

MAX_MAGNITUDE = Decimal(10) ** 12
"""Beyond a terawatt or a terawatt-hour a value is noise; larger ones are dropped."""

MAX_UNITS = int(MAX_MAGNITUDE)

_ZERO = Decimal(0)
_MILLI = Decimal(1000)

DEFAULT_MEASURAND = "Energy.Active.Import.Register"

MAX_MEANINGS = 1_024
"""Kinds of values remembered, of all stations together: a few dozen exist, a station may invent others."""

_SCALE = {
    "Wh": Decimal(1),
    "kWh": Decimal(1000),
    "W": Decimal(1),
    "kW": Decimal(1000),
    "A": Decimal(1000),
    "mA": Decimal(1),
    "V": Decimal(1000),
    "Percent": Decimal(100),
}
"""To the domain's units (W, Wh, mA, mV, 0.01 %)."""

_DEFAULT_UNIT = {"Energy": "Wh", "Power": "W", "Current": "A", "Voltage": "V", "SoC": "Percent"}
_TERMINAL = {"L1": 0, "L2": 1, "L3": 2, "L1-N": 0, "L2-N": 1, "L3-N": 2}
_TERMINALS = {
    name: tuple(f"{name}/{terminal}" for terminal in range(3))
    for name in (
        "Current.Import",
        "Energy.Active.Export.Register",
        "Energy.Active.Import.Register",
        "Power.Active.Export",
        "Power.Active.Import",
        "Voltage",
    )
}
"""Keys of readings at a station's terminals 1, 2, 3, of what is looked for there."""

_REGISTERS = (
    ("Energy.Active.Import.Register", Quantity.E_IMPORT),
    ("Energy.Active.Export.Register", Quantity.E_EXPORT),
)
_VEHICLE_SIDE = frozenset({"EV", "Body", "Cable"})


@dataclass(frozen=True, slots=True)
class MeterPoint:
    """Where values belong. ``phases`` are the site phases of the terminals 1, 2, 3.

    Power is measured where ``efficiency`` thousandths of the grid's arrive.
    """

    node: NodeId
    phases: tuple[Phase, ...]
    voltage_v: Volts
    source: str
    efficiency: int = WHOLE


Readings: TypeAlias = dict[str, Decimal]
"""Values in the domain's units (W, Wh, mA, mV, 0.01 %): by measurand, for one terminal by :data:`_TERMINALS`.

The last one of a kind counts.
"""


def readings_16(values: Iterable[v16.SampledValue], point: MeterPoint) -> Readings:
    """OCPP 1.6 §7.43; defaults are those of the specification."""
    found: Readings = {}
    terminals = len(point.phases)
    for value in values:
        meaning = _meaning(value.measurand, value.phase, value.location, value.unit, terminals)
        if meaning is not None and value.format != "SignedData":
            amount = _decimal(value.value)
            if amount is not None:
                found[meaning[0]] = amount * meaning[1]
    return found


def readings_201(values: Iterable[v201.SampledValueType], point: MeterPoint) -> Readings:
    """OCPP 2.0.1 SampledValueType: value · 10^multiplier in the given unit."""
    found: Readings = {}
    terminals = len(point.phases)
    for value in values:
        unit = value.unit_of_measure
        meaning = _meaning(value.measurand, value.phase, value.location, unit.unit if unit else None, terminals)
        if meaning is None:
            continue
        amount = _decimal(value.value)
        if amount is not None and unit is not None and unit.multiplier:
            amount = amount.scaleb(unit.multiplier) if abs(unit.multiplier) <= 12 else None
        if amount is not None:
            found[meaning[0]] = amount * meaning[1]
    return found


def measurements(
    readings: Readings, point: MeterPoint, measured_at: datetime, received_at: datetime, *, believed: bool
) -> list[Measurement]:
    """What one instant's readings say about a node; a missing power is computed from currents.

    Power is signed (export negative); values are rounded to the nearest unit. ``believed``: whether the
    station's time can be.
    """
    node, source, good = point.node, point.source, Quality.GOOD if believed else Quality.SUSPECT
    return [
        Measurement(
            node, quantity, round(value), measured_at, received_at, good if exact else Quality.ESTIMATED, source
        )
        for quantity, value, exact in _found(readings, point)
        if -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE
    ]


def samples_16(values: Iterable[v16.MeterValue], point: MeterPoint, received_at: datetime) -> list[Measurement]:
    """All measurements of a 1.6 list of meter values."""
    found: list[Measurement] = []
    for value in values:
        measured_at, believed = read_instant(value.timestamp, received_at)
        readings = readings_16(value.sampled_value, point)
        found += measurements(readings, point, measured_at, received_at, believed=believed)
    return found


def samples_201(values: Iterable[v201.MeterValueType], point: MeterPoint, received_at: datetime) -> list[Measurement]:
    """All measurements of a 2.0.1 list of meter values."""
    found: list[Measurement] = []
    for value in values:
        measured_at, believed = read_instant(value.timestamp, received_at)
        readings = readings_201(value.sampled_value, point)
        found += measurements(readings, point, measured_at, received_at, believed=believed)
    return found


@lru_cache(maxsize=MAX_MEANINGS)
def _meaning(
    measurand: str | None, phase: str | None, location: str | None, unit: str | None, terminals: int
) -> tuple[str, Decimal] | None:
    """Key of a reading and what to multiply it with; None: it cannot be read, the rest still counts."""
    name = measurand or DEFAULT_MEASURAND
    scale = _SCALE.get(unit or _DEFAULT_UNIT.get(name.partition(".")[0], ""))
    if scale is None or (location in _VEHICLE_SIDE and name != "SoC"):
        return None
    if phase is None:
        return name, scale
    terminal = _TERMINAL.get(phase)
    if terminal is None or terminal >= terminals or name not in _TERMINALS:
        return None
    return _TERMINALS[name][terminal], scale


def _decimal(value: str | float) -> Decimal | None:
    try:
        number = Decimal(value if type(value) is str else str(value))
        usable = -MAX_MAGNITUDE <= number <= MAX_MAGNITUDE
    except InvalidOperation:
        # No number, or one that compares with nothing.
        return None
    return number if usable else None


def _found(readings: Readings, point: MeterPoint) -> list[tuple[Quantity, Decimal, bool]]:
    """Quantity, value in its unit, and whether it is exact rather than estimated."""
    found = [(quantity, value, True) for name, quantity in _REGISTERS if (value := _total(name, readings)) is not None]
    currents, exact = _per_phase("Current.Import", readings, point)
    found += [(CURRENT[phase], milliamperes, exact) for phase, milliamperes in currents.items()]
    voltages, exact = _per_phase("Voltage", readings, point)
    found += [(VOLTAGE[phase], millivolts, exact) for phase, millivolts in voltages.items()]
    power = _power(readings)
    if power is not None:
        found.append((Quantity.P, _at_the_grid(power, point.efficiency), True))
    elif currents:
        nominal = Decimal(str(point.voltage_v)) * _MILLI
        microwatts = sum((a * voltages.get(phase, nominal) for phase, a in currents.items()), _ZERO)
        found.append((Quantity.P, microwatts / (_MILLI * _MILLI), False))
    soc = readings.get("SoC")
    if soc is not None:
        found.append((Quantity.SOC, soc, True))
    return found


def _total(measurand: str, readings: Readings) -> Decimal | None:
    """The total as sent, else the sum over the phases."""
    total = readings.get(measurand)
    if total is not None:
        return total
    phases = [readings[key] for key in _TERMINALS[measurand] if key in readings]
    return sum(phases, _ZERO) if phases else None


def _at_the_grid(power: Decimal, efficiency: int) -> Decimal:
    """The power on the grid's side: more than a vehicle takes, less than one gives."""
    return power * WHOLE / efficiency if power > 0 else power * efficiency / WHOLE


def _power(readings: Readings) -> Decimal | None:
    imported, exported = _total("Power.Active.Import", readings), _total("Power.Active.Export", readings)
    if imported is None and exported is None:
        return None
    return (imported or _ZERO) - abs(exported or _ZERO)


def _per_phase(measurand: str, readings: Readings, point: MeterPoint) -> tuple[dict[Phase, Decimal], bool]:
    """Value per site phase, and whether they are exact.

    Without a phase a value is read as that of every phase: exact on one phase, a guess on three.
    """
    keys = zip(point.phases, _TERMINALS[measurand], strict=False)
    named = {phase: readings[key] for phase, key in keys if key in readings}
    if named:
        return named, True
    total = readings.get(measurand)
    return ({}, True) if total is None else (dict.fromkeys(point.phases, total), len(point.phases) == 1)
