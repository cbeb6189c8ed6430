"""Sampled values of both versions to measurements in the domain's units and phases. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from adapters.ocpp.translate.instant import read_instant
from adapters.ocpp.wire import v16, v201
from gateway.domain.ids import NodeId
from gateway.domain.measurement import Measurement, Quality, Quantity
from gateway.domain.quantities import Phase, Volts

MAX_MAGNITUDE = Decimal(10) ** 12
"""Beyond a terawatt or a terawatt-hour a value is noise; larger ones are dropped."""

DEFAULT_MEASURAND = "Energy.Active.Import.Register"

_SCALE = {
    "Wh": Decimal(1),
    "kWh": Decimal(1000),
    "W": Decimal(1),
    "kW": Decimal(1000),
    "A": Decimal(1),
    "mA": Decimal("0.001"),
    "V": Decimal(1),
    "Percent": Decimal(1),
}
_DEFAULT_UNIT = {"Energy": "Wh", "Power": "W", "Current": "A", "Voltage": "V", "SoC": "Percent"}
_TERMINAL = {"L1": 0, "L2": 1, "L3": 2, "L1-N": 0, "L2-N": 1, "L3-N": 2}
_CURRENT = {Phase.L1: Quantity.I_L1, Phase.L2: Quantity.I_L2, Phase.L3: Quantity.I_L3}
_VOLTAGE = {Phase.L1: Quantity.V_L1, Phase.L2: Quantity.V_L2, Phase.L3: Quantity.V_L3}
_VEHICLE_SIDE = frozenset({"EV", "Body", "Cable"})


@dataclass(frozen=True, slots=True)
class MeterPoint:
    """Where values belong. ``phases`` are the site phases of the terminals 1, 2, 3."""

    node: NodeId
    phases: tuple[Phase, ...]
    voltage_v: Volts
    source: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One value in a base unit (W, Wh, A, V, %). ``phase`` is None for a total."""

    measurand: str
    phase: Phase | None
    value: Decimal


def readings_16(values: Iterable[v16.SampledValue], point: MeterPoint) -> list[Reading]:
    """OCPP 1.6 §7.43; defaults are those of the specification."""
    return [
        reading
        for value in values
        if value.format != "SignedData"
        for reading in _reading(value.measurand, value.phase, value.location, _decimal(value.value), value.unit, point)
    ]


def readings_201(values: Iterable[v201.SampledValueType], point: MeterPoint) -> list[Reading]:
    """OCPP 2.0.1 SampledValueType: value · 10^multiplier in the given unit."""
    found: list[Reading] = []
    for value in values:
        unit = value.unit_of_measure
        amount = _decimal(value.value)
        if amount is not None and unit is not None and unit.multiplier:
            amount = amount.scaleb(unit.multiplier) if abs(unit.multiplier) <= 12 else None
        found += _reading(value.measurand, value.phase, value.location, amount, unit.unit if unit else None, point)
    return found


def measurements(
    readings: Sequence[Reading], point: MeterPoint, timestamp: str, received_at: datetime
) -> list[Measurement]:
    """What one instant's readings say about a node; a missing power is computed from currents.

    Power is signed (export negative); values are rounded to the nearest unit.
    """
    measured_at, believed = read_instant(timestamp, received_at)
    quality = Quality.GOOD if believed else Quality.SUSPECT
    found: dict[Quantity, tuple[Decimal, Quality]] = {}
    _energy(readings, found)
    currents = _per_phase("Current.Import", readings, point)
    voltages = _per_phase("Voltage", readings, point)
    for phase, (amperes, exact) in currents.items():
        found[_CURRENT[phase]] = (amperes * 1000, _quality(exact))
    for phase, (volts, exact) in voltages.items():
        found[_VOLTAGE[phase]] = (volts * 1000, _quality(exact))
    power = _power(readings)
    if power is not None:
        found[Quantity.P] = (power, Quality.GOOD)
    elif currents:
        nominal = Decimal(str(point.voltage_v))
        total = sum((a * voltages.get(p, (nominal, False))[0] for p, (a, _) in currents.items()), Decimal(0))
        found[Quantity.P] = (total, Quality.ESTIMATED)
    soc = _last("SoC", readings)
    if soc is not None:
        found[Quantity.SOC] = (soc * 100, Quality.GOOD)
    return [
        Measurement(
            point.node,
            quantity,
            int(value.to_integral_value(rounding=ROUND_HALF_EVEN)),
            measured_at,
            received_at,
            quality if own is Quality.GOOD else own,
            point.source,
        )
        for quantity, (value, own) in found.items()
        if abs(value) <= MAX_MAGNITUDE
    ]


def samples_16(values: Iterable[v16.MeterValue], point: MeterPoint, received_at: datetime) -> list[Measurement]:
    """All measurements of a 1.6 list of meter values."""
    return [
        sample
        for value in values
        for sample in measurements(readings_16(value.sampled_value, point), point, value.timestamp, received_at)
    ]


def samples_201(values: Iterable[v201.MeterValueType], point: MeterPoint, received_at: datetime) -> list[Measurement]:
    """All measurements of a 2.0.1 list of meter values."""
    return [
        sample
        for value in values
        for sample in measurements(readings_201(value.sampled_value, point), point, value.timestamp, received_at)
    ]


def _reading(
    measurand: str | None,
    phase: str | None,
    location: str | None,
    value: Decimal | None,
    unit: str | None,
    point: MeterPoint,
) -> list[Reading]:
    """None or one: what cannot be read is dropped, the rest of the message still counts."""
    name = measurand or DEFAULT_MEASURAND
    scale = _SCALE.get(unit or _DEFAULT_UNIT.get(name.partition(".")[0], ""))
    if value is None or scale is None or (location in _VEHICLE_SIDE and name != "SoC"):
        return []
    if phase is None:
        return [Reading(name, None, value * scale)]
    terminal = _TERMINAL.get(phase)
    if terminal is None or terminal >= len(point.phases):
        return []
    return [Reading(name, point.phases[terminal], value * scale)]


def _decimal(value: str | float) -> Decimal | None:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number) <= MAX_MAGNITUDE else None


def _last(measurand: str, readings: Sequence[Reading]) -> Decimal | None:
    values = [r.value for r in readings if r.measurand == measurand and r.phase is None]
    return values[-1] if values else None


def _total(measurand: str, readings: Sequence[Reading]) -> Decimal | None:
    """The total as sent, else the sum over the phases."""
    total = _last(measurand, readings)
    if total is not None:
        return total
    phases = {r.phase: r.value for r in readings if r.measurand == measurand}
    return sum(phases.values(), Decimal(0)) if phases else None


def _power(readings: Sequence[Reading]) -> Decimal | None:
    imported, exported = _total("Power.Active.Import", readings), _total("Power.Active.Export", readings)
    if imported is None and exported is None:
        return None
    return (imported or Decimal(0)) - abs(exported or Decimal(0))


def _energy(readings: Sequence[Reading], found: dict[Quantity, tuple[Decimal, Quality]]) -> None:
    for measurand, quantity in (
        ("Energy.Active.Import.Register", Quantity.E_IMPORT),
        ("Energy.Active.Export.Register", Quantity.E_EXPORT),
    ):
        value = _total(measurand, readings)
        if value is not None:
            found[quantity] = (value, Quality.GOOD)


def _per_phase(measurand: str, readings: Sequence[Reading], point: MeterPoint) -> dict[Phase, tuple[Decimal, bool]]:
    """Value per site phase, and whether the station named the phase.

    Without a phase a value is read as that of every phase: exact on one phase, a guess on three.
    """
    named = {r.phase: (r.value, True) for r in readings if r.measurand == measurand and r.phase is not None}
    if named:
        return named
    total = _last(measurand, readings)
    return {} if total is None else {phase: (total, len(point.phases) == 1) for phase in point.phases}


def _quality(exact: bool) -> Quality:
    return Quality.GOOD if exact else Quality.ESTIMATED
