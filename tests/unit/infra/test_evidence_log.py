"""The log on disk: signed heads, forks, damage, proofs, tiles, and what a reader may ask."""

from __future__ import annotations

import base64
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import EvidenceError, MalformedMessage, StoreError
from gateway.domain.evidence import RawRef, sha256_hex
from gateway.domain.ids import EvidenceId, PeerId
from gateway.domain.merkle import leaf_hash, leaves_source, root_at, verify_inclusion
from gateway.domain.note import open_checkpoint, parse_verifier_key
from gateway.infra.evidence_key import verify_signature
from gateway.infra.evidence_read import EvidenceReader
from gateway.infra.evidence_tiles import export_tiles, tile_path
from gateway.infra.evidence_verify import Report, verify_log
from gateway.ports.gate import Inbound
from tests.support.store import DEPOT, NOON, WAIT_S, Now, a_draft, a_store, a_unit

BODY = b'{"group":"DEPOT-7"}'
RAW = RawRef(sha256_hex(BODY), len(BODY), "application/json")


def fill(folder: Path, count: int = 5) -> None:
    """A closed store with ``count`` units, the first of which came from a message."""
    store = a_store(folder)
    epoch, seq = (loaded := store.open_site(DEPOT)).epoch, loaded.seq
    for n in range(seq + 1, seq + count + 1):
        messages = [Inbound(PeerId("dso"), "forecast", f"m-{n}", BODY, NOON)] if n == 1 else []
        cause = (EvidenceId(f"evd_{n - 1}"),) if n > 1 else ()
        raw = RAW if n == 1 else None
        draft = a_draft(str(n), subject={"peer": "dso", "node": f"n{n % 2}"}, cause=cause, raw=raw)
        future = store.commit(a_unit(n, epoch=epoch, evidence=[draft], inbounds=messages, lazy=n < seq + count))
    future.result(WAIT_S)
    store.close()


def check(folder: Path) -> Report:
    return verify_log(folder / "gridgate.db", head_path=folder / "gridgate.head")


def edit(folder: Path, act: Callable[[sqlite3.Connection], object]) -> None:
    """As somebody with access to the file would: the triggers go first, and come back."""
    database = sqlite3.connect(folder / "gridgate.db")
    triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        database.execute(f"DROP TRIGGER {name}")
    act(database)
    for _, sql in triggers:
        database.execute(sql)
    database.commit()
    database.close()


def codes(report: Report) -> set[str]:
    return {problem.code for problem in report.problems}


# --- life of a log --------------------------------------------------------------------------


def test_a_new_log_starts_with_an_entry_about_itself_and_resumes_with_the_head_it_found(tmp_path: Path) -> None:
    fill(tmp_path)
    fill(tmp_path, 1)
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        start, *_, resume, last = reader.tail(100)
    assert (start.idx, start.type) == (0, "log.start")
    assert (resume.idx, resume.type, resume.body["size"]) == (6, "log.resume", 6)
    assert last.id == "evd_6"


def test_the_head_outside_is_a_checkpoint_that_anybody_can_open(tmp_path: Path) -> None:
    fill(tmp_path)
    report = check(tmp_path)
    key = parse_verifier_key(report.vkey)
    assert key.name == "example.org/gridgate/depot/1"
    head = open_checkpoint((tmp_path / "gridgate.head").read_bytes(), key, verify_signature)
    assert (head.origin, head.size, head.root.hex()) == (key.name, 6, report.root)


def test_an_untouched_log_verifies_with_its_key_from_outside(tmp_path: Path) -> None:
    fill(tmp_path, 600)
    report = verify_log(tmp_path / "gridgate.db", head_path=tmp_path / "gridgate.head", vkey=check(tmp_path).vkey)
    assert report.ok and report.vkey_given
    assert (report.size, report.signed_size, report.raw_checked, report.raw_missing) == (601, 601, 1, ())


def test_a_running_log_verifies_too(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.open_site(DEPOT)
    store.commit(a_unit(1)).result(WAIT_S)
    assert verify_log(tmp_path / "gridgate.db").ok
    store.close()


def test_a_key_of_somebody_else_is_refused_as_the_logs_key(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fill(tmp_path / "a")
    fill(tmp_path / "b")
    report = verify_log(tmp_path / "a" / "gridgate.db", vkey=check(tmp_path / "b").vkey)
    assert {"key", "checkpoint"} <= codes(report)
    with pytest.raises(MalformedMessage):
        verify_log(tmp_path / "a" / "gridgate.db", vkey="nonsense")


def test_a_file_that_is_not_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        verify_log(tmp_path / "missing.db")


# --- forks ----------------------------------------------------------------------------------


def suspected(folder: Path, **settings: object) -> str:
    with pytest.raises(EvidenceError) as caught:
        a_store(folder, **settings)
    return caught.value.code


def test_an_old_backup_is_suspected_of_a_fork_and_still_readable(tmp_path: Path) -> None:
    fill(tmp_path)
    shutil.copy(tmp_path / "gridgate.db", tmp_path / "backup")
    fill(tmp_path)
    shutil.copy(tmp_path / "backup", tmp_path / "gridgate.db")
    assert suspected(tmp_path) == "store.fork-suspected"
    assert codes(check(tmp_path)) == {"head-file"}
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        assert reader.by_id("evd_5") is not None


def test_an_old_backup_that_was_continued_elsewhere_is_a_fork_however_long(tmp_path: Path) -> None:
    fill(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    fill(tmp_path)
    fill(tmp_path / "copy", 20)
    shutil.copy(tmp_path / "copy" / "gridgate.db", tmp_path / "gridgate.db")
    assert suspected(tmp_path) == "store.fork-suspected"


def test_a_vanished_database_is_not_begun_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "gridgate.db").unlink()
    assert suspected(tmp_path) == "store.fork-suspected"


def test_a_vanished_head_file_is_suspicious(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "gridgate.head").unlink()
    assert suspected(tmp_path) == "store.fork-suspected"


def test_a_crash_before_the_very_first_head_file_is_not(tmp_path: Path) -> None:
    a_store(tmp_path).close()
    (tmp_path / "gridgate.head").unlink()
    a_store(tmp_path).close()
    assert check(tmp_path).ok


def test_a_log_is_not_continued_without_its_key_or_under_another_name(tmp_path: Path) -> None:
    fill(tmp_path)
    assert suspected(tmp_path, origin="example.org/gridgate/other") == "store.key-mismatch"
    os.chmod(tmp_path / "evidence.key", 0o644)
    assert suspected(tmp_path) == "store.key-permissions"
    (tmp_path / "evidence.key").unlink()
    assert suspected(tmp_path) == "store.key-missing"


def test_a_changed_newest_entry_is_seen_at_opening(tmp_path: Path) -> None:
    fill(tmp_path)
    edit(tmp_path, lambda db: db.execute("UPDATE entry SET data = x'7b7d' WHERE idx = 3"))
    assert suspected(tmp_path) == "store.evidence-damaged"


def test_the_key_is_never_shown(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    pem = (tmp_path / "evidence.key").read_text()
    assert pem.split("\n")[1] not in repr(store._main._evidence.key)
    assert "***" in repr(store._main._evidence.key)
    store.close()


# --- damage ---------------------------------------------------------------------------------

COVERED = [
    ("entry", "data", "idx"),
    ("entry", "leaf", "idx"),
    ("checkpoint", "note", "size"),
    ("raw", "data", "sha256"),
    ("node", "hash", "pos"),
    ("head", "frontier", "one"),
    ("head", "root", "one"),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    fill(folder, 300)
    fill(folder, 3)
    return folder


@given(st.sampled_from(COVERED), st.randoms(use_true_random=False), st.integers(1, 255))
def test_no_single_byte_can_be_changed_unseen(filled: Path, place: tuple[str, str, str], random: object, flip: int):
    table, column, key = place
    before = (filled / "gridgate.db").read_bytes()

    def damage(database: sqlite3.Connection) -> None:
        rows = database.execute(f"SELECT {key}, {column} FROM {table}").fetchall()  # noqa: S608  names from the list above
        name, data = random.choice(rows)  # type: ignore[attr-defined]  # hypothesis hands out a Random
        changed = bytearray(data)
        changed[random.randrange(len(changed))] ^= flip  # type: ignore[attr-defined]  # as above
        query = f"UPDATE {table} SET {column} = ? WHERE {key} = ?"  # noqa: S608  as above
        database.execute(query, (bytes(changed), name))

    try:
        edit(filled, damage)
        assert not check(filled).ok
    finally:
        (filled / "gridgate.db").write_bytes(before)


EDITS = {
    "an entry removed": ("DELETE FROM entry WHERE idx = 3", "gap"),
    "the last entry removed": ("DELETE FROM entry WHERE idx = 5", "checkpoint"),
    "two entries exchanged": (
        "UPDATE entry SET idx = CASE idx WHEN 2 THEN -3 WHEN 3 THEN -2 END WHERE idx IN (2, 3); "
        "UPDATE entry SET idx = -idx WHERE idx < 0",
        "checkpoint",
    ),
    "another type in the column": ("UPDATE entry SET type = 'x' WHERE idx = 3", "lookup"),
    "another time in the column": ("UPDATE entry SET at = at + 1 WHERE idx = 3", "lookup"),
    "a cause hidden": ("DELETE FROM entry_cause WHERE idx = 3", "lookup"),
    "a subject invented": ("INSERT INTO entry_subject(idx, kind, value) VALUES (3, 'evse', 'x')", "lookup"),
    "a subject of nothing": ("INSERT INTO entry_subject(idx, kind, value) VALUES (99, 'evse', 'x')", "lookup"),
    "a checkpoint under another size": ("UPDATE checkpoint SET size = 2 WHERE size = 1", "checkpoint"),
    "another key": ("UPDATE head SET vkey = 'x'", "key"),
    "no head": ("DELETE FROM head", "no-head"),
    "a head of text": ("UPDATE head SET size = 99", "head"),
    "a table gone": ("DROP TABLE entry_cause", "lookup-unreadable"),
}


@pytest.mark.parametrize("what", EDITS)
def test_what_somebody_with_the_file_did_is_named(tmp_path: Path, what: str) -> None:
    script, code = EDITS[what]
    fill(tmp_path)
    edit(tmp_path, lambda db: db.executescript(script))
    assert code in codes(check(tmp_path))


def test_a_forged_entry_with_a_fitting_leaf_still_contradicts_the_signed_heads(tmp_path: Path) -> None:
    fill(tmp_path)

    def forge(db: sqlite3.Connection) -> None:
        (data,) = db.execute("SELECT data FROM entry WHERE idx = 3").fetchone()
        data = data.replace(b'"result":"ok"', b'"result":"no"')
        db.execute("UPDATE entry SET data = ?, leaf = ? WHERE idx = 3", (data, leaf_hash(data)))

    edit(tmp_path, forge)
    assert {"checkpoint", "head", "head-file"} <= codes(check(tmp_path))
    assert "leaf" not in codes(check(tmp_path))


def test_a_message_that_is_not_kept_any_more_is_missing_and_no_damage(tmp_path: Path) -> None:
    fill(tmp_path)
    edit(tmp_path, lambda db: db.execute("DELETE FROM raw"))
    report = check(tmp_path)
    assert report.ok and report.raw_missing == (RAW.sha256,)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM entry",
        "DELETE FROM checkpoint",
        "DELETE FROM node",
        "UPDATE entry SET data = x'00'",
        "UPDATE checkpoint SET note = x'00'",
        "UPDATE node SET hash = x'00'",
    ],
)
def test_the_database_itself_refuses_to_change_the_past(filled: Path, statement: str) -> None:
    with closing(sqlite3.connect(filled / "gridgate.db")) as database:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)


# --- reading --------------------------------------------------------------------------------


def test_lineage_can_be_walked_both_ways(filled: Path) -> None:
    with EvidenceReader(filled / "gridgate.db") as reader:
        assert [e.id for e in reader.causes("evd_3")] == ["evd_2"]
        assert [e.id for e in reader.effects("evd_3")] == ["evd_4"]
        first = reader.by_id("evd_1")
        assert first is not None
        message = reader.raw(first.document["raw"]["sha256"])
        assert message is not None and (message.data, message.media) == (BODY, "application/json")
        assert reader.by_id("evd_none") is None and reader.raw("none") is None


def test_entries_about_something_come_newest_first_and_page_by_page(filled: Path) -> None:
    with EvidenceReader(filled / "gridgate.db") as reader:
        page = reader.by_subject("node", "n1", limit=2)
        assert [e.id for e in page] == ["evd_303", "evd_301"]
        page = reader.by_subject("node", "n1", before=page[-1].idx, limit=2)
        assert [e.id for e in page] == ["evd_299", "evd_297"]
        assert reader.by_subject("node", "n1", type="other") == []
        assert [e.id for e in reader.by_any_subject("n1", limit=1)] == ["evd_303"]
        assert [e.type for e in reader.by_type("log.resume")] == ["log.resume"]
        assert [e.id for e in reader.tail(2)] == ["evd_302", "evd_303"]


def test_a_proof_convinces_somebody_who_has_the_entry_and_the_key(filled: Path) -> None:
    with EvidenceReader(filled / "gridgate.db") as reader:
        entry = reader.by_id("evd_77")
        proof = reader.proof("evd_77")
        assert entry is not None and proof is not None
        key = parse_verifier_key(reader.head().vkey)
    path, note = proof.split(b"\n\n", 1)
    magic, index, *hashes = path.decode().split("\n")
    assert (magic, index) == ("c2sp.org/tlog-proof@v1", f"index {entry.idx}")
    head = open_checkpoint(note, key, verify_signature)
    steps = [base64.b64decode(h) for h in hashes]
    assert verify_inclusion(entry.idx, head.size, leaf_hash(entry.data), steps, head.root)


def test_a_reader_knows_where_the_log_stands_and_what_is_owed(filled: Path) -> None:
    with EvidenceReader(filled / "gridgate.db") as reader:
        assert reader.head().size == 305
        assert reader.head().signed_at == NOON
        assert reader.outbox_depth() == {}


# --- tiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "number", "width", "path"),
    [
        ("0", 0, 256, "tile/0/000"),
        ("0", 273, 112, "tile/0/273.p/112"),
        ("entries", 1_234_067, 256, "tile/entries/x001/x234/067"),
        ("2", 1_000, 1, "tile/2/x001/000.p/1"),
    ],
)
def test_tiles_are_named_in_groups_of_three_digits(row: str, number: int, width: int, path: str) -> None:
    """C2SP tlog-tiles: every group but the last has an x."""
    assert tile_path(row, number, width) == path


def test_the_published_tiles_hold_the_signed_tree(filled: Path, tmp_path: Path) -> None:
    published = export_tiles(filled / "gridgate.db", tmp_path)
    key = parse_verifier_key(check(filled).vkey)
    head = open_checkpoint((tmp_path / "checkpoint").read_bytes(), key, verify_signature)
    full, part = (tmp_path / "tile/0/000").read_bytes(), (tmp_path / "tile/0/001.p/49").read_bytes()
    leaves = [(full + part)[i : i + 32] for i in range(0, 32 * head.size, 32)]
    node = leaves_source(leaves)
    assert published.size == head.size == 305
    assert root_at(305, node) == head.root
    assert (tmp_path / "tile/1/000.p/1").read_bytes() == node(8, 0)


def test_entry_bundles_hold_every_entry_behind_its_length(filled: Path, tmp_path: Path) -> None:
    export_tiles(filled / "gridgate.db", tmp_path)
    bundle, entries = (tmp_path / "tile/entries/001.p/49").read_bytes(), []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    part = (tmp_path / "tile/0/001.p/49").read_bytes()
    assert b"".join(leaf_hash(e) for e in entries) == part


def test_hashes_can_be_published_without_the_entries(filled: Path, tmp_path: Path) -> None:
    export_tiles(filled / "gridgate.db", tmp_path, entries=False)
    assert not (tmp_path / "tile/entries").exists()


# --- signing on the way ---------------------------------------------------------------------


def test_a_growing_log_is_signed_while_it_runs(tmp_path: Path) -> None:
    now = Now()
    store = a_store(tmp_path, now=now)
    store.open_site(DEPOT)
    store.commit(a_unit(1)).result(WAIT_S)
    now.advance(timedelta(seconds=1))
    # A lazy unit makes the thread turn once more, more than a second after the first head.
    store.commit(a_unit(2, lazy=True)).result(WAIT_S)
    store._units.submit(lambda _c, _l: None).result(WAIT_S)
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        assert reader.head().signed_size >= 2
    store.close()
