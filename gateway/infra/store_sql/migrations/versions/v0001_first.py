"""State, messages and the evidence log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_APPEND_ONLY = ("entry", "checkpoint", "node")


def upgrade() -> None:
    """Create everything."""
    _state()
    _messages()
    _evidence()
    for table in _APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def downgrade() -> None:
    """Drop everything; only an empty development file has a use for it."""
    for table in (
        "checkpoint",
        "head",
        "counter",
        "node",
        "entry_cause",
        "entry_subject",
        "entry",
        "journal",
        "raw",
        "adapter_row",
        "outbox",
        "inbox",
        "state_row",
        "site",
    ):
        op.drop_table(table)


def _state() -> None:
    op.create_table(
        "site",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "state_row",
        sa.Column("site", sa.Text, primary_key=True, nullable=False),
        sa.Column("section", sa.Text, primary_key=True, nullable=False),
        sa.Column("key", sa.Text, primary_key=True, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "adapter_row",
        sa.Column("site", sa.Text, primary_key=True, nullable=False),
        sa.Column("adapter", sa.Text, primary_key=True, nullable=False),
        sa.Column("key", sa.Text, primary_key=True, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "journal",
        sa.Column("ord", sa.Integer, primary_key=True, nullable=False),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("journal_seq", "journal", ["site", "seq"])
    op.create_index("journal_at", "journal", ["at"])


def _messages() -> None:
    op.create_table(
        "inbox",
        sa.Column("peer", sa.Text, primary_key=True, nullable=False),
        sa.Column("endpoint", sa.Text, primary_key=True, nullable=False),
        sa.Column("message_id", sa.Text, primary_key=True, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("inbox_at", "inbox", ["at"])
    op.create_table(
        "outbox",
        sa.Column("ord", sa.Integer, primary_key=True, nullable=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("correlation", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Integer),
        sa.Column("not_before", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("outbox_owed", "outbox", ["site", "status", "ord"])
    op.create_index("outbox_at", "outbox", ["status", "at"])
    op.create_table(
        "raw",
        sa.Column("sha256", sa.Text, primary_key=True, nullable=False),
        sa.Column("media", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )


def _evidence() -> None:
    op.create_table(
        "entry",
        sa.Column("idx", sa.Integer, primary_key=True, nullable=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("dedup", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("entry_type", "entry", ["type", "idx"])
    op.create_table(
        "entry_subject",
        sa.Column("idx", sa.Integer, primary_key=True, nullable=False),
        sa.Column("kind", sa.Text, primary_key=True, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("entry_subject_value", "entry_subject", ["kind", "value", "idx"])
    op.create_table(
        "entry_cause",
        sa.Column("idx", sa.Integer, primary_key=True, nullable=False),
        sa.Column("cause", sa.Text, primary_key=True, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("entry_cause_cause", "entry_cause", ["cause", "idx"])
    op.create_table(
        "node",
        sa.Column("level", sa.Integer, primary_key=True, nullable=False),
        sa.Column("pos", sa.Integer, primary_key=True, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "counter",
        sa.Column("kind", sa.Text, primary_key=True, nullable=False),
        sa.Column("name", sa.Text, primary_key=True, nullable=False),
        sa.Column("value", sa.Integer, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "head",
        sa.Column("one", sa.Integer, sa.CheckConstraint("one = 1", name="head_one"), primary_key=True, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("log_epoch", sa.Integer, nullable=False),
        sa.Column("vkey", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "checkpoint",
        sa.Column("size", sa.Integer, primary_key=True, nullable=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.Integer, nullable=False),
        sqlite_strict=True,
    )
