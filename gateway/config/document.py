"""The shape of ``site.yaml``: which keys stand where, of what type and in what range.

Every field's description says what is expected there, in the words of an error message.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, StringConstraints

from gateway.domain.envelope import FallbackRule, LossPolicy
from gateway.domain.quantities import ALL_PHASES, NOMINAL_VOLTAGE_V, Phase
from gateway.domain.sharing import Policy
from gateway.domain.topology import NodeKind, Supply
from gateway.kit.tls import POLICIES
from gateway.ports.adapter import Trust

MAX_W = 1_000_000_000
MAX_A = 10_000
DAY_S = 86_400

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_IDENTITY = r"[A-Za-z0-9*\-_=:+|@.]{1,48}"
_SEGMENT = r"\w(?:[\w .,:+@()-]{0,62}[\w)])?"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DAY = r"(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_QUARTER_HOUR = r"(?:[01][0-9]|2[0-3]):(?:00|15|30|45)"
_DIGEST = r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}"


def _text(pattern: str, expected: str) -> Any:
    return (StringConstraints(strict=True, pattern=f"^(?:{pattern})$"), Field(description=expected))


def _whole(least: int, most: int, what: str) -> Any:
    return Field(strict=True, ge=least, le=most, description=f"{what}: a whole number from {least} to {most}")


def _number(least: float, most: float, what: str) -> Any:
    expected = f"{what}: a number from {least:g} to {most:g}"
    return Field(strict=True, ge=least, le=most, allow_inf_nan=False, description=expected)


def _words(words: Iterable[StrEnum]) -> Any:
    return Field(description="one of " + ", ".join(words))


def _scalar(value: Any) -> str | int | bool:
    if isinstance(value, str | int | bool):
        return value
    raise ValueError("no scalar")


REFERENCE_TEXT = "a reference, file:PATH or env:NAME: a secret never stands in this file"
NAME_TEXT = "a name of letters, digits, dot, dash and underscore, 64 at most; quote one that looks like a number"
OPTIONS_TEXT = "a mapping of names to text, whole numbers, true or false"

Name = Annotated[str, *_text(NAME, NAME_TEXT)]
NodePath = Annotated[str, *_text(rf"{_SEGMENT}(?:/{_SEGMENT})*", "a path of names such as main/garage")]
Identity = Annotated[
    str, *_text(_IDENTITY, "an identity as OCPP allows it: 48 characters of letters, digits and *-_=:+|@. at most")
]
Word = Annotated[str, *_text(r"[^\x00-\x1f\x7f]{1,256}", "text of 1 to 256 characters; quote what looks like a number")]
File = Annotated[str, *_text(r"[^\x00-\x1f\x7f]{1,1024}", "the path of a file, relative to the folder of this one")]
Reference = Annotated[str, *_text(r"file:[^\x00-\x1f\x7f]{1,1024}|env:[A-Za-z_][A-Za-z0-9_]{0,127}", REFERENCE_TEXT)]
Digest = Annotated[str, *_text(_DIGEST, "a SHA-256 digest of 64 hex digits")]
Yes = Annotated[bool, Field(strict=True, description="true or false")]
Power = Annotated[int | None, _whole(0, MAX_W, "W")]
Current = Annotated[float | None, _number(0, MAX_A, "A")]
Voltage = Annotated[float, _number(50, 1_000, "V from phase to neutral")]
Fraction = Annotated[float, _number(0.001, 1, "a fraction")]
Phases = Annotated[
    tuple[Annotated[Phase, _words(Phase)], ...],
    Field(min_length=1, max_length=3, description="a list of L1, L2, L3"),
]
DayOfYear = Annotated[str, *_text(_DAY, "a day of the year as MM-DD, such as 06-01")]
TimeOfDay = Annotated[str, *_text(_QUARTER_HOUR, 'a quarter-hour of the day in quotes, such as "06:15"')]
Options = Annotated[dict[str, Annotated[Any, PlainValidator(_scalar), Field()]], Field(description=OPTIONS_TEXT)]


class Row(BaseModel):
    """One mapping of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteRow(Row):
    """Section ``site``."""

    id: Name
    timezone: Annotated[str, *_text(r"[A-Za-z0-9_+/-]{1,64}", "an IANA time zone such as Europe/Berlin")]
    operator_domain: Annotated[str, *_text(_HOST, "the operator's domain, such as example.org")]
    sharing: Annotated[Policy | None, _words(Policy)] = None


class PhaseCurrents(Row):
    """Amperes per site phase; a phase left out has no limit."""

    L1: Current = None
    L2: Current = None
    L3: Current = None


class SeasonRow(Row):
    """Days of the year on which a node is derated."""

    start: DayOfYear
    end: DayOfYear
    fraction: Fraction


class HeatRow(Row):
    """A temperature above which a node is derated."""

    above_c: Annotated[float, _number(-60, 200, "°C")]
    fraction: Fraction


class ReserveRow(Row):
    """What is kept free from a time of day on."""

    start: TimeOfDay
    w: Annotated[int, _whole(0, MAX_W, "W")]


class NodeRow(Row):
    """A node that is no EVSE."""

    path: NodePath
    kind: Annotated[NodeKind, _words(kind for kind in NodeKind if kind not in (NodeKind.SITE, NodeKind.EVSE))]
    import_max_w: Power = None
    export_max_w: Power = None
    import_max_a: Annotated[PhaseCurrents | None, Field(description="a mapping of L1, L2, L3 to A")] = None
    reserve_w: Annotated[int, _whole(0, MAX_W, "W")] = 0
    reserve_profile: Annotated[
        tuple[ReserveRow, ...], Field(max_length=96, description="a list of start: HH:MM and w: W")
    ] = ()
    apparent_max_va: Annotated[int | None, _whole(0, MAX_W, "VA")] = None
    assumed_pf: Annotated[float | None, _number(0.5, 1, "power factor")] = None
    derate: Fraction | None = None
    derate_seasons: Annotated[
        tuple[SeasonRow, ...], Field(max_length=32, description="a list of start: MM-DD, end: MM-DD, fraction")
    ] = ()
    derate_heat: Annotated[
        tuple[HeatRow, ...], Field(max_length=32, description="a list of above_c: °C and fraction")
    ] = ()
    supply: Annotated[Supply | None, _words(Supply)] = None
    phase_map: Phases | None = None
    efficiency: Fraction | None = None
    unbalance_max_a: Current = None


class EvseRow(Row):
    """An EVSE: a leaf of the tree, and what its station calls it."""

    node: NodePath
    station: Identity
    number: Annotated[int, _whole(1, 1_000, "the station's number for it")]
    phases: Phases | None = None
    supply: Annotated[Supply | None, _words(Supply)] = None
    efficiency: Fraction | None = None
    min_a: Annotated[float, _number(0, MAX_A, "A")] = 6
    max_a: Annotated[float, _number(0, MAX_A, "A")] = 32
    voltage_v: Voltage = NOMINAL_VOLTAGE_V
    safe_share_w: Power = None
    weight: Annotated[int, _whole(1, 1_000, "weight")] = 1
    priority: Annotated[int, _whole(-1_000, 1_000, "priority")] = 0


class StationRow(Row):
    """A station that may connect."""

    id: Identity
    serial: Annotated[str, *_text(r"[^\x00-\x1f\x7f]{1,64}", "the serial number, as text; quote digits")]
    listener: Name
    profile: Annotated[int, _whole(0, 3, "OCPP security profile")] = 3
    meter_node: Annotated[str | None, *_text(rf"{_SEGMENT}(?:/{_SEGMENT})*", "the path of a node")] = None
    rate_unit: Annotated[str, *_text("[AW]", "A or W")] = "A"
    password: Reference | None = None


class CertificateRow(Row):
    """Which certificate; every given field must equal."""

    san_uri: Word | None = None
    subject_cn: Word | None = None
    sha256: Digest | None = None
    spki_sha256: Digest | None = None


class PeerRow(Row):
    """A grid party."""

    id: Name
    adapter: Name
    listener: Name
    certificate: Annotated[CertificateRow | None, Field(description="a mapping such as san_uri: urn:…")] = None
    dialect: Name = "standard"
    token: Reference | None = None
    url_hosts: Annotated[
        tuple[Annotated[str, *_text(rf"(?:{_HOST}|\[[0-9A-Fa-f:.]+\])(?::\d{{1,5}})?", "host or host:port")], ...],
        Field(max_length=32, description="a list of host or host:port, without scheme and path"),
    ] = ()
    allow_private: Yes = False
    options: Options = Field(default_factory=dict)


class BindingRow(Row):
    """A peer's group on a node, and its policy."""

    peer: Name
    group: Word
    node: NodePath
    on_loss: Annotated[LossPolicy, _words(LossPolicy)] = LossPolicy.FALLBACK_NOW
    demands_envelope: Yes = True
    resume_previous: Yes = False
    loss_grace_s: Annotated[int, _whole(0, DAY_S, "s")] = 0
    gap_grace_s: Annotated[int, _whole(0, DAY_S, "s")] = 60
    recover_s: Annotated[int, _whole(0, DAY_S, "s")] = 60
    dwell_s: Annotated[int, _whole(0, DAY_S, "s")] = 0
    fallback: Annotated[
        tuple[Annotated[FallbackRule, _words(FallbackRule)], ...],
        Field(min_length=1, max_length=5, description=f"a list of {', '.join(FallbackRule)}"),
    ] = (FallbackRule.FALLBACK_BLOCKS, FallbackRule.HOLD_OR_HALF_STATIC)
    fixed_w: Power = None
    reaction_s: Annotated[int, _whole(0, 3_600, "s")] = 60
    window_s: Annotated[int, _whole(1, 3_600, "s")] = 60
    phases: Annotated[
        tuple[Annotated[Phase, _words(Phase)], ...],
        Field(min_length=3, max_length=3, description="a list of L1, L2, L3: the site phase of each of the peer's"),
    ] = ALL_PHASES
    voltage_v: Voltage = NOMINAL_VOLTAGE_V


class MeterRow(Row):
    """Which certificate may post measurements of which node."""

    node: NodePath
    principal: Word


class ListenerRow(Row):
    """An address where we listen."""

    host: Annotated[str, *_text(rf"{_HOST}|[0-9A-Fa-f:.]+", "an address or a host name, without port")]
    port: Annotated[int, _whole(0, 65_535, "a TCP port, 0 for a free one")]
    trust: Annotated[Trust, _words(Trust)]
    policy: Annotated[str, *_text("|".join(POLICIES), "one of " + ", ".join(POLICIES))] = "ocpp"
    certificate: File | None = None
    key: File | None = None
    client_ca: File | None = None
    public_url: Word | None = None


class ClientRow(Row):
    """What we show, and whom we trust, when we call out."""

    certificate: File | None = None
    key: File | None = None
    server_ca: File | None = None


class StoreRow(Row):
    """Where durable state lies."""

    path: File
    head: File
    key: File
