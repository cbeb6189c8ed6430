"""A forecast that is read the fast way means what its model says, and is one that the model takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.oscp import translate, wire
from adapters.oscp.plain import read_plain
from gateway.domain.envelope import BindingPolicy
from gateway.domain.errors import MalformedMessage
from gateway.domain.ids import NodeId, PeerId
from gateway.domain.quantities import Phase
from gateway.ports.grid import GroupBinding
from tests.unit.adapters.oscp.fakes import a_block, a_forecast

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BINDING = GroupBinding(PeerId("dso"), "DEPOT-7", NodeId("main"), BindingPolicy(), phases=(Phase.L2, Phase.L3, Phase.L1))


def meaning(forecast: Any) -> Any:
    """What comes of a forecast, or why nothing does."""
    try:
        return forecast.group_id, forecast.type, translate.limit_of(forecast, BINDING, now=NOW)
    except MalformedMessage as problem:
        return str(problem)


def by_model(body: bytes) -> Any:
    return meaning(wire.decode(wire.UpdateGroupCapacityForecast, body))


def is_plain(body: bytes) -> bool:
    """Whether it is read the fast way; then the model must say the same."""
    plain = read_plain(body)
    if plain is not None:
        assert meaning(plain) == by_model(body)
    return plain is not None


def written(forecast: Any) -> bytes:
    return json.dumps(forecast).encode()


def with_number(text: str) -> bytes:
    return written(a_forecast(a_block(capacity=-7))).replace(b"-7", text.encode())


@pytest.mark.parametrize("unit", ["A", "W", "KW", "WH", "KWH"])
@pytest.mark.parametrize("phase", ["UNKNOWN", "ONE", "TWO", "THREE", "ALL"])
@pytest.mark.parametrize("type_", list(wire.ForecastType))
def test_every_type_unit_and_phase_is_plain(type_: str, phase: str, unit: str) -> None:
    assert is_plain(written(a_forecast(a_block(unit=unit, phase=phase), type=type_)))


@pytest.mark.parametrize(
    "time", ["16:00:00Z", "16:00:00.000Z", "16:00:00.123456Z", "17:00:00+01:00", "11:00:00-05:00", "16:00:00-00:00"]
)
def test_usual_times_are_plain(time: str) -> None:
    assert is_plain(written(a_forecast(a_block(start_time=f"2026-03-01T{time}"))))


@pytest.mark.parametrize("number", ["0", "180", "11.5", "180.0", "1e3", "0.1", "1000000000000", "0.99999999999999999"])
def test_usual_numbers_are_plain(number: str) -> None:
    assert is_plain(with_number(number))


def test_blocks_that_overlap_or_lie_in_the_past_are_plain() -> None:
    past = a_block(start_time="2026-02-01T00:00:00Z", end_time="2026-02-02T00:00:00Z")
    assert is_plain(written(a_forecast(a_block(), a_block(capacity=1), past)))


TWICE = b'"unit":"W","unit":"KW"'
LEFT_TO_THE_MODEL: dict[str, bytes] = {
    "a number of many digits": with_number("0." + "9" * 40),
    "a number beyond every grid": with_number("1e13"),
    "a number that no decimal can be": with_number("1e99999999999999999"),
    "a negative number": with_number("-1"),
    "a number as text": with_number('"11.5"'),
    "a number too long for Python": with_number("9" * 5_000),
    "truth": with_number("true"),
    "null": with_number("null"),
    "a list": with_number("[[1]]"),
    "NaN": with_number("NaN"),
    "a field twice": written(a_forecast()).replace(b'"unit": "KW"', TWICE),
    "a field twice, escaped": written(a_forecast()).replace(b'"unit": "KW"', rb'"unit":"W","\u0075nit":"KW"'),
    "the group twice": written(a_forecast()).replace(b'{"group_id"', b'{"group_id":"x","group_id"'),
    "a field that nobody knows": written(a_forecast(sent_by="me")),
    "a field of a block that nobody knows": written(a_forecast(a_block(tariff="x"))),
    "an escape": written(a_forecast(group_id="DEPOT-7")).replace(b"DEPOT-7", rb"DEPOT\u002d7"),
    "an empty group": written(a_forecast(group_id="")),
    "a long group": written(a_forecast(group_id="x" * 256)),
    "no blocks": written(a_forecast(forecasted_blocks=[])),
    "too many blocks": written(a_forecast(*[a_block()] * 1_001)),
    "another type": written(a_forecast(type="ADVICE")),
    "a field less": written(a_forecast(a_block(unit=None))),
    "no JSON": b"{",
    "two documents": written(a_forecast()) * 2,
    "a document of another kind": b"[1]",
    "depth": b"[" * 100_000,
    "depth in a number's place": with_number("[" * 100_000),
    "no UTF-8": written(a_forecast()).replace(b"DEPOT-7", b"\xff\xfe"),
    "a byte order mark": b"\xef\xbb\xbf" + written(a_forecast()),
    **{
        f"the time {time}": written(a_forecast(a_block(start_time=time)))
        for time in (
            "2026-03-01T16:00:00",
            "2026-03-01T16:00:00.1234567Z",
            "2026-03-01T16:00:00.0000000000Z",
            "2026-03-01T16:00:00+0100",
            "2026-03-01T16:00:00-0000",
            "2026-03-01T16:00:00+24:00",
            "2026-03-01T16:00:00+12:60",
            "2026-03-01t16:00:00z",
            "2026-03-01 16:00:00Z",
            "2026-03-01x16:00:00Z",
            "2026-03-01T16:00Z",
            "2026-03-01T160000.0Z",
            "2026-W09-7T16:00:00Z",
            "2026-03-01T23:59:60Z",
            "2026-03-01T24:00:00Z",
            "2026-02-30T16:00:00Z",
            "0001-01-01T00:00:00+14:00",
            "2026-03-01T16:00:00Z,2026-03-01T16:00:00Z",
            "2026-03-01T16:00:00Z\n",
            "２026-03-01T16:00:00Z",
            "1772380800",
            "",
        )
    },
}


@pytest.mark.parametrize("name", LEFT_TO_THE_MODEL)
def test_what_is_not_plain_is_left_to_the_model(name: str) -> None:
    assert read_plain(LEFT_TO_THE_MODEL[name]) is None


NUMBERS = st.one_of(
    st.integers(-(10**13), 10**13).map(str),
    st.decimals(0, 10**6, allow_nan=False).map(str),
    st.floats().map(json.dumps),
    st.from_regex(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(["true", "null", '"7"', "[]", "{}", "01", "+1", ".5", "5."]),
)
TIMES = st.from_regex(
    r"(2026-03-0[0-9]|2026-1[0-9]-3[01]|2024-02-29)[Tt ]([01][0-9]|2[0-5]):[0-6][0-9]:[0-6][0-9](\.[0-9]{1,11})?"
    r"([Zz]|[+-][0-2][0-9]:?[0-6][0-9])?",
    fullmatch=True,
)
BLOCKS = st.fixed_dictionaries(
    {
        "phase": st.sampled_from([*wire.Phase, "FOUR"]),
        "unit": st.sampled_from([*wire.Unit, "EUR"]),
        "start_time": TIMES,
        "end_time": TIMES,
    }
)


@given(st.lists(st.tuples(BLOCKS, NUMBERS), min_size=1, max_size=4), st.sampled_from(wire.ForecastType), st.text())
def test_whatever_is_read_fast_means_what_the_model_says(blocks: Any, type_: str, group: str) -> None:
    written_blocks = [json.dumps(block)[:-1] + f', "capacity": {number}}}' for block, number in blocks]
    head = json.dumps({"group_id": group, "type": type_})[:-1]
    is_plain(f'{head}, "forecasted_blocks": [{", ".join(written_blocks)}]}}'.encode())


@given(st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))
def test_a_plain_body_with_a_wound_means_what_the_model_says(at: int, wound: bytes, cut: int) -> None:
    body = written(a_forecast(a_block(), a_block(unit="A", phase="ONE", capacity=16.5)))
    at %= len(body)
    is_plain(body[:at] + wound + body[at + cut :])
