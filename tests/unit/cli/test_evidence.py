from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

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


def a_copy_alone(evening: Path, folder: Path, *names: str) -> Path:
    """What an auditor gets: no configuration, no key."""
    for name in names:
        shutil.copy(evening.parent / name, folder / name)
    return folder / "gridgate.db"


def test_an_auditor_verifies_a_copy_without_any_configuration(evening: Path, tmp_path: Path) -> None:
    known = gridgate("evidence", "verify", evening, "--json").document
    store = a_copy_alone(evening, tmp_path, "gridgate.db", "gridgate.head")
    said = gridgate("evidence", "verify", "--store", store, "--vkey", known["checkpoint"]["vkey"], "--json")
    assert said.code == 0, said.out
    assert (said.document["root"], said.document["head_file"]) == (known["root"], str(tmp_path / "gridgate.head"))
    assert f"compared with {tmp_path / 'gridgate.head'}" in gridgate("evidence", "verify", "--store", store).out


def test_without_a_head_beside_the_copy_the_answer_says_what_that_leaves_open(evening: Path, tmp_path: Path) -> None:
    store = a_copy_alone(evening, tmp_path, "gridgate.db")
    said = gridgate("evidence", "verify", "--store", store)
    assert said.code == 0
    assert "no signed head to compare with" in said.out
    other = tmp_path / "elsewhere.head"
    other.write_bytes(b"no note\n")
    assert gridgate("evidence", "verify", "--store", store, "--head", other).code == 3
    shutil.copy(evening.parent / "gridgate.head", other)
    assert gridgate("evidence", "verify", "--store", store, "--head", other).code == 0


def test_a_copy_is_listed_traced_and_exported_like_the_original(evening: Path, tmp_path: Path) -> None:
    store = a_copy_alone(evening, tmp_path, "gridgate.db", "gridgate.head", "gridgate-telemetry.db")
    for words in (("evidence", "list", "--verdict", "BREACH"), ("trace", "req-surprise"), ("trace", "main")):
        original = gridgate(*words, evening, "--json").document
        assert gridgate(*words, "--store", store, "--json").document == original
    said = gridgate("evidence", "export", tmp_path / "log", "--store", store, "--json")
    assert said.code == 0, said.out
    assert said.document["size"] > 10


@pytest.mark.parametrize(
    "words", [("evidence", "verify"), ("evidence", "list"), ("evidence", "export", "log"), ("trace", "x")]
)
def test_a_store_and_a_configuration_are_two_logs(evening: Path, words: tuple[str, ...]) -> None:
    said = gridgate(*words, evening, "--store", evening.parent / "gridgate.db", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "cli.usage")


def test_a_copy_that_is_not_there_or_no_database_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but longer than a header " * 9, encoding="ascii")
    for name in ("missing.db", "text.db"):
        said = gridgate("evidence", "verify", "--store", tmp_path / name, "--json")
        assert (said.code, said.document["error"]["code"]) == (1, "store.unreadable")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--node", "main"), True),
        (("--node", "main/nowhere"), False),
        (("--peer", "dso"), True),
        (("--peer", "nobody"), False),
        (("--type", "envelope.revised"), True),
        (("--type", "no.such.type"), False),
        (("--verdict", "breach"), True),
        (("--verdict", "EXEMPT", "--node", "main/garage"), False),
        (("--from", "2026-03-01T17:02:00Z", "--to", "2026-03-01T17:03:00Z"), True),
        (("--from", "2027-01-01T00:00:00Z"), False),
        (("--to", "2026-03-01T16:00:00Z"), False),
        (("--node", "main", "--peer", "dso", "--type", "envelope.revised", "--from", "2026-03-01T17:02:00Z"), True),
        (("--node", "main", "--verdict", "BREACH", "--to", "2026-03-01T17:00:00Z"), False),
    ],
)
def test_every_filter_alone_and_together_finds_what_matches_and_nothing_else(
    evening: Path, words: tuple[str, ...], found: bool
) -> None:
    said = gridgate("evidence", "list", evening, *words, "--json")
    assert said.code == 0
    assert bool(said.document["entries"]) is found


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "tomorrow"),
        ("--from", "2026-13-01T00:00:00Z"),
        ("--to", "2026-03-01 17:00"),
        ("--to", "2026-03-01T17:00:00"),
        ("--from", "2026-03-01T18:00:00Z", "--to", "2026-03-01T17:00:00Z"),
        ("--from", "2026-03-01T18:00:00Z", "--to", "2026-03-01T18:00:00Z"),
        ("--verdict", "SPLENDID"),
        ("--limit", "0"),
        ("--limit", "10001"),
        ("--limit", "many"),
    ],
)
def test_a_bad_value_is_a_usage_error(evening: Path, words: tuple[str, ...]) -> None:
    assert gridgate("evidence", "list", evening, *words).code == 2
