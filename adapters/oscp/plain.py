"""Forecasts as nearly all of them look, read many times as fast as by their model. No I/O, no clock.

A body is *plain* when the model would take it and read the same from it, and that is cheap to see:
the fields of the specification, each once, no escapes, numbers of some twenty digits, times with
their zone. Whatever else may be right, and all that is wrong, is left to the model: what is refused,
and with which words, stands in ``wire.py`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import msgspec

from adapters.oscp.wire import MAX_BLOCKS, MAX_CAPACITY, ForecastType, Phase, Unit

_MAX_CAPACITY = int(MAX_CAPACITY)

_MAX_DIGITS = 20
"""Characters of a number: few enough that multiplying it never rounds."""

# Whether there are such a month, day, hour and minute, datetime says; later ones take hour 24 as well.
_TIME = r"\d\d\d\d-\d\d-\d\dT(?!24)\d\d:\d\d:\d\d(?:Z|(?:\.\d{1,6})?(?:Z|[+-][01]\d:[0-5]\d))"
_TIMES = re.compile(f"{_TIME}(?:,{_TIME})*", re.ASCII)


class PlainBlock(msgspec.Struct, frozen=True, gc=False):
    """As ``wire.ForecastedBlock``; the times are in UTC."""

    capacity: int | Decimal
    phase: Phase
    unit: Unit
    start_time: datetime
    end_time: datetime


class PlainForecast(msgspec.Struct, frozen=True):
    """As ``wire.UpdateGroupCapacityForecast``."""

    group_id: str
    type: ForecastType
    forecasted_blocks: tuple[PlainBlock, ...]


class _Block(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    capacity: msgspec.Raw
    phase: Phase
    unit: Unit
    start_time: str
    end_time: str


class _Forecast(msgspec.Struct, forbid_unknown_fields=True):
    group_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    type: ForecastType
    forecasted_blocks: Annotated[list[_Block], msgspec.Meta(min_length=1, max_length=MAX_BLOCKS)]


_QUOTES_OF_BLOCK = 2 * (len(_Block.__struct_fields__) + 4)
_QUOTES_AROUND = 2 * (len(_Forecast.__struct_fields__) + 2)
"""Quotation marks: two for the name of each field, and two for each value that is text."""

_DECODER = msgspec.json.Decoder(_Forecast)


def read_plain(body: bytes) -> PlainForecast | None:
    """The forecast of a plain body; None where the model has to judge."""
    try:
        return _read(body)
    except (msgspec.MsgspecError, RecursionError, ArithmeticError, ValueError):
        return None


def _read(body: bytes) -> PlainForecast:
    found = _DECODER.decode(body)
    told = found.forecasted_blocks
    # The decoder takes the last of several fields of one name; then there are more quotation marks.
    if b"\\" in body or body.count(b'"') != _QUOTES_AROUND + _QUOTES_OF_BLOCK * len(told):
        raise ValueError("escapes, or a field twice")
    at = _instants([text for block in told for text in (block.start_time, block.end_time)])
    blocks = [
        PlainBlock(_number(bytes(block.capacity)), block.phase, block.unit, at[block.start_time], at[block.end_time])
        for block in told
    ]
    return PlainForecast(found.group_id, found.type, tuple(blocks))


def _number(text: bytes) -> int | Decimal:
    if len(text) > _MAX_DIGITS:
        raise ValueError("more digits than usual")
    value = int(text) if text.isdigit() else Decimal(text.decode("ascii"))
    if not 0 <= value <= _MAX_CAPACITY:
        raise ValueError("no capacity")
    return value


def _instants(texts: Sequence[str]) -> Mapping[str, datetime]:
    """What the times mean, in UTC."""
    # A day's forecast names most instants twice. One match for all costs half of one for each.
    distinct = dict.fromkeys(texts)
    if not _TIMES.fullmatch(",".join(distinct)):
        raise ValueError("a time of another form")
    return {text: _utc(datetime.fromisoformat(text)) for text in distinct}


def _utc(instant: datetime) -> datetime:
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)
