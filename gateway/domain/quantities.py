"""Electrical quantities and their conversions, each with its rounding direction.

Power and current are signed: import (from the grid) positive, export negative. Limits are two
non-negative magnitudes. At rest everything is an integer in a base unit: W, Wh, mA.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from typing import NewType

Watts = NewType("Watts", int)
WattHours = NewType("WattHours", int)
MilliAmperes = NewType("MilliAmperes", int)
Amperes = NewType("Amperes", float)
Volts = NewType("Volts", float)

NOMINAL_VOLTAGE_V = Volts(230.0)
"""Phase to neutral, where the topology does not say otherwise."""

HIGHEST_PLAUSIBLE_VOLTAGE = 1.1
"""EN 50160 allows nominal +10 %: a watt limit held by amperes must hold there too."""


class Phase(StrEnum):
    """A phase of the site (not of a station's terminal)."""

    L1 = "L1"
    L2 = "L2"
    L3 = "L3"


ALL_PHASES = (Phase.L1, Phase.L2, Phase.L3)


class Direction(StrEnum):
    """Of a limit."""

    IMPORT = "import"
    EXPORT = "export"


class Dimension(StrEnum):
    """What a limit value limits. ``*_W`` values are W, ``*_A`` values are mA."""

    SUM_W = "sum_w"
    L1_W = "l1_w"
    L2_W = "l2_w"
    L3_W = "l3_w"
    EACH_A = "each_a"
    L1_A = "l1_a"
    L2_A = "l2_a"
    L3_A = "l3_a"


def watts_down(value: Decimal, *, kilo: bool = False) -> Watts:
    """A limit in W or kW as whole watts, rounded down: 9.9999 kW is 9,999 W."""
    scaled = value * 1000 if kilo else value
    return Watts(int(scaled.to_integral_value(rounding=ROUND_FLOOR)))


def milliamperes_down(value: Decimal) -> MilliAmperes:
    """A limit in A as whole mA, rounded down."""
    return MilliAmperes(int((value * 1000).to_integral_value(rounding=ROUND_FLOOR)))


def watts_nearest(value: Decimal) -> Watts:
    """A measurement, to the nearest watt."""
    return Watts(int(value.to_integral_value(rounding=ROUND_HALF_EVEN)))


def watt_hours_nearest(value: Decimal) -> WattHours:
    """A measurement, to the nearest watt-hour."""
    return WattHours(int(value.to_integral_value(rounding=ROUND_HALF_EVEN)))


def watts_of_current_up(current_ma: MilliAmperes, voltage_v: Volts, phases: int) -> Watts:
    """Power of ``current_ma`` on each of ``phases``, rounded up: a demand, never a limit."""
    product = Decimal(current_ma) * Decimal(str(voltage_v)) * phases / 1000
    return Watts(int(product.to_integral_value(rounding=ROUND_CEILING)))


def watts_of_current_down(current_ma: MilliAmperes, voltage_v: Volts, phases: int) -> Watts:
    """Power of ``current_ma`` on each of ``phases``, rounded down: a limit."""
    product = Decimal(current_ma) * Decimal(str(voltage_v)) * phases / 1000
    return Watts(int(product.to_integral_value(rounding=ROUND_FLOOR)))


def current_limit_a(power_w: Watts, voltage_v: Volts, phases: int) -> Amperes:
    """Per-phase current that never exceeds ``power_w`` at ``voltage_v``.

    Rounds towards zero to 0.1 A, the finest step of OCPP 1.6 §7.13 (``limit`` is a multiple of
    0.1): a limit may only get tighter when it is converted.
    """
    tenths = Decimal(power_w) * 10 / (Decimal(str(voltage_v)) * phases)
    return Amperes(int(tenths) / 10)
