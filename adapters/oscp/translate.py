"""OSCP messages to domain values and back. Pure and total; limits round down, registers are exact.

Units and phases: OSCP fact "phase ALL in A limits each phase, in W the sum"; energy of a block is
its average power over the block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from functools import lru_cache
from math import floor

from adapters.oscp import wire
from adapters.oscp.plain import PlainBlock, PlainForecast
from adapters.oscp.wire import ForecastType, Phase, Unit
from gateway.domain.envelope import Block, BlockKind, has_overlap
from gateway.domain.errors import MalformedMessage
from gateway.domain.evidence import Json
from gateway.domain.quantities import Dimension, Direction, milliamperes_down, watts_down
from gateway.domain.quantities import Phase as SitePhase
from gateway.domain.timeline import parse_rfc3339
from gateway.ports.grid import GroupBinding

PRIMARY_HORIZON = timedelta(days=35)
"""How far ahead a limit may reach: a month and some days."""

FALLBACK_HORIZON = timedelta(days=400)
"""How far ahead a fallback may reach: a year and some weeks."""

OFFLINE_CAP = timedelta(hours=24)
"""A peer that promises to be heard later than this is taken at this."""

OVERLAPPING_BLOCKS = "OVERLAPPING_BLOCKS"
PAST_BLOCKS = "PAST_BLOCKS"

_NANO = Decimal("1e-9")
_SECONDS_PER_HOUR = 3_600
_STREAMS: Mapping[ForecastType, tuple[Direction, BlockKind]] = {
    ForecastType.CONSUMPTION: (Direction.IMPORT, BlockKind.PRIMARY),
    ForecastType.GENERATION: (Direction.EXPORT, BlockKind.PRIMARY),
    ForecastType.FALLBACK_CONSUMPTION: (Direction.IMPORT, BlockKind.FALLBACK),
    ForecastType.FALLBACK_GENERATION: (Direction.EXPORT, BlockKind.FALLBACK),
}
_PLACE = {Phase.ONE: 0, Phase.TWO: 1, Phase.THREE: 2}
_SCALE = {Unit.A: 1_000, Unit.W: 1, Unit.KW: 1_000, Unit.WH: 1, Unit.KWH: 1_000}
_OF_ENERGY = frozenset({Unit.WH, Unit.KWH})
_OF_PHASE_W = {SitePhase.L1: Dimension.L1_W, SitePhase.L2: Dimension.L2_W, SitePhase.L3: Dimension.L3_W}
_OF_PHASE_A = {SitePhase.L1: Dimension.L1_A, SitePhase.L2: Dimension.L2_A, SitePhase.L3: Dimension.L3_A}


@dataclass(frozen=True, slots=True)
class Limit:
    """What a forecast says, in the domain's words; ``flags`` name what was odd about it."""

    direction: Direction
    kind: BlockKind
    blocks: tuple[Block, ...]
    flags: tuple[str, ...]


def limit_of(
    forecast: wire.UpdateGroupCapacityForecast | PlainForecast,
    binding: GroupBinding,
    *,
    now: datetime,
    naive_zone: tzinfo | None = None,
) -> Limit | None:
    """The limit of a forecast; None for ``OPTIMUM``, which is advice.

    Raises:
        MalformedMessage: see :func:`blocks_of`.
    """
    return limit_in(forecast.type, blocks_of(forecast, binding, now=now, naive_zone=naive_zone), now=now)


def blocks_of(
    forecast: wire.UpdateGroupCapacityForecast | PlainForecast,
    binding: GroupBinding,
    *,
    now: datetime,
    naive_zone: tzinfo | None = None,
) -> tuple[Block, ...]:
    """The blocks of a forecast of any type.

    Raises:
        MalformedMessage: a time without zone, an end not after its start, or a block beyond the
            horizon.
    """
    stream = _STREAMS.get(forecast.type)
    is_fallback = stream is not None and stream[1] is BlockKind.FALLBACK
    horizon = now + (FALLBACK_HORIZON if is_fallback else PRIMARY_HORIZON)
    dimensions = _dimensions(binding.phases)
    told: Sequence[wire.ForecastedBlock | PlainBlock] = forecast.forecasted_blocks
    return tuple([_block(block, index, horizon, naive_zone, dimensions) for index, block in enumerate(told)])


def limit_in(type_: ForecastType, blocks: tuple[Block, ...], *, now: datetime) -> Limit | None:
    """What blocks of a forecast of this type limit; None for advice."""
    stream = _STREAMS.get(type_)
    if stream is None:
        return None
    flags = []
    if has_overlap(blocks):
        flags.append(OVERLAPPING_BLOCKS)
    if any(block.end <= now for block in blocks):
        flags.append(PAST_BLOCKS)
    return Limit(*stream, blocks, tuple(flags))


def utc(value: datetime, naive_zone: tzinfo | None, name: str) -> datetime:
    """The instant in UTC.

    Raises:
        MalformedMessage: no zone, and the dialect has none to lend; or outside the calendar.
    """
    if value.tzinfo is None:
        if naive_zone is None:
            raise MalformedMessage(f"{name}: time without zone; write Z or an offset")
        value = value.replace(tzinfo=naive_zone)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise MalformedMessage(f"{name}: time outside the calendar") from None


def offline_at(told: datetime | None, *, now: datetime, interval: timedelta, naive_zone: tzinfo | None) -> datetime:
    """From when the sender of a heartbeat counts as offline: told, at most 24 h ahead.

    Not told: two intervals from ``now``. In the past: it is offline already.
    """
    if told is None:
        return now + 2 * interval
    return min(utc(told, naive_zone, "offline_mode_at"), now + OFFLINE_CAP)


def _block(
    block: wire.ForecastedBlock | PlainBlock,
    index: int,
    horizon: datetime,
    naive_zone: tzinfo | None,
    dimensions: Mapping[tuple[Phase, Unit], Dimension],
) -> Block:
    start, end = block.start_time, block.end_time
    if start.tzinfo is not UTC:
        start = utc(start, naive_zone, f"forecasted_blocks.{index}.start_time")
    if end.tzinfo is not UTC:
        end = utc(end, naive_zone, f"forecasted_blocks.{index}.end_time")
    if end <= start:
        raise MalformedMessage(f"forecasted_blocks.{index}: end_time is not after start_time")
    if end > horizon:
        raise MalformedMessage(
            f"forecasted_blocks.{index}: end_time lies beyond the accepted horizon, {horizon:%Y-%m-%d}"
        )
    return Block(start, end, _value(block, start, end), dimensions[block.phase, block.unit])


@lru_cache
def _dimensions(phases: tuple[SitePhase, SitePhase, SitePhase]) -> Mapping[tuple[Phase, Unit], Dimension]:
    """What a capacity limits, where the peer's phases are these of the site."""
    return {(phase, unit): _dimension(phase, unit, phases) for phase in Phase for unit in Unit}


def _dimension(phase: Phase, unit: Unit, phases: tuple[SitePhase, SitePhase, SitePhase]) -> Dimension:
    # UNKNOWN is read as ALL: the tighter reading, for the limit then binds everything together.
    place = _PLACE.get(phase)
    if unit is Unit.A:
        return Dimension.EACH_A if place is None else _OF_PHASE_A[phases[place]]
    return Dimension.SUM_W if place is None else _OF_PHASE_W[phases[place]]


def _value(block: wire.ForecastedBlock | PlainBlock, start: datetime, end: datetime) -> int:
    """In W or mA, rounded down."""
    capacity, unit = block.capacity, block.unit
    if unit in _OF_ENERGY:
        watt_hours = Fraction(capacity) * _SCALE[unit]
        seconds = Fraction((end - start) // timedelta(microseconds=1), 1_000_000)
        return floor(watt_hours * _SECONDS_PER_HOUR / seconds)
    if isinstance(capacity, int):
        return capacity * _SCALE[unit]
    # Cut to nano-units first, so that no later multiplication has to round (and rounds up).
    cut = capacity.quantize(_NANO, rounding=ROUND_FLOOR)
    return milliamperes_down(cut) if unit is Unit.A else watts_down(cut, kilo=unit is Unit.KW)


# --- out ------------------------------------------------------------------------------------

_POWER = "power_w"
_REGISTERS = {
    "energy_import_wh": wire.EnergyDirection.IMPORT,
    "energy_export_wh": wire.EnergyDirection.EXPORT,
}


def group_measurements(
    group: str, values: Sequence[Mapping[str, Json]], unit: wire.EnergyUnit
) -> wire.UpdateGroupMeasurements:
    """Registers of a group, phases together; momentary values are left out.

    ``values``: ``quantity`` (``energy_import_wh`` or ``energy_export_wh``), ``value`` in Wh,
    ``measured_at``, ``scope`` (``TOTAL`` when absent), ``since`` for a register that began with a
    session.

    Raises:
        KeyError, TypeError, ValueError: not such a value: a bug of ours.
    """
    registers = [v for v in values if v["quantity"] != _POWER]
    return wire.UpdateGroupMeasurements(group_id=group, measurements=tuple(_register(v, unit) for v in registers))


def wanted(values: Sequence[Mapping[str, Json]], configuration: Sequence[str]) -> list[Mapping[str, Json]]:
    """What a peer with this measurement configuration wants to be told. No wish: registers that never restart.

    The configuration is about registers; momentary power is kept for those who are told that.
    """
    intermittent = wire.MeasurementConfiguration.INTERMITTENT in configuration
    continuous = wire.MeasurementConfiguration.CONTINUOUS in configuration or not intermittent
    return [v for v in values if v["quantity"] == _POWER or (intermittent if "since" in v else continuous)]


def asset_measurements(
    group: str, values: Sequence[Mapping[str, Json]], category: str, unit: Unit
) -> wire.UpdateAssetMeasurements | None:
    """The whole group as one asset that is named like it: its momentary power. None where it is unknown."""
    power = next((v for v in values if v["quantity"] == _POWER), None)
    if power is None:
        return None
    watts = Decimal(_integer(power["value"]))
    momentary = wire.InstantaneousMeasurement(
        value=watts / 1000 if unit is Unit.KW else watts,
        phase=Phase.ALL,
        unit=unit,
        measure_time=parse_rfc3339(str(power["measured_at"])),
    )
    asset = wire.AssetMeasurement(
        asset_id=group, asset_category=wire.AssetCategory(category), instantaneous_measurement=momentary
    )
    return wire.UpdateAssetMeasurements(group_id=group, measurements=(asset,))


def _register(value: Mapping[str, Json], unit: wire.EnergyUnit) -> wire.EnergyMeasurement:
    watt_hours = Decimal(_integer(value["value"]))
    return wire.EnergyMeasurement(
        value=watt_hours / 1000 if unit is wire.EnergyUnit.KWH else watt_hours,
        phase=Phase.ALL,
        unit=unit,
        direction=_REGISTERS[str(value["quantity"])],
        energy_type=wire.EnergyType(str(value.get("scope", "TOTAL"))),
        measure_time=parse_rfc3339(str(value["measured_at"])),
        initial_measure_time=parse_rfc3339(str(value["since"])) if "since" in value else None,
    )


def wanted_capacity(
    group: str, type_: str, blocks: Sequence[Mapping[str, Json]], phases: tuple[SitePhase, SitePhase, SitePhase]
) -> wire.AdjustGroupCapacityForecast:
    """The capacity that we would like, in total. ``blocks`` as in :func:`compliance_error`.

    Raises:
        KeyError, TypeError, ValueError: not such a block: a bug of ours.
    """
    return wire.AdjustGroupCapacityForecast(
        group_id=group,
        type=ForecastType(type_),
        forecasted_blocks=tuple(_block_out(block, phases) for block in blocks),
    )


def compliance_error(
    message: str, blocks: Sequence[Mapping[str, Json]], phases: tuple[SitePhase, SitePhase, SitePhase]
) -> wire.GroupCapacityComplianceError:
    """What cannot be kept. ``blocks``: ``start``, ``end``, ``value`` (W or mA), ``dimension``.

    Raises:
        KeyError, TypeError, ValueError: not such a block: a bug of ours.
    """
    translated = tuple(_block_out(block, phases) for block in blocks)
    return wire.GroupCapacityComplianceError(message=message, forecasted_blocks=translated or None)


def _block_out(block: Mapping[str, Json], phases: tuple[SitePhase, SitePhase, SitePhase]) -> wire.ForecastedBlock:
    dimension = Dimension(str(block["dimension"]))
    value = Decimal(_integer(block["value"]))
    in_amperes = dimension.value.endswith("_a")
    return wire.ForecastedBlock(
        capacity=value / 1000 if in_amperes else value,
        phase=_phase_out(dimension, phases),
        unit=Unit.A if in_amperes else Unit.W,
        start_time=parse_rfc3339(str(block["start"])),
        end_time=parse_rfc3339(str(block["end"])),
    )


def _phase_out(dimension: Dimension, phases: tuple[SitePhase, SitePhase, SitePhase]) -> Phase:
    if dimension in (Dimension.SUM_W, Dimension.EACH_A):
        return Phase.ALL
    site_phase = SitePhase(dimension.value[:2].upper())
    return (Phase.ONE, Phase.TWO, Phase.THREE)[phases.index(site_phase)]


def _integer(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not an integer")
    return value
