"""Tells of TLS handshakes that failed: there is no connection yet that could do so."""

from __future__ import annotations

import ssl
from collections.abc import Callable


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
