"""Bringing a file to the current schema: alembic, one linear history, a backup before each upgrade."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.domain.errors import StoreError
from gateway.infra.store_sql.connection import connect_writer

if TYPE_CHECKING:
    from alembic.config import Config

HEAD_REVISION = "0001"
"""The newest migration; known here so that an up-to-date file opens without loading alembic."""

MIGRATIONS = Path(__file__).parent / "migrations"


def current_revision(path: Path) -> str | None:
    """The file's revision, None when it has no tables of ours yet.

    Raises:
        StoreError: not a database.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(path)) as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    except sqlite3.DatabaseError as problem:
        raise StoreError(f"{path} is no store: {problem}", code="store.unreadable") from problem
    return None if row is None else str(row[0])


def upgrade(path: Path, *, auto: bool = True, scripts: Path = MIGRATIONS, target: str = HEAD_REVISION) -> Path | None:
    """Bring the file to ``target``; returns where the backup of an existing file lies.

    Raises:
        StoreError: ``store.migration-needed`` when behind and not ``auto``; ``store.newer-schema``
            when a newer gridgate wrote it; ``store.migration-failed``: nothing changed.
    """
    found = current_revision(path)
    if found == target:
        return None
    if found is not None and found > target:
        raise StoreError(
            f"{path} has schema {found}, this program knows {target}",
            code="store.newer-schema",
            hint="start the newer gridgate that wrote it, or go back to a backup",
        )
    if found is not None and not auto:
        raise StoreError(
            f"{path} has schema {found}, {target} is needed",
            code="store.migration-needed",
            hint="allow the automatic upgrade, or upgrade with the gateway stopped",
        )
    backup = _backup(path, target) if found is not None else None
    _run(path, scripts, target)
    return backup


def _backup(path: Path, target: str) -> Path:
    """A consistent copy beside the file; the first backup before a revision is kept."""
    copy = path.with_name(f"{path.stem}-before-{target}{path.suffix}.bak")
    if copy.exists():
        return copy
    partial = copy.with_name(copy.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(partial),))
        partial.rename(copy)
    except (sqlite3.Error, OSError) as problem:
        partial.unlink(missing_ok=True)
        raise StoreError(f"no backup of {path}, so no upgrade: {problem}", code="store.migration-failed") from problem
    return copy


def _run(path: Path, scripts: Path, target: str) -> None:
    import sqlalchemy as sa
    from alembic import command
    from alembic.util import CommandError

    # The same opener as the writer's, so that the file is private and in WAL mode from its first byte;
    # transactions are begun by hand because the driver would commit before DDL.
    engine = sa.create_engine("sqlite://", creator=lambda: connect_writer(path), poolclass=sa.NullPool)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            command.upgrade(_config(scripts, connection), target)
    except (sa.exc.SQLAlchemyError, CommandError) as problem:
        raise StoreError(f"{path} was not upgraded: {problem}", code="store.migration-failed") from problem
    finally:
        engine.dispose()


def _config(scripts: Path, connection: object) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
