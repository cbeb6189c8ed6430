"""What calls to a peer need of the line to it; ``gateway.kit.http_client.HttpCaller`` is the real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.ports.grid import PeerSettings

_RETRY_STATUSES = frozenset({408, 425, 429})


class Answer(Protocol):
    """A peer's answer. Header names are in any case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def body(self) -> bytes: ...


class Caller(Protocol):
    """One peer's outgoing line."""

    def check_url(self, url: str) -> None:
        """Raises ``NotAuthorised`` for an address that this peer may not send us to."""
        ...

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> Answer:
        """One attempt.

        Raises:
            TransportError: unreachable, too slow, or TLS refused.
            NotAuthorised: an address that may not be called.
            MalformedMessage: an answer that is no HTTP or too large.
        """
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


CallerFactory = Callable[[PeerSettings], Caller]


def may_be_repeated(status: int) -> bool:
    """Whether the same call may be answered otherwise later."""
    return status in _RETRY_STATUSES or status >= 500
