"""Builders of a store in a folder and of units that go into it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.domain.evidence import EvidenceDraft
from gateway.domain.ids import EvidenceId, SiteId
from gateway.infra.store_sql import SqliteStore, open_store
from gateway.ports.store import CommitUnit, EncodedRow

DEPOT = SiteId("depot")
ORIGIN = "example.org/gridgate/depot"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
WAIT_S = 10.0


class Now:
    """A clock that stands still until it is moved."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def advance(self, by: timedelta) -> None:
        self.at += by


def a_store(folder: Path, *, now: Now | None = None, **settings: Any) -> SqliteStore:
    """Open ``folder/gridgate.db`` with head and key beside it."""
    return open_store(
        folder / "gridgate.db",
        head_path=folder / "gridgate.head",
        key_path=folder / "evidence.key",
        origin=settings.pop("origin", ORIGIN),
        clock_now=now or Now(),
        **settings,
    )


def a_draft(name: str, **fields: Any) -> EvidenceDraft:
    """An entry ``evd_<name>``."""
    fields.setdefault("subject", {"node": "main"})
    return EvidenceDraft(EvidenceId(f"evd_{name}"), fields.pop("type", "test.happened"), NOON, **fields)


def a_unit(seq: int, *, epoch: int = 1, **fields: Any) -> CommitUnit:
    """Step ``seq`` of the depot: one row that says so and one entry, unless told otherwise."""
    site = fields.pop("site", DEPOT)
    fields.setdefault("rows", (EncodedRow("demo", "seq", str(seq).encode()),))
    fields.setdefault("evidence", (a_draft(f"{site}_{seq}"),))
    return CommitUnit(site=site, epoch=epoch, seq=seq, at=fields.pop("at", NOON), **fields)
