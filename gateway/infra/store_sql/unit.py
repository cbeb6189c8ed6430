"""One commit unit as rows. Runs inside the writer's transaction and savepoint."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from datetime import datetime, timedelta

from gateway.domain.effects import OutboxItem
from gateway.domain.errors import LocalError, StoreError
from gateway.domain.evidence import canonical, sha256_hex
from gateway.domain.ids import EvidenceId, PeerId, SiteId
from gateway.domain.timeline import EPOCH
from gateway.infra.store_sql.log import EvidenceLog, microseconds
from gateway.ports.gate import Inbound
from gateway.ports.store import CommitUnit, Loaded, OutboxRow, OutboxUpdate

READY = "ready"
FINAL = frozenset({"done", "dead"})

_STEP = "UPDATE site SET seq = ?, epoch = ? WHERE id = ? AND seq = ? AND epoch <= ?"
_PUT_STATE = (
    "INSERT INTO state_row(site, section, key, body, seq) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET body = excluded.body, seq = excluded.seq"
)
_DROP_STATE = "DELETE FROM state_row WHERE site = ? AND section = ? AND key = ?"
_PUT_ADAPTER = (
    "INSERT INTO adapter_row(site, adapter, key, value) VALUES (?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET value = excluded.value"
)
_DROP_ADAPTER = "DELETE FROM adapter_row WHERE site = ? AND adapter = ? AND key = ?"
_RAW = "INSERT INTO raw(sha256, media, size, data) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_INBOX = "INSERT INTO inbox(peer, endpoint, message_id, sha256, answer, at) VALUES (?, ?, ?, ?, ?, ?)"
_OUTBOX = (
    "INSERT INTO outbox(id, site, peer, kind, body, correlation, cause, expires_at, not_before, attempts, status, "
    "error, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 'ready', '', ?)"
)
_PROGRESS = "UPDATE outbox SET status = ?, attempts = ?, not_before = ?, error = ?, at = ? WHERE id = ? AND site = ?"
_JOURNAL = "INSERT INTO journal(site, seq, at, kind, data) VALUES (?, ?, ?, ?, ?)"
_OWED = (
    "SELECT id, peer, kind, body, correlation, cause, expires_at, not_before, attempts FROM outbox "
    "WHERE site = ? AND status = 'ready' ORDER BY ord"
)


def apply_unit(connection: sqlite3.Connection, log: EvidenceLog, unit: CommitUnit) -> tuple[EvidenceId, ...]:
    """Write everything of ``unit``; returns the ids of its evidence in order.

    Raises:
        StoreError: ``store.fenced``: another writer, or a predecessor that failed;
            ``store.duplicate``: a message or fact with this id is stored already.
    """
    _guard(connection, unit)
    for inbound in unit.inbounds:
        _receive(connection, inbound)
    _put_rows(connection, unit)
    for record in unit.records:
        if sha256_hex(record.data) != record.sha256:
            raise LocalError(f"a record of {len(record.data)} bytes does not have the digest {record.sha256}")
        connection.execute(_RAW, (record.sha256, record.media, len(record.data), record.data))
    evidence = tuple(log.append(connection, unit.site, unit.evidence)) if unit.evidence else ()
    for item in unit.outbox:
        _owe(connection, unit, item)
    for update in unit.outbox_updates:
        _progress(connection, unit, update)
    if unit.journal is not None:
        entry = unit.journal
        connection.execute(_JOURNAL, (unit.site, unit.seq, microseconds(entry.at), entry.kind, entry.data))
    return evidence


def take_over(connection: sqlite3.Connection, site: SiteId) -> Loaded:
    """Raise the site's epoch and read what is stored of it."""
    found = connection.execute("SELECT seq, epoch FROM site WHERE id = ?", (site,)).fetchone()
    seq, epoch = found if found is not None else (0, 0)
    connection.execute(
        "INSERT INTO site(id, seq, epoch) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET epoch = excluded.epoch",
        (site, seq, epoch + 1),
    )
    sections: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    for section, key, body in connection.execute("SELECT section, key, body FROM state_row WHERE site = ?", (site,)):
        sections[section][key] = body
    adapters = connection.execute("SELECT adapter, key, value FROM adapter_row WHERE site = ?", (site,))
    return Loaded(
        seq=seq,
        epoch=epoch + 1,
        cold=found is None,
        sections=dict(sections),
        adapter_rows={(adapter, key): value for adapter, key, value in adapters},
        outbox=tuple(_owed(row) for row in connection.execute(_OWED, (site,))),
    )


def _guard(connection: sqlite3.Connection, unit: CommitUnit) -> None:
    if unit.seq:
        changed = connection.execute(_STEP, (unit.seq, unit.epoch, unit.site, unit.seq - 1, unit.epoch)).rowcount
        if changed == 1:
            return
    found = connection.execute("SELECT seq, epoch FROM site WHERE id = ?", (unit.site,)).fetchone()
    if found is None:
        raise _fenced(f"site {unit.site} was never opened")
    seq, epoch = found
    if unit.seq or epoch > unit.epoch:
        raise _fenced(f"site {unit.site} is at {seq} in epoch {epoch}; refused {unit.seq} of epoch {unit.epoch}")


def _fenced(what: str) -> StoreError:
    return StoreError(what, code="store.fenced", hint="an earlier commit failed or another process took the site over")


def _receive(connection: sqlite3.Connection, inbound: Inbound) -> None:
    digest = sha256_hex(inbound.body)
    if not inbound.has_secret:
        connection.execute(_RAW, (digest, inbound.media, len(inbound.body), inbound.body))
    at = microseconds(inbound.received_at)
    try:
        connection.execute(_INBOX, (inbound.peer, inbound.endpoint, inbound.message_id, digest, inbound.answer, at))
    except sqlite3.IntegrityError as problem:
        raise StoreError(
            f"message {inbound.message_id!r} of {inbound.peer} at {inbound.endpoint} is stored already",
            code="store.duplicate",
        ) from problem


def _put_rows(connection: sqlite3.Connection, unit: CommitUnit) -> None:
    site = unit.site
    gone = [(site, row.section, row.key) for row in unit.rows if row.value is None]
    kept = [(site, row.section, row.key, row.value, unit.seq) for row in unit.rows if row.value is not None]
    connection.executemany(_DROP_STATE, gone)
    connection.executemany(_PUT_STATE, kept)
    for fact in unit.adapter_rows:
        if fact.value is None:
            connection.execute(_DROP_ADAPTER, (site, fact.adapter, fact.key))
        else:
            connection.execute(_PUT_ADAPTER, (site, fact.adapter, fact.key, fact.value))


def _owe(connection: sqlite3.Connection, unit: CommitUnit, item: OutboxItem) -> None:
    row = (
        item.id,
        unit.site,
        item.peer,
        item.kind,
        canonical(item.body),
        item.correlation,
        json.dumps(list(item.cause)),
        _optional(item.expires_at),
        _optional(item.not_before),
        microseconds(unit.at),
    )
    try:
        connection.execute(_OUTBOX, row)
    except sqlite3.IntegrityError as problem:
        raise StoreError(f"fact {item.id} is stored already", code="store.duplicate") from problem


def _progress(connection: sqlite3.Connection, unit: CommitUnit, update: OutboxUpdate) -> None:
    if update.status != READY and update.status not in FINAL:
        raise LocalError(f"{update.status!r} is no status of a fact")
    values = (update.status, update.attempts, _optional(update.not_before), update.error, microseconds(unit.at))
    connection.execute(_PROGRESS, (*values, update.id, unit.site))


def _owed(row: tuple[str, str, str, bytes, str, str, int | None, int | None, int]) -> OutboxRow:
    id_, peer, kind, body, correlation, cause, expires_at, not_before, attempts = row
    item = OutboxItem(
        id=id_,
        peer=PeerId(peer),
        kind=kind,
        body=json.loads(body),
        correlation=correlation,
        cause=tuple(EvidenceId(c) for c in json.loads(cause)),
        expires_at=_instant(expires_at),
        not_before=_instant(not_before),
    )
    return OutboxRow(item, attempts, item.not_before)


def _optional(instant: datetime | None) -> int | None:
    return None if instant is None else microseconds(instant)


def _instant(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + timedelta(microseconds=value)
