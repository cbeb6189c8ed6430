"""OSCP 2.0 messages, named as the specification names them. No I/O, no meaning, no rounding.

Fields that a message does not know are ignored: no OSCP schema forbids them, and peers send some.
Leniency that a dialect grants enters by pydantic's validation context, see :func:`decode`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from gateway.domain.errors import MalformedMessage
from gateway.domain.timeline import rfc3339
from gateway.kit.asgi import MAX_JSON_DEPTH, MAX_NUMBER_LENGTH, json_depth

VERSION = "2.0"

MAX_BLOCKS = 1_000
"""Per message: ten days of quarter hours, and what overlaying them may cost."""

MAX_MEASUREMENTS = 10_000
"""Per message; a body holds fewer."""

MAX_CAPACITY = Decimal(10) ** 12
"""In any unit. Above every grid; keeps integers small."""

MAX_INTERVAL_S = 86_400
"""A heartbeat rarer than daily tells nothing."""

_RFC3339_LIKE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})?")


def _time_text(value: object) -> object:
    # Without this, numbers and numeric text would pass as seconds since 1970.
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339_LIKE.fullmatch(value)):
        return value
    raise ValueError("must be a date-time text such as 2026-03-01T16:00:00Z")


def _number(value: object, info: ValidationInfo) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueError only
    if isinstance(value, str) and not (info.context or {}).get("numeric_strings"):
        raise ValueError("must be a number, not text")
    return value


def _time_on_wire(value: datetime) -> str:
    # Milliseconds at most: more digits than that confuse some peers' parsers.
    whole = value.microsecond // 1000 * 1000
    return rfc3339(value.astimezone(UTC).replace(microsecond=whole))


def _number_on_wire(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


Instant = Annotated[datetime, BeforeValidator(_time_text), PlainSerializer(_time_on_wire, return_type=str)]
"""May still lack its zone: whether that is refused is the dialect's matter."""

_Decimal = Annotated[
    Decimal,
    BeforeValidator(_number),
    Field(allow_inf_nan=False),
    PlainSerializer(_number_on_wire),
]
Number = Annotated[_Decimal, Field(ge=-MAX_CAPACITY, le=MAX_CAPACITY), WithJsonSchema({"type": "number"})]
Capacity = Annotated[
    _Decimal, Field(ge=0, le=MAX_CAPACITY), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1e12})
]
Seconds = Annotated[
    _Decimal,
    Field(ge=1, le=MAX_INTERVAL_S),
    WithJsonSchema({"type": "number", "minimum": 1, "maximum": MAX_INTERVAL_S}),
]
GroupName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Text = Annotated[str, StringConstraints(max_length=4_000)]
TokenText = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", min_length=1, max_length=512)]
"""Goes into a header: visible ASCII without blanks."""


class Phase(StrEnum):
    """Of the peer's own counting; ``ONE`` need not be the site's L1."""

    UNKNOWN = "UNKNOWN"
    ONE = "ONE"
    TWO = "TWO"
    THREE = "THREE"
    ALL = "ALL"


class Unit(StrEnum):
    """Of a capacity."""

    A = "A"
    W = "W"
    KW = "KW"
    WH = "WH"
    KWH = "KWH"


class EnergyUnit(StrEnum):
    """Of a meter register."""

    WH = "WH"
    KWH = "KWH"


class ForecastType(StrEnum):
    """What a capacity forecast limits, or that it is advice only."""

    CONSUMPTION = "CONSUMPTION"
    GENERATION = "GENERATION"
    FALLBACK_CONSUMPTION = "FALLBACK_CONSUMPTION"
    FALLBACK_GENERATION = "FALLBACK_GENERATION"
    OPTIMUM = "OPTIMUM"


class EnergyDirection(StrEnum):
    """Which register."""

    NET = "NET"
    IMPORT = "IMPORT"
    EXPORT = "EXPORT"


class EnergyType(StrEnum):
    """Which part of the load a register counts."""

    FLEXIBLE = "FLEXIBLE"
    NONFLEXIBLE = "NONFLEXIBLE"
    TOTAL = "TOTAL"


class MeasurementConfiguration(StrEnum):
    """``CONTINUOUS``: a register that never restarts; ``INTERMITTENT``: one per session."""

    CONTINUOUS = "CONTINUOUS"
    INTERMITTENT = "INTERMITTENT"


class AssetCategory(StrEnum):
    """What an asset is."""

    CHARGING = "CHARGING"
    CONSUMPTION = "CONSUMPTION"
    GENERATION = "GENERATION"
    STORAGE = "STORAGE"


class Message(BaseModel):
    """Names are the wire's; see the module for what happens to unknown fields."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    def to_wire(self) -> bytes:
        """The JSON body; absent optional fields stay absent."""
        return self.model_dump_json(exclude_none=True).encode()


class VersionUrl(Message):
    """A version and where it is spoken."""

    version: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    base_url: Annotated[str, StringConstraints(min_length=1, max_length=2_048)]


class Register(Message):
    """``token`` is what the receiver must use to call the sender."""

    token: TokenText
    version_url: Annotated[tuple[VersionUrl, ...], Field(min_length=1, max_length=16)]


class RequiredBehaviour(Message):
    """What the sender of this object wants from its receiver.

    ``heartbeat_interval`` is in seconds; absent: not interested. Some peers leave
    ``measurement_configuration`` out or send null: both mean no wish.
    """

    heartbeat_interval: Seconds | None = None
    measurement_configuration: Annotated[tuple[MeasurementConfiguration, ...], Field(max_length=8)] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_no_wish(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("measurement_configuration", ()) is None:
            return {k: v for k, v in data.items() if k != "measurement_configuration"}
        return data


class Handshake(Message):
    """Also accepted with the fields of :class:`RequiredBehaviour` at its top level."""

    required_behaviour: RequiredBehaviour | None = None

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, data: Any) -> Any:
        loose = {"heartbeat_interval", "measurement_configuration"}
        if isinstance(data, Mapping) and "required_behaviour" not in data and loose & data.keys():
            return {**data, "required_behaviour": {k: data[k] for k in loose & data.keys()}}
        return data


class HandshakeAcknowledge(Handshake):
    """Same shape as the handshake that it answers."""


class Heartbeat(Message):
    """``offline_mode_at``: from then on the sender counts as offline unless it is heard again."""

    offline_mode_at: Instant | None = None


class ForecastedBlock(Message):
    """A capacity on the half-open interval from ``start_time`` to ``end_time``."""

    capacity: Capacity
    phase: Phase
    unit: Unit
    start_time: Instant
    end_time: Instant


_Blocks = Annotated[tuple[ForecastedBlock, ...], Field(min_length=1, max_length=MAX_BLOCKS)]


class UpdateGroupCapacityForecast(Message):
    """The limit (or, for ``OPTIMUM``, the advice) of a group over time."""

    group_id: GroupName
    type: ForecastType
    forecasted_blocks: _Blocks


class AdjustGroupCapacityForecast(UpdateGroupCapacityForecast):
    """The capacity that a Flexibility Provider would like in total; same shape as the forecast."""


class GroupCapacityComplianceError(Message):
    """Names no group: the forecast meant is the one in the ``X-Correlation-ID`` header."""

    message: Text
    forecasted_blocks: _Blocks | None = None


class EnergyMeasurement(Message):
    """A meter register's reading, never a difference or a power."""

    value: Number
    phase: Phase
    unit: EnergyUnit
    direction: EnergyDirection
    measure_time: Instant
    energy_type: EnergyType | None = None
    initial_measure_time: Instant | None = None


class InstantaneousMeasurement(Message):
    """A momentary value; import positive."""

    value: Number
    phase: Phase
    unit: Unit
    measure_time: Instant


class AssetMeasurement(Message):
    """What one asset measured."""

    asset_id: GroupName
    asset_category: AssetCategory
    energy_measurement: EnergyMeasurement | None = None
    instantaneous_measurement: InstantaneousMeasurement | None = None


class UpdateGroupMeasurements(Message):
    """Registers of a group. An empty list means no usage."""

    group_id: GroupName
    measurements: Annotated[tuple[EnergyMeasurement, ...], Field(max_length=MAX_MEASUREMENTS)]


class UpdateAssetMeasurements(Message):
    """Registers and momentary values per asset."""

    group_id: GroupName
    measurements: Annotated[tuple[AssetMeasurement, ...], Field(min_length=1, max_length=MAX_MEASUREMENTS)]


class Error(Message):
    """Body of every refusal."""

    message: str


SCHEMAS: dict[str, type[BaseModel]] = {
    "register": Register,
    "handshake": Handshake,
    "handshake_acknowledge": HandshakeAcknowledge,
    "heartbeat": Heartbeat,
    "update_group_capacity_forecast": UpdateGroupCapacityForecast,
    "adjust_group_capacity_forecast": AdjustGroupCapacityForecast,
    "group_capacity_compliance_error": GroupCapacityComplianceError,
    "update_group_measurements": UpdateGroupMeasurements,
    "update_asset_measurements": UpdateAssetMeasurements,
    "error": Error,
}
"""Endpoint (or ``error``) to the model of its body."""


_SHOWN_PROBLEMS = 3

M = TypeVar("M", bound=Message)


def decode(model: type[M], body: bytes, *, numeric_strings: bool = False) -> M:
    """A message from the bytes of a body. Numbers keep every digit that was written.

    Raises:
        MalformedMessage: no JSON object of this shape; the text names the fields, never echoes
            their values.
    """
    try:
        return model.model_validate(_load(body), context={"numeric_strings": numeric_strings})
    except ValidationError as problem:
        raise MalformedMessage(_summary(problem)) from problem


def _load(body: bytes) -> object:
    if json_depth(body) > MAX_JSON_DEPTH:
        raise MalformedMessage(f"body nests deeper than {MAX_JSON_DEPTH}")
    try:
        return json.loads(
            body.decode("utf-8"), parse_float=_decimal, parse_constant=_no_constant, object_pairs_hook=_object
        )
    except ValueError as problem:
        raise MalformedMessage(f"body is no JSON: {type(problem).__name__}") from problem


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError("number with too many digits")
    return Decimal(text)


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no JSON number")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("the same key twice")
    return out


def _summary(problem: ValidationError) -> str:
    faults = problem.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in faults[:_SHOWN_PROBLEMS]]
    more = f" (and {len(faults) - _SHOWN_PROBLEMS} more)" if len(faults) > _SHOWN_PROBLEMS else ""
    return "; ".join(shown) + more
