"""Durable state, messages, telemetry and the evidence log in two SQLite files."""

from __future__ import annotations

from gateway.infra.store_sql.store import SqliteStore, open_store

__all__ = ["SqliteStore", "open_store"]
