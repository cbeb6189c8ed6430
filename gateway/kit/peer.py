"""Who is at the other end of a connection, as TLS proved it. Made once per connection."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.evidence import Actor
from gateway.ports.grid import CertificateMatch

EXTENSION = "gridgate.peer"
"""Key in ``scope["extensions"]`` under which HTTP and WebSocket handlers find it."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Empty certificate fields mean that none was shown (listener without client auth).

    Hex digests are lower case. ``san_uris`` and ``san_dns`` come from the subject alternative
    name; ``subject_cn`` from the subject.
    """

    listener: str
    remote_addr: str
    tls_version: str = ""
    cipher: str = ""
    cert_sha256: str = ""
    spki_sha256: str = ""
    subject: str = ""
    subject_cn: str = ""
    issuer: str = ""
    serial: str = ""
    not_after: str = ""
    san_uris: tuple[str, ...] = ()
    san_dns: tuple[str, ...] = ()

    def matches(self, wanted: CertificateMatch) -> bool:
        """Whether every field given in ``wanted`` equals; False when none is given."""
        checks = [
            value
            for value in (
                None if wanted.san_uri is None else wanted.san_uri in self.san_uris,
                None if wanted.subject_cn is None else wanted.subject_cn == self.subject_cn,
                None if wanted.sha256 is None else wanted.sha256.lower() == self.cert_sha256,
                None if wanted.spki_sha256 is None else wanted.spki_sha256.lower() == self.spki_sha256,
            )
            if value is not None
        ]
        return bool(self.cert_sha256) and bool(checks) and all(checks)

    def actor(self, kind: str, principal: str) -> Actor:
        """The evidence's actor for this connection."""
        return Actor(kind, principal, self.listener, self.cert_sha256)
