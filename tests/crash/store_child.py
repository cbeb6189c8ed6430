"""Commits units until it is killed; prints each number once it is acknowledged."""

from __future__ import annotations

import os
import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from gateway.domain.evidence import EvidenceDraft
from gateway.domain.ids import EvidenceId, SiteId
from gateway.infra.store_sql import open_store
from gateway.ports.store import CommitUnit, EncodedRow

SITE = SiteId("depot")
IN_FLIGHT = 8


def main(folder: Path) -> None:
    store = open_store(
        folder / "gridgate.db",
        head_path=folder / "gridgate.head",
        key_path=folder / "evidence.key",
        origin="example.org/gridgate/depot",
        clock_now=lambda: datetime.now(UTC),
    )
    loaded = store.open_site(SITE)
    waiting: deque[tuple[int, object]] = deque()
    seq = loaded.seq
    while True:
        seq += 1
        now = datetime.now(UTC)
        draft = EvidenceDraft(EvidenceId(f"evd_{seq}"), "test.step", now, subject={"peer": "dso"})
        row = EncodedRow("demo", "seq", str(seq).encode())
        waiting.append((seq, store.commit(CommitUnit(SITE, loaded.epoch, seq, now, rows=[row], evidence=[draft]))))
        if len(waiting) >= IN_FLIGHT:
            number, future = waiting.popleft()
            future.result()  # type: ignore[attr-defined]  # a Future
            os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
