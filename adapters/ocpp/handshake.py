"""TLS below the WebSocket: tells of handshakes that failed, and keeps connections small."""

from __future__ import annotations

import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable

READ_BYTES = 16 * 1024
"""What is read of a TLS connection at once: a record. asyncio keeps as much for each connection."""


def keep_small() -> None:
    """Have asyncio hold 16 KiB for each TLS connection of this process, not its 256 KiB.

    There is no setting of one server: it is the class's.
    """
    SSLProtocol.max_size = READ_BYTES


def watched(report: Callable[[str], None]) -> type[ssl.SSLObject]:
    """A class of TLS objects that call ``report`` with the reason of a refused handshake.

    A peer that merely hangs up is no refusal.
    """

    class Watched(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                raise
            except ssl.SSLCertVerificationError as problem:
                report(f"certificate refused: {problem.verify_message}")
                raise
            except ssl.SSLError as problem:
                report(f"handshake refused: {(problem.reason or 'unknown').replace('_', ' ').lower()}")
                raise

    return Watched
