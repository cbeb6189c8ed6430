"""Access tokens by OAuth2 client credentials (RFC 6749 §4.4), for peers that want them of us.

A token is fetched when it is needed, kept in memory alone, and fetched anew shortly before it ends. The
call goes over the peer's own line: the same allowed hosts, addresses and trust, no redirects, bounded.
Neither the secret nor a token is in any text that this file makes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

from adapters.oscp.caller import Answer, Caller, may_be_repeated
from gateway.domain.errors import MalformedMessage, NotAuthorised, PeerUnreachable
from gateway.ports.clock import Clock

EARLY_S = 30.0
"""A token is renewed so long before its end, or at nine tenths of a shorter life: calls take time, clocks differ."""

LIFE_UNSAID_S = 300.0
"""How long a token counts whose ``expires_in`` is missing."""

LIFE_MAX_S = 86_400.0
"""No token is kept for longer, whatever is promised."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
"""RFC 6749 §5.2; other texts of the peer are not repeated."""


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Where a token is to be had, and as whom. ``scope`` is left out when empty."""

    url: str
    client_id: str
    secret: str = field(repr=False)
    scope: str = ""


class TokenSource:
    """The present token of one peer. ``repr`` shows nothing."""

    def __init__(self, credentials: ClientCredentials, caller: Caller, clock: Clock) -> None:
        self._credentials = credentials
        self._caller = caller
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._renew_at = 0.0

    def __repr__(self) -> str:
        return "TokenSource(***)"

    async def token(self) -> str:
        """A token that is good for a call now.

        Raises:
            TransportError: it cannot be had now.
            NotAuthorised: it is refused, or its address may not be called.
            MalformedMessage: the answer is none.
        """
        async with self._lock:
            if not self._token or self._clock.monotonic() >= self._renew_at:
                self._token, life_s = await self._fetch()
                self._renew_at = self._clock.monotonic() + max(life_s * 0.9, life_s - EARLY_S)
            return self._token

    def forget(self, token: str) -> None:
        """The peer refused it: the next call fetches another, unless that has happened already."""
        if token == self._token:
            self._token = ""

    async def _fetch(self) -> tuple[str, float]:
        mine = self._credentials
        form = {"grant_type": "client_credentials", **({"scope": mine.scope} if mine.scope else {})}
        # RFC 6749 §2.3.1: both are form-encoded before they become a Basic credential.
        pair = f"{quote_plus(mine.client_id)}:{quote_plus(mine.secret)}"
        answer = await self._caller.request(
            "POST",
            mine.url,
            headers={
                "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
            content=urlencode(form).encode(),
        )
        return _granted(answer)


def _granted(answer: Answer) -> tuple[str, float]:
    """Token and its life in seconds (RFC 6749 §5.1)."""
    if may_be_repeated(answer.status):
        raise PeerUnreachable(f"the token endpoint answers HTTP {answer.status}", code="oscp.token-unavailable")
    document = _document(answer.body)
    if answer.status != 200:
        said = document.get("error")
        reason = f", {said}" if isinstance(said, str) and said in _ERRORS else ""
        raise NotAuthorised(f"the token endpoint answers HTTP {answer.status}{reason}", code="oscp.token-refused")
    token, kind, life = document.get("access_token"), document.get("token_type"), document.get("expires_in")
    if not (isinstance(token, str) and _TOKEN.fullmatch(token) and isinstance(kind, str) and kind.lower() == "bearer"):
        raise MalformedMessage("the token endpoint answers without a bearer token", code="oscp.token-malformed")
    return token, _life_s(life)


def _document(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _life_s(said: object) -> float:
    # Some servers send the number as text.
    text = str(said) if isinstance(said, int | str) and not isinstance(said, bool) else ""
    if not (text.isascii() and text.isdigit()):
        return LIFE_UNSAID_S
    return min(float(text[:10]), LIFE_MAX_S)
