"""Who may open a WebSocket: pure checks before the upgrade is answered (security profiles 0-3).

Identity comes from the transport; the path must name the same station. Nothing is done for a
connection that fails here, and every refusal looks alike.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from gateway.domain.ids import StationId
from gateway.kit.peer import PeerInfo
from gateway.ports.adapter import Trust
from gateway.ports.fleet import StationSettings

MAX_ID_CHARS = 48
"""OCPP 2.0.1 identifierString; 1.6 identities in the field are shorter."""

MAX_CREDENTIALS_CHARS = 256

MIN_PASSWORD_BYTES = 16
"""OCPP's least; a shorter one is no proof that an operator could accept."""

MAX_SERIAL_CHARS = 64
"""Of a certificate's CN (X.520)."""

MAX_FAILURES = 5
FAILURES_WINDOW_S = 60.0
"""Wrong passwords per station and address before further tries are not looked at."""

MAX_TRACKED = 4096
"""Pairs of station and address under watch; the oldest falls out."""

_ID = re.compile(r"[A-Za-z0-9*\-_=+|@. ]{1,48}")
_PREFIX = "/ocpp/"


@dataclass(frozen=True, slots=True)
class Refusal:
    """HTTP status, and a reason for evidence; the station is told the status alone."""

    status: HTTPStatus
    reason: str


def station_of(path: str) -> StationId | None:
    """The identity in the path ``/ocpp/<id>`` or ``/<id>``, percent-decoded once."""
    raw = path.partition("?")[0]
    segment = raw.removeprefix(_PREFIX) if raw.startswith(_PREFIX) else raw.removeprefix("/")
    if len(segment) > 3 * MAX_ID_CHARS or "/" in segment:
        return None
    try:
        name = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None
    return StationId(name) if _ID.fullmatch(name) and ".." not in name else None


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody who is none of our stations proved, as an operator may accept it later.

    ``serial`` is the certificate's CN. ``credential`` may be shown: SHA-256 of the certificate, or
    the first 8 hex digits of that of the password.
    """

    profile: int
    serial: str
    credential: str
    password_sha256: str = ""


def proof_of(name: StationId, trust: Trust, peer: PeerInfo, authorization: str | None) -> Proof | None:
    """The proof of a stranger; None without a certificate of this listener's CA or a password over TLS."""
    if trust is Trust.MTLS and peer.cert_sha256:
        named = peer.subject_cn.isprintable() and 0 < len(peer.subject_cn) <= MAX_SERIAL_CHARS
        return Proof(3, peer.subject_cn, peer.cert_sha256) if named else None
    found = _credentials(authorization) if trust is Trust.SERVER_TLS else None
    if found is None or found[0] != str(name).encode() or len(found[1]) < MIN_PASSWORD_BYTES:
        return None
    digest = hashlib.sha256(found[1]).hexdigest()
    return Proof(2, "", digest[:8], digest)


def judge(
    settings: StationSettings, trust: Trust, peer: PeerInfo, authorization: str | None, name: str
) -> Refusal | None:
    """Whether this transport proves to be the station that calls itself ``name``. None: yes."""
    match settings.profile:
        case 3:
            if trust is not Trust.MTLS or not peer.cert_sha256:
                return Refusal(HTTPStatus.FORBIDDEN, "no client certificate")
            if not hmac.compare_digest(peer.subject_cn.encode(), settings.serial.encode()):
                return Refusal(HTTPStatus.FORBIDDEN, "certificate of another station")
            return None
        case 1 | 2:
            if settings.profile == 2 and trust is Trust.INSECURE:
                return Refusal(HTTPStatus.FORBIDDEN, "TLS required")
            good = bool(settings.password_sha256) and _basic(authorization, name, settings.password_sha256)
            return None if good else Refusal(HTTPStatus.UNAUTHORIZED, "wrong credentials")
        case 0 if trust is Trust.INSECURE:
            return None
        case _:
            return Refusal(HTTPStatus.FORBIDDEN, "profile does not fit the listener")


def _basic(authorization: str | None, name: str, password_sha256: str) -> bool:
    """HTTP Basic with the station's id as user.

    1.6 stations send the password's text or the bytes that its hex digits stand for; both count.
    """
    found = _credentials(authorization)
    if found is None:
        return False
    user, password = found
    wanted = password_sha256.lower().encode()
    forms = (password, password.hex().encode(), password.hex().upper().encode())
    # Every form is compared, so that the time tells nothing about which one fits.
    hits = [hmac.compare_digest(hashlib.sha256(form).hexdigest().encode(), wanted) for form in forms]
    known = hmac.compare_digest(user, name.encode())
    return any(hits) and known


def _credentials(authorization: str | None) -> tuple[bytes, bytes] | None:
    """User and password of HTTP Basic (RFC 7617)."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic" or len(encoded) > MAX_CREDENTIALS_CHARS:
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


@dataclass
class Bucket:
    """Admits ``rate`` new handshakes a second, ``burst`` at once. Monotonic seconds are handed in."""

    rate: float
    burst: float
    _level: float | None = None
    _at: float = 0.0

    def take(self, at: float) -> bool:
        """Whether one more may pass now."""
        level = self.burst if self._level is None else min(self.burst, self._level + (at - self._at) * self.rate)
        self._at = at
        self._level = level - 1 if level >= 1 else level
        return level >= 1


@dataclass
class Failures:
    """Wrong passwords of late, per station and address."""

    _seen: OrderedDict[tuple[str, str], tuple[float, int]] = field(default_factory=OrderedDict)

    def blocked(self, key: tuple[str, str], at: float) -> bool:
        """Whether further tries are not worth a look."""
        since, count = self._seen.get(key, (at, 0))
        return count >= MAX_FAILURES and at - since < FAILURES_WINDOW_S

    def add(self, key: tuple[str, str], at: float) -> None:
        """One more."""
        since, count = self._seen.pop(key, (at, 0))
        self._seen[key] = (at, 1) if at - since >= FAILURES_WINDOW_S else (since, count + 1)
        if len(self._seen) > MAX_TRACKED:
            self._seen.popitem(last=False)


def by_id(
    stations: Mapping[StationId, StationSettings], name: StationId | None, listener: str
) -> StationSettings | None:
    """The station of that name, if it belongs to this listener: one listener, one trust domain."""
    settings = None if name is None else stations.get(name)
    return settings if settings is not None and settings.listener == listener else None
