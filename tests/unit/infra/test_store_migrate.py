"""Schema history: what the migrations build is what the tables say, and an upgrade leaves a way back."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from gateway.domain.errors import StoreError
from gateway.infra.store_sql import schema
from gateway.infra.store_sql.migrate import HEAD_REVISION, MIGRATIONS, current_revision, upgrade
from tests.support.store import a_store

NEXT = '''"""A later release."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE TABLE later (x INTEGER) STRICT")
    {more}
'''


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The history with one more step."""
    scripts = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "v0002_later.py").write_text(NEXT.format(more=""))
    return scripts


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_the_migrations_build_exactly_the_tables_that_are_written_down(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata

    upgrade(tmp_path / "gridgate.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'gridgate.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.main) == []
    engine.dispose()


def test_every_table_checks_its_types(tmp_path: Path) -> None:
    a_store(tmp_path).close()
    for name in ("gridgate.db", "gridgate-telemetry.db"):
        with closing(sqlite3.connect(tmp_path / name)) as database:
            strict = {row[1]: row[5] for row in database.execute("PRAGMA table_list") if row[0] == "main"}
        ours = {table: flag for table, flag in strict.items() if not table.startswith(("sqlite_", "alembic_"))}
        assert ours and set(ours.values()) == {1}


def test_the_history_is_one_line_that_ends_where_the_program_thinks() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD_REVISION]


def test_a_new_file_needs_no_backup_and_a_current_one_no_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "gridgate.db"
    assert upgrade(path) is None
    assert current_revision(path) == HEAD_REVISION
    assert upgrade(path, auto=False) is None


def test_an_upgrade_of_an_existing_file_backs_it_up_first(tmp_path: Path, later: Path) -> None:
    path = tmp_path / "gridgate.db"
    upgrade(path)
    backup = upgrade(path, scripts=later, target="0002")
    assert backup is not None and backup.stat().st_mode & 0o077 == 0
    assert (current_revision(path), current_revision(backup)) == ("0002", "0001")
    assert "later" in tables(path) - tables(backup)


def test_a_file_that_is_behind_is_refused_where_nobody_allowed_the_upgrade(tmp_path: Path, later: Path) -> None:
    upgrade(tmp_path / "gridgate.db")
    with pytest.raises(StoreError) as caught:
        upgrade(tmp_path / "gridgate.db", auto=False, scripts=later, target="0002")
    assert caught.value.code == "store.migration-needed"


def test_a_file_of_a_newer_release_is_refused_and_unchanged(tmp_path: Path, later: Path) -> None:
    path = tmp_path / "gridgate.db"
    a_store(tmp_path).close()
    upgrade(path, scripts=later, target="0002")
    with pytest.raises(StoreError) as caught:
        a_store(tmp_path)
    assert caught.value.code == "store.newer-schema"


def test_a_migration_that_fails_half_way_changes_nothing(tmp_path: Path, later: Path) -> None:
    path = tmp_path / "gridgate.db"
    upgrade(path)
    step = later / "versions" / "v0002_later.py"
    step.write_text(NEXT.format(more='op.execute("INSERT INTO nowhere VALUES (1)")'))
    with pytest.raises(StoreError) as caught:
        upgrade(path, scripts=later, target="0002")
    assert caught.value.code == "store.migration-failed"
    assert current_revision(path) == "0001" and "later" not in tables(path)
