"""Runs migrations on the connection that ``gateway.infra.store_sql.migrate`` hands in."""

from __future__ import annotations

from alembic import context

from gateway.infra.store_sql import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.main,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
