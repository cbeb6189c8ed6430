"""The canonical bytes of an evidence entry. Pure but for the clocks that it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.domain.errors import StoreError
from gateway.domain.evidence import MAX_ENTRY_BYTES, Actor, EvidenceDraft, Json, canonical
from gateway.domain.timeline import rfc3339

VERSION = 1


@dataclass(frozen=True, slots=True)
class Moment:
    """When an entry is written: wall time, and this boot's monotonic nanoseconds."""

    at: datetime
    boot: str
    ns: int


@dataclass(frozen=True, slots=True)
class Place:
    """What the log adds: the site and the dense numbers per site and, where one is named, per party."""

    site: str
    site_seq: int
    pseq: int | None


def encode_entry(draft: EvidenceDraft, cause: Sequence[str], place: Place, moment: Moment) -> bytes:
    """RFC 8785 bytes.

    ``at`` is the controller's instant, ``recorded_at`` the writer's. ``mono.ns`` is text: after 104
    days it outgrows the integers that JSON keeps.

    Raises:
        StoreError: ``store.entry-too-large``.
        LocalError: the draft holds what evidence cannot hold.
    """
    document: dict[str, Json] = {
        "v": VERSION,
        "id": draft.id,
        "at": rfc3339(draft.at),
        "recorded_at": rfc3339(moment.at),
        "mono": {"boot": moment.boot, "ns": str(moment.ns)},
        "site": place.site,
        "site_seq": place.site_seq,
        "type": draft.type,
        "actor": _actor(draft.actor),
        "subject": dict(draft.subject),
        "cause": list(cause),
        "dir": draft.way.value,
        "body": draft.body,
        "result": draft.result,
    }
    if place.pseq is not None:
        document["pseq"] = place.pseq
    if draft.reason:
        document["reason"] = draft.reason
    if draft.raw is not None:
        document["raw"] = {"sha256": draft.raw.sha256, "bytes": draft.raw.size, "media": draft.raw.media}
    data = canonical(document)
    if len(data) > MAX_ENTRY_BYTES:
        raise StoreError(
            f"entry {draft.id} ({draft.type}) has {len(data)} bytes, at most {MAX_ENTRY_BYTES} fit",
            code="store.entry-too-large",
            hint="large documents belong beside the log, under their digest",
        )
    return data


def _actor(actor: Actor) -> dict[str, Json]:
    fields = {
        "kind": actor.kind,
        "principal": actor.principal,
        "listener": actor.listener,
        "cert_sha256": actor.cert_sha256,
    }
    return {name: value for name, value in fields.items() if value}
