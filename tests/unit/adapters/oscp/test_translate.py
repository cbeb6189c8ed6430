"""Units, phases and rounding, as properties."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.oscp import translate, wire
from gateway.domain.envelope import BindingPolicy, Block
from gateway.domain.ids import NodeId, PeerId
from gateway.domain.quantities import Dimension, Phase
from gateway.ports.grid import GroupBinding

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROTATED = GroupBinding(PeerId("dso"), "DEPOT-7", NodeId("main"), BindingPolicy(), phases=(Phase.L2, Phase.L3, Phase.L1))
CAPACITIES = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False)
DURATIONS = st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=30))
PER_UNIT = {"W": 1, "KW": 1_000, "A": 1_000, "WH": 1, "KWH": 1_000}


def translated(capacity: Decimal, unit: str, phase: str, duration: timedelta = timedelta(hours=1)) -> Block:
    text = json.dumps(
        {
            "group_id": "DEPOT-7",
            "type": "CONSUMPTION",
            "forecasted_blocks": [
                {
                    "capacity": "CAPACITY",
                    "unit": unit,
                    "phase": phase,
                    "start_time": NOW.isoformat(),
                    "end_time": (NOW + duration).isoformat(),
                }
            ],
        }
    ).replace('"CAPACITY"', f"{capacity:f}")
    limit = translate.limit_of(wire.decode(wire.UpdateGroupCapacityForecast, text.encode()), ROTATED, now=NOW)
    assert limit is not None
    return limit.blocks[0]


@given(CAPACITIES.filter(lambda c: len(f"{c:f}") <= 60), st.sampled_from(["W", "KW", "A"]))
def test_a_limit_loses_less_than_a_unit_and_never_gains(capacity: Decimal, unit: str) -> None:
    exact = Fraction(capacity) * PER_UNIT[unit]
    value = translated(capacity, unit, "ALL").value
    assert value <= exact < value + 1 + Fraction(PER_UNIT[unit], 10**9)


@given(CAPACITIES.filter(lambda c: len(f"{c:f}") <= 60), st.sampled_from(["WH", "KWH"]), DURATIONS)
def test_an_energy_block_never_allows_more_than_its_energy(capacity: Decimal, unit: str, duration: timedelta) -> None:
    value = translated(capacity, unit, "ALL", duration).value
    hours = Fraction(duration // timedelta(microseconds=1), 3_600_000_000)
    assert value * hours <= Fraction(capacity) * PER_UNIT[unit]


@pytest.mark.parametrize(
    ("phase", "unit", "dimension"),
    [
        ("ALL", "A", Dimension.EACH_A),
        ("UNKNOWN", "A", Dimension.EACH_A),
        ("ONE", "A", Dimension.L2_A),
        ("TWO", "A", Dimension.L3_A),
        ("THREE", "A", Dimension.L1_A),
        ("ALL", "W", Dimension.SUM_W),
        ("UNKNOWN", "KW", Dimension.SUM_W),
        ("ONE", "W", Dimension.L2_W),
        ("TWO", "KW", Dimension.L3_W),
        ("THREE", "KWH", Dimension.L1_W),
        ("ALL", "WH", Dimension.SUM_W),
        ("UNKNOWN", "KWH", Dimension.SUM_W),
    ],
)
def test_phases_and_units_choose_what_is_limited(phase: str, unit: str, dimension: Dimension) -> None:
    assert translated(Decimal(10), unit, phase).dimension is dimension


@pytest.mark.parametrize(
    ("capacity", "unit", "duration", "value"),
    [
        ("9.9999", "KW", timedelta(hours=1), 9_999),
        ("0.9999999999999999999999999999999999999999", "KW", timedelta(hours=1), 999),
        ("15", "KWH", timedelta(minutes=15), 60_000),
        ("100", "WH", timedelta(hours=3), 33),
        ("0", "KW", timedelta(hours=1), 0),
        ("31.9999", "A", timedelta(hours=1), 31_999),
    ],
)
def test_examples(capacity: str, unit: str, duration: timedelta, value: int) -> None:
    assert translated(Decimal(capacity), unit, "ALL", duration).value == value


@pytest.mark.parametrize("dimension", Dimension)
def test_what_cannot_be_kept_goes_back_in_the_peers_own_phases(dimension: Dimension) -> None:
    block = {"start": "2026-03-01T16:00:00Z", "end": "2026-03-01T17:00:00Z", "value": 16_000, "dimension": dimension}
    message = translate.compliance_error("reason=inflexible_load", [block], ROTATED.phases)
    assert message.forecasted_blocks is not None
    (out,) = message.forecasted_blocks
    back = translated(out.capacity, out.unit.value, out.phase.value)
    assert (back.dimension, back.value) == (dimension, 16_000)


def test_a_compliance_error_without_blocks_has_no_such_field() -> None:
    assert json.loads(translate.compliance_error("m", [], ROTATED.phases).to_wire()) == {"message": "m"}


@given(st.integers(-(10**12), 10**12), st.sampled_from(wire.EnergyUnit))
def test_a_register_goes_out_exactly(value: int, unit: wire.EnergyUnit) -> None:
    reading = {"quantity": "energy_export_wh", "value": value, "measured_at": "2026-03-01T00:00:00.123456Z"}
    if unit is wire.EnergyUnit.WH:
        reading["scope"] = "FLEXIBLE"
    body = json.loads(translate.group_measurements("G", [reading], unit).to_wire(), parse_float=Decimal)
    (out,) = body["measurements"]
    assert out["value"] * (1_000 if unit is wire.EnergyUnit.KWH else 1) == value
    assert (out["direction"], out["phase"], out["measure_time"]) == ("EXPORT", "ALL", "2026-03-01T00:00:00.123000Z")
    assert out["energy_type"] == ("FLEXIBLE" if unit is wire.EnergyUnit.WH else "TOTAL")
