from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.unit.cli.evening import gridgate


def copy_of(evening: Path, folder: Path) -> Path:
    shutil.copytree(evening.parent, folder / "copy")
    return folder / "copy" / "site.yaml"


def test_an_untouched_log_verifies_against_the_head_outside(evening: Path) -> None:
    said = gridgate("evidence", "verify", evening, "--json")
    assert said.code == 0
    document = said.document
    assert document["ok"] is True
    assert document["problems"] == []
    assert document["size"] == document["checkpoint"]["size"] > 10
    assert len(document["root"]) == 64
    assert gridgate("evidence", "verify", evening).out.splitlines()[-1] == "ok  the log verifies"


def test_a_key_from_outside_is_compared(evening: Path) -> None:
    vkey = gridgate("evidence", "verify", evening, "--json").document["checkpoint"]["vkey"]
    assert gridgate("evidence", "verify", evening, "--vkey", vkey).code == 0
    other = vkey.replace("/depot/", "/other/")
    assert gridgate("evidence", "verify", evening, "--vkey", other).code in (1, 3)


def test_a_changed_entry_is_found(evening: Path, tmp_path: Path) -> None:
    file = copy_of(evening, tmp_path)
    with closing(sqlite3.connect(file.parent / "gridgate.db")) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in names:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(
            "UPDATE entry SET data = CAST(replace(CAST(data AS TEXT), 'BREACH', 'COMPLIANT') AS BLOB) "
            "WHERE type = 'compliance.interval'"
        )
        db.commit()
    said = gridgate("evidence", "verify", file, "--json")
    assert said.code == 3
    assert said.document["ok"] is False
    assert {"code", "index", "message"} == set(said.document["problems"][0])
    assert "failed  the log does not verify" in gridgate("evidence", "verify", file).out


def test_a_log_that_was_cut_off_contradicts_the_head_outside(evening: Path, tmp_path: Path) -> None:
    file = copy_of(evening, tmp_path)
    (file.parent / "gridgate.head").write_bytes(b"no note\n")
    said = gridgate("evidence", "verify", file, "--json")
    assert said.code == 3
    assert "head-file" in {p["code"] for p in said.document["problems"]}


def test_no_store_is_a_failure_and_no_verdict(evening: Path, tmp_path: Path) -> None:
    file = copy_of(evening, tmp_path)
    (file.parent / "gridgate.db").unlink()
    said = gridgate("evidence", "verify", file, "--json")
    assert (said.code, said.document["error"]["code"]) == (1, "store.unreadable")
