"""A site's state from its store, as it was last committed. Read-only, beside a running gateway too."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING

from gateway.domain.errors import StoreError
from gateway.infra.evidence_read import EvidenceReader
from gateway.infra.store_sql.connection import connect_reader
from gateway.ports.store import Loaded
from gateway.runtime import View, decode_state, stored_admissions

if TYPE_CHECKING:
    from gateway.config import SiteConfig


def view_of(config: SiteConfig) -> View:
    """The views of a running gateway, over the stored state and at its instant.

    Raises:
        StoreError: no store, or nothing of this site in it.
    """
    loaded = _load(config)
    with EvidenceReader(config.store.path) as reader:
        depth = reader.outbox_depth()
    state = decode_state(loaded)
    admissions = stored_admissions(config, loaded.adapter_rows)
    return View(
        config,
        now=lambda: state.control.last_now,
        state=lambda: state,
        outbox=lambda: depth,
        admissions=admissions,
    )


def _load(config: SiteConfig) -> Loaded:
    sections: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    with closing(connect_reader(config.store.path)) as connection:
        try:
            connection.execute("BEGIN")  # one snapshot, whatever a running gateway adds
            site = connection.execute("SELECT seq, epoch FROM site WHERE id = ?", (config.site,)).fetchone()
            rows = connection.execute("SELECT section, key, body FROM state_row WHERE site = ?", (config.site,))
            for section, key, body in rows:
                sections[section][key] = body
            own = connection.execute("SELECT adapter, key, value FROM adapter_row WHERE site = ?", (config.site,))
            adapter_rows = {(adapter, key): body for adapter, key, body in own}
        except sqlite3.Error as problem:
            raise StoreError(f"{config.store.path} cannot be read: {problem}", code="store.unreadable") from problem
    if site is None:
        raise StoreError(
            f"{config.store.path} holds nothing of site {config.site}",
            code="store.unknown-site",
            hint="the gateway has not run with this configuration yet",
        )
    return Loaded(site[0], site[1], False, dict(sections), (), adapter_rows)
