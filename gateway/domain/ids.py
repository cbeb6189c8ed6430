"""Names of things. Ours are derived, never drawn: the same event gives the same id on replay."""

from __future__ import annotations

import hashlib
from base64 import b32encode
from datetime import datetime
from typing import NewType

from gateway.domain.timeline import unix_ms

SiteId = NewType("SiteId", str)
NodeId = NewType("NodeId", str)
"""Path in the tree, named by the operator: ``main/garage/evse-1``. An EVSE is its node."""
StationId = NewType("StationId", str)
PeerId = NewType("PeerId", str)
SourceId = NewType("SourceId", str)
"""Who limits: a peer's id, or ``operator``, ``local``."""
EnvelopeId = NewType("EnvelopeId", str)
CommandId = NewType("CommandId", str)
SessionId = NewType("SessionId", str)
EvidenceId = NewType("EvidenceId", str)

_TO_CROCKFORD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def crockford(value: int, length: int) -> str:
    """``value`` in Crockford's base 32, padded to ``length`` characters."""
    width = -(-length // 8) * 8  # base 32 takes groups of five bytes
    return b32encode(value.to_bytes(width * 5 // 8, "big"))[width - length :].translate(_TO_CROCKFORD).decode()


def derive(prefix: str, at: datetime, *parts: str | int) -> str:
    """``prefix_`` and 26 characters: a UUIDv7 (RFC 9562 §5.7) whose random part is a digest.

    The digest covers ``parts`` (site, sequence, ordinal, ...), so ids sort by time and repeat on
    replay.
    """
    digest = hashlib.sha256("\x1f".join(map(str, (prefix, *parts))).encode()).digest()
    tail = int.from_bytes(digest[:10], "big")
    rand_a = (tail >> 64) & 0xFFF
    rand_b = tail & ((1 << 62) - 1)
    value = (max(unix_ms(at), 0) & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    return f"{prefix}_{crockford(value, 26)}"
