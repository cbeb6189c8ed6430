"""What an operator sends to act on a site, read and made into an event of the controller."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.domain.errors import MalformedMessage
from gateway.domain.events import OperatorActed, OperatorAction
from gateway.domain.evidence import Actor, MessageRef, RawRef, sha256_hex
from gateway.domain.ids import PeerId
from gateway.ports.gate import Inbound

ENDPOINT = "admin"

MAX_REASON = 500
"""Characters of a reason: a sentence or two for whoever reads the evidence."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,255}")


def read_action(
    action: OperatorAction, subject: str, document: Any, *, body: bytes, request_id: str, actor: Actor, now: datetime
) -> tuple[OperatorActed, Inbound]:
    """The event, and the message that it came in. ``request_id`` empty: one is drawn.

    Raises:
        MalformedMessage: no reason, or more than a reason.
    """
    if not isinstance(document, Mapping) or set(document) != {"reason"}:
        raise MalformedMessage('the body is {"reason": "..."} and nothing else', code="admin.reason")
    reason = document["reason"]
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= MAX_REASON or not reason.isprintable():
        raise MalformedMessage(f"reason: printable text of 1 to {MAX_REASON} characters", code="admin.reason")
    if request_id and not _REQUEST_ID.fullmatch(request_id):
        raise MalformedMessage("X-Request-ID: 1 to 255 visible ASCII characters", code="admin.request-id")
    peer, message_id = PeerId(actor.principal), request_id or secrets.token_urlsafe(16)
    endpoint = f"{ENDPOINT}/{action.value}/{subject}"
    raw = RawRef(sha256_hex(body), len(body), "application/json")
    message = MessageRef(peer, endpoint, message_id, now, raw, actor)
    inbound = Inbound(peer, endpoint, message_id, body, now)
    return OperatorActed(action, subject, reason.strip(), message), inbound
