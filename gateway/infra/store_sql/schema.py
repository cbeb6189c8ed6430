"""The tables, in one place. Migrations build them; a test holds the two together. No queries here.

Instants are integer microseconds since 1970 unless a column's name says ``_ms``.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

main = MetaData()
"""State, messages and evidence: one file, ``synchronous=FULL``."""

telemetry = MetaData()
"""Samples: a second file, ``synchronous=NORMAL``."""

site = Table(
    "site",
    main,
    Column("id", Text, primary_key=True, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

state_row = Table(
    "state_row",
    main,
    Column("site", Text, primary_key=True, nullable=False),
    Column("section", Text, primary_key=True, nullable=False),
    Column("key", Text, primary_key=True, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("seq", Integer, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

inbox = Table(
    "inbox",
    main,
    Column("peer", Text, primary_key=True, nullable=False),
    Column("endpoint", Text, primary_key=True, nullable=False),
    Column("message_id", Text, primary_key=True, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("at", Integer, nullable=False),
    Index("inbox_at", "at"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

outbox = Table(
    "outbox",
    main,
    Column("ord", Integer, primary_key=True, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("site", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("correlation", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("expires_at", Integer),
    Column("not_before", Integer),
    Column("attempts", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Index("outbox_owed", "site", "status", "ord"),
    Index("outbox_at", "status", "at"),
    sqlite_strict=True,
)

adapter_row = Table(
    "adapter_row",
    main,
    Column("site", Text, primary_key=True, nullable=False),
    Column("adapter", Text, primary_key=True, nullable=False),
    Column("key", Text, primary_key=True, nullable=False),
    Column("value", LargeBinary, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

raw = Table(
    "raw",
    main,
    Column("sha256", Text, primary_key=True, nullable=False),
    Column("media", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_strict=True,
)

journal = Table(
    "journal",
    main,
    Column("ord", Integer, primary_key=True, nullable=False),
    Column("site", Text, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("at", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("journal_seq", "site", "seq"),
    Index("journal_at", "at"),
    sqlite_strict=True,
)

entry = Table(
    "entry",
    main,
    Column("idx", Integer, primary_key=True, nullable=False),
    Column("id", Text, nullable=False, unique=True),
    Column("dedup", LargeBinary, nullable=False, unique=True),
    Column("at", Integer, nullable=False),
    Column("site", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Index("entry_type", "type", "idx"),
    sqlite_strict=True,
)

entry_subject = Table(
    "entry_subject",
    main,
    Column("idx", Integer, primary_key=True, nullable=False),
    Column("kind", Text, primary_key=True, nullable=False),
    Column("value", Text, nullable=False),
    Index("entry_subject_value", "kind", "value", "idx"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

entry_cause = Table(
    "entry_cause",
    main,
    Column("idx", Integer, primary_key=True, nullable=False),
    Column("cause", Text, primary_key=True, nullable=False),
    Index("entry_cause_cause", "cause", "idx"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

node = Table(
    "node",
    main,
    Column("level", Integer, primary_key=True, nullable=False),
    Column("pos", Integer, primary_key=True, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

counter = Table(
    "counter",
    main,
    Column("kind", Text, primary_key=True, nullable=False),
    Column("name", Text, primary_key=True, nullable=False),
    Column("value", Integer, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

head = Table(
    "head",
    main,
    Column("one", Integer, CheckConstraint("one = 1", name="head_one"), primary_key=True, nullable=False),
    Column("size", Integer, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("log_epoch", Integer, nullable=False),
    Column("vkey", Text, nullable=False),
    sqlite_strict=True,
)

checkpoint = Table(
    "checkpoint",
    main,
    Column("size", Integer, primary_key=True, nullable=False),
    Column("note", LargeBinary, nullable=False),
    Column("created", Integer, nullable=False),
    sqlite_strict=True,
)

series = Table(
    "series",
    telemetry,
    Column("id", Integer, primary_key=True, nullable=False),
    Column("site", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("source", Text, nullable=False),
    UniqueConstraint("site", "node", "quantity", "source", name="series_key"),
    sqlite_strict=True,
)

sample = Table(
    "sample",
    telemetry,
    # Time first: what comes now is written to the same few pages, whatever number of series it is of.
    Column("ts_ms", Integer, primary_key=True, nullable=False),
    Column("series_id", Integer, primary_key=True, nullable=False),
    Column("value", Integer, nullable=False),
    Column("quality", Text, nullable=False),
    Column("received_ms", Integer, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

APPEND_ONLY = ("entry", "checkpoint", "node")
"""Tables whose rows are never changed: triggers refuse it."""
