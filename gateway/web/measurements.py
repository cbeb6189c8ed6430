"""The body of ``POST …/measurements``: what a meter says, checked field by field. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.domain.errors import MalformedMessage, NotUtc
from gateway.domain.ids import NodeId
from gateway.domain.measurement import Measurement, Quality, Quantity
from gateway.domain.timeline import parse_rfc3339

MAX_MEASUREMENTS = 1_000
"""Values of one message; a meter that was offline for a while sends several of them."""

MAX_VALUE = 2**53
"""Largest magnitude: what every JSON reader can hold exactly."""

_REQUIRED = ("node", "quantity", "value", "measured_at")
_KNOWN = frozenset((*_REQUIRED, "quality"))


class BadMeasurement(MalformedMessage):
    """A body that is no list of measurements; the message says which field of which row."""

    code = "admin.measurement"
    hint = (
        'send {"measurements": [{"node": "main", "quantity": "power_w", "value": 38870, '
        '"measured_at": "2031-03-01T18:00:00Z"}]}; value is a whole number in the unit of the quantity'
    )


def read_measurements(document: Any, *, received_at: datetime, source: str) -> tuple[Measurement, ...]:
    """The measurements in a decoded body, in its order.

    Raises:
        BadMeasurement: the first thing that is wrong.
    """
    if not isinstance(document, Mapping) or set(document) != {"measurements"}:
        raise BadMeasurement('the body must be an object with the one key "measurements"')
    rows = document["measurements"]
    if not isinstance(rows, list) or not rows:
        raise BadMeasurement("measurements must be a list with at least one value")
    if len(rows) > MAX_MEASUREMENTS:
        raise BadMeasurement(f"{len(rows)} measurements in one message; at most {MAX_MEASUREMENTS} are taken")
    return tuple(_measurement(row, f"measurements[{i}]", received_at, source) for i, row in enumerate(rows))


def _measurement(row: Any, where: str, received_at: datetime, source: str) -> Measurement:
    if not isinstance(row, Mapping):
        raise BadMeasurement(f"{where} is no object")
    missing = [key for key in _REQUIRED if key not in row]
    unknown = sorted(set(row) - _KNOWN)
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f'has the unknown key "{unknown[0][:64]}"'
        raise BadMeasurement(f"{where} {what}")
    return Measurement(
        node=_node(row["node"], where),
        quantity=_quantity(row["quantity"], where),
        value=_value(row["value"], where),
        measured_at=_instant(row["measured_at"], where),
        received_at=received_at,
        quality=_quality(row.get("quality", Quality.GOOD.value), where),
        source=source,
    )


def _node(value: Any, where: str) -> NodeId:
    if not isinstance(value, str) or not value:
        raise BadMeasurement(f"{where}.node is no path of a node")
    return NodeId(value)


def _quantity(value: Any, where: str) -> Quantity:
    try:
        return Quantity(value)
    except ValueError:
        raise BadMeasurement(f"{where}.quantity must be one of {', '.join(q.value for q in Quantity)}") from None


def _quality(value: Any, where: str) -> Quality:
    try:
        return Quality(value)
    except ValueError:
        raise BadMeasurement(f"{where}.quality must be one of {', '.join(q.value for q in Quality)}") from None


def _value(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_VALUE:
        raise BadMeasurement(f"{where}.value must be a whole number of at most 2**53")
    return value


def _instant(value: Any, where: str) -> datetime:
    try:
        if isinstance(value, str):
            return parse_rfc3339(value)
    except (NotUtc, OverflowError):
        pass
    raise BadMeasurement(f"{where}.measured_at must be an RFC 3339 time with a zone")
