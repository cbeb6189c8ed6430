"""What an operator sends to act on a site, read and made into an event of the controller."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.domain.envelope import Block
from gateway.domain.errors import MalformedMessage, NotUtc
from gateway.domain.events import OperatorActed, OperatorAction
from gateway.domain.evidence import Actor, MessageRef, RawRef, sha256_hex
from gateway.domain.ids import NodeId, PeerId
from gateway.domain.timeline import parse_rfc3339
from gateway.ports.gate import Inbound

ENDPOINT = "admin"

MAX_REASON = 500
"""Characters of a reason: a sentence or two for whoever reads the evidence."""

MAX_WISH_BLOCKS = 1_000
"""Blocks of one request for capacity: ten days of quarter hours."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,255}")


def read_action(
    action: OperatorAction,
    subject: str,
    document: Any,
    *,
    body: bytes,
    request_id: str,
    actor: Actor,
    now: datetime,
    more: frozenset[str] = frozenset(),
) -> tuple[OperatorActed, Inbound]:
    """The event, and the message that it came in.

    Args:
        request_id: empty, one is drawn.
        more: keys that the body has beside ``reason``.

    Raises:
        MalformedMessage: no reason, or other keys.
    """
    wanted = {"reason", *more}
    if not isinstance(document, Mapping) or set(document) != wanted:
        raise MalformedMessage(f"the body is an object of {', '.join(sorted(wanted))}", code="admin.reason")
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


def read_place(document: Mapping[str, Any]) -> tuple[NodeId, str]:
    """The EVSE that a station is approved for, and the credential that it showed.

    Raises:
        MalformedMessage: one of them is no text.
    """
    evse, credential = document["evse"], document["credential"]
    if not isinstance(evse, str) or not isinstance(credential, str):
        raise MalformedMessage("evse and credential are texts", code="admin.approve")
    return NodeId(evse), credential


def read_wish(document: Mapping[str, Any]) -> tuple[str, str, tuple[Block, ...]]:
    """Group, type of forecast and blocks of a request for another capacity. Values are whole W.

    Raises:
        MalformedMessage: names what is wrong.
        InvalidBlock: an end before its start, a negative value.
    """
    group, type_, rows = document["group"], document["type"], document["blocks"]
    if not isinstance(group, str) or not isinstance(type_, str) or not isinstance(rows, list):
        raise MalformedMessage("group and type are texts, blocks is a list", code="admin.adjust")
    if not 0 < len(rows) <= MAX_WISH_BLOCKS:
        raise MalformedMessage(f"blocks: 1 to {MAX_WISH_BLOCKS} of them", code="admin.adjust")
    return group, type_, tuple(_block(row) for row in rows)


def _block(row: Any) -> Block:
    if not isinstance(row, Mapping) or set(row) != {"start", "end", "watts"}:
        raise MalformedMessage("blocks: objects of start, end, watts", code="admin.adjust")
    watts = row["watts"]
    if isinstance(watts, bool) or not isinstance(watts, int):
        raise MalformedMessage("blocks: watts is a whole number", code="admin.adjust")
    try:
        return Block(parse_rfc3339(str(row["start"])), parse_rfc3339(str(row["end"])), watts)
    except NotUtc as problem:
        raise MalformedMessage(f"blocks: {problem}", code="admin.adjust") from problem
