"""What a committed unit means: all of it or nothing, in order, once, and there after reopening."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.domain.effects import OutboxItem, Record
from gateway.domain.errors import StoreError
from gateway.domain.evidence import RawRef, sha256_hex
from gateway.domain.ids import EvidenceId, NodeId, PeerId, SiteId
from gateway.domain.measurement import Measurement, Quality, Quantity
from gateway.infra.evidence_read import EvidenceReader
from gateway.infra.evidence_verify import verify_log
from gateway.infra.store_sql import SqliteStore
from gateway.infra.store_sql.connection import connect_telemetry
from gateway.infra.store_sql.main_file import KEEP
from gateway.infra.store_sql.samples import SampleFile
from gateway.ports.gate import AdapterRow, Inbound
from gateway.ports.store import CommitUnit, EncodedRow, InboxHit, Journal, OutboxUpdate
from tests.support.store import DEPOT, NOON, WAIT_S, Now, a_draft, a_store, a_unit

DSO = PeerId("dso")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = a_store(tmp_path)
    opened.open_site(DEPOT)
    yield opened
    opened.close()


def put(store: SqliteStore, unit: CommitUnit) -> tuple[EvidenceId, ...]:
    return store.commit(unit).result(WAIT_S)


def refusal(store: SqliteStore, unit: CommitUnit) -> str:
    problem = store.commit(unit).exception(WAIT_S)
    assert isinstance(problem, StoreError)
    return problem.code


def a_message(message_id: str = "m-1", body: bytes = b'{"limit":1}', **fields: object) -> Inbound:
    return Inbound(DSO, "forecast", message_id, body, NOON, answer=b"told", **fields)  # type: ignore[arg-type]  # builder


def a_fact(id_: str = "out-1") -> OutboxItem:
    return OutboxItem(id_, DSO, "measurements", {"w": 42}, correlation="m-1", cause=(EvidenceId("evd_depot_1"),))


# --- a unit ---------------------------------------------------------------------------------


def test_everything_of_a_unit_is_there_after_reopening(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    assert store.open_site(DEPOT).cold
    record = Record(sha256_hex(b"plan"), "text/plain", b"plan")
    unit = a_unit(
        1, inbounds=[a_message()], outbox=[a_fact()], adapter_rows=[AdapterRow("oscp", "token", b"t")], records=[record]
    )
    assert put(store, unit) == ("evd_depot_1",)
    store.close()

    store = a_store(tmp_path)
    loaded = store.open_site(DEPOT)
    assert (loaded.seq, loaded.epoch, loaded.cold) == (1, 2, False)
    assert loaded.sections == {"demo": {"seq": b"1"}}
    assert loaded.adapter_rows == {("oscp", "token"): b"t"}
    assert [(row.item, row.attempts) for row in loaded.outbox] == [(a_fact(), 0)]
    assert store.inbox(DSO, "forecast", "m-1") == InboxHit(sha256_hex(b'{"limit":1}'), b"told")
    store.close()
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        kept = reader.raw(record.sha256)
        assert kept is not None and kept.data == b"plan"


def test_a_message_with_a_secret_is_remembered_by_its_digest_alone(store: SqliteStore, tmp_path: Path) -> None:
    body = b'{"token":"only-for-the-two-of-us"}'
    put(store, a_unit(1, inbounds=[a_message("m-secret", body, has_secret=True)]))
    assert store.inbox(DSO, "forecast", "m-secret") == InboxHit(sha256_hex(body), b"told")
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        assert reader.raw(sha256_hex(body)) is None
    assert not [f.name for f in tmp_path.iterdir() if b"only-for-the-two-of-us" in f.read_bytes()]


def test_a_row_without_value_is_deleted(store: SqliteStore, tmp_path: Path) -> None:
    put(store, a_unit(1, adapter_rows=[AdapterRow("oscp", "token", b"t")]))
    put(store, a_unit(2, rows=[EncodedRow("demo", "seq", None)], adapter_rows=[AdapterRow("oscp", "token", None)]))
    loaded = store.open_site(DEPOT)
    assert (loaded.sections, loaded.adapter_rows) == ({}, {})


def test_a_unit_that_skips_a_number_is_fenced(store: SqliteStore) -> None:
    assert refusal(store, a_unit(2)) == "store.fenced"
    put(store, a_unit(1))
    assert refusal(store, a_unit(1)) == "store.fenced"


@pytest.mark.parametrize("seq", [1, 0])
def test_who_was_replaced_writes_nothing_more(store: SqliteStore, seq: int) -> None:
    store.open_site(DEPOT)
    assert refusal(store, a_unit(seq, epoch=1)) == "store.fenced"
    put(store, a_unit(seq, epoch=2))


def test_a_site_that_nobody_opened_takes_nothing(store: SqliteStore) -> None:
    assert refusal(store, a_unit(1, site=SiteId("elsewhere"))) == "store.fenced"


def test_a_failing_unit_takes_its_successors_along_and_nobody_else(store: SqliteStore) -> None:
    other = SiteId("quay")
    store.open_site(other)
    too_large = a_draft("large", body={"text": "x" * 60_000})
    futures = [
        store.commit(a_unit(1, lazy=True)),
        store.commit(a_unit(2, evidence=[too_large], lazy=True)),
        store.commit(a_unit(1, site=other, lazy=True)),
        store.commit(a_unit(3)),
    ]
    problems = [f.exception(WAIT_S) for f in futures]
    codes = [p.code if isinstance(p, StoreError) else p for p in problems]
    assert codes == [None, "store.entry-too-large", None, "store.fenced"]
    assert store.head().size == 3  # the log's start and the two good ones


def test_a_failed_unit_leaves_no_trace(store: SqliteStore, tmp_path: Path) -> None:
    put(store, a_unit(1, inbounds=[a_message()]))
    again = a_unit(2, inbounds=[a_message()], outbox=[a_fact()])
    assert refusal(store, again) == "store.duplicate"
    bad = a_unit(2, evidence=[a_draft("good"), a_draft("bad", body={"w": 1.5})], outbox=[a_fact()])
    assert refusal(store, bad) == "store.refused"
    loaded = store.open_site(DEPOT)
    assert (loaded.seq, loaded.outbox, store.head().size) == (1, (), 2)
    store.close()
    assert verify_log(tmp_path / "gridgate.db").ok


def test_a_record_under_a_wrong_digest_is_refused(store: SqliteStore) -> None:
    assert refusal(store, a_unit(1, records=[Record("00" * 32, "text/plain", b"x")])) == "store.refused"


def test_progress_without_change_of_state_moves_facts_on(store: SqliteStore) -> None:
    put(store, a_unit(1, outbox=[a_fact("out-1"), a_fact("out-2"), a_fact("out-3")]))
    later = NOON + timedelta(seconds=5)
    updates = [OutboxUpdate("out-1", "done", 1, None, ""), OutboxUpdate("out-2", "ready", 3, later, "503")]
    put(store, CommitUnit(DEPOT, 1, 0, NOON, outbox_updates=updates))
    owed = store.open_site(DEPOT).outbox
    assert [(row.item.id, row.attempts, row.not_before) for row in owed] == [("out-2", 3, later), ("out-3", 0, None)]


def test_lazy_units_wait_for_company_and_keep_their_place(store: SqliteStore) -> None:
    lazy = store.commit(a_unit(1, lazy=True))
    assert not lazy.done()
    put(store, a_unit(2))
    assert lazy.result(0) == ("evd_depot_1",)


def test_a_lazy_unit_without_company_is_committed_all_the_same(store: SqliteStore) -> None:
    assert put(store, a_unit(1, lazy=True)) == ("evd_depot_1",)


def test_closing_commits_what_is_queued_and_takes_nothing_more(store: SqliteStore) -> None:
    lazy = store.commit(a_unit(1, lazy=True))
    store.close()
    assert lazy.result(0) == ("evd_depot_1",)
    assert refusal(store, a_unit(2)) == "store.closed"


def test_a_queued_unit_cannot_be_cancelled(store: SqliteStore) -> None:
    lazy = store.commit(a_unit(1, lazy=True))
    assert not lazy.cancel()
    assert lazy.result(WAIT_S) == ("evd_depot_1",)


# --- evidence in a unit ---------------------------------------------------------------------


def test_an_entry_says_who_what_when_and_from_what(store: SqliteStore, tmp_path: Path) -> None:
    digest = sha256_hex(b"{}")
    draft = a_draft(
        "1",
        subject={"peer": "dso", "request_id": "m-1"},
        cause=(EvidenceId("evd_0"),),
        raw=RawRef(digest, 2, "application/json"),
        body={"limit_w": 40_000},
        result="refused",
        reason="too-late",
    )
    put(store, a_unit(1, evidence=[draft]))
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        entry = reader.by_id("evd_1")
    assert entry is not None
    document = dict(entry.document)
    mono = document.pop("mono")
    assert set(mono) == {"boot", "ns"} and mono["ns"].isdigit()
    assert document == {
        "v": 1,
        "id": "evd_1",
        "at": "2026-06-01T12:00:00Z",
        "recorded_at": "2026-06-01T12:00:00Z",
        "site": "depot",
        "site_seq": 1,
        "pseq": 1,
        "type": "test.happened",
        "actor": {"kind": "gateway"},
        "subject": {"peer": "dso", "request_id": "m-1"},
        "cause": ["evd_0"],
        "dir": "int",
        "raw": {"sha256": digest, "bytes": 2, "media": "application/json"},
        "body": {"limit_w": 40_000},
        "result": "refused",
        "reason": "too-late",
    }


def test_the_same_natural_key_makes_one_entry_and_its_citations_follow(store: SqliteStore, tmp_path: Path) -> None:
    assert put(store, a_unit(1, evidence=[a_draft("a", dedup="boot-7")])) == ("evd_a",)
    second = [a_draft("b", dedup="boot-7"), a_draft("c", cause=(EvidenceId("evd_b"),))]
    assert put(store, a_unit(2, evidence=second)) == ("evd_a", "evd_c")
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        assert reader.by_id("evd_b") is None
        assert [e.id for e in reader.causes("evd_c")] == ["evd_a"]


def test_numbers_per_site_and_per_party_are_dense_over_failures(store: SqliteStore, tmp_path: Path) -> None:
    dso = {"peer": "dso"}
    put(store, a_unit(1, evidence=[a_draft("1", subject=dso), a_draft("2")]))
    assert refusal(store, a_unit(2, evidence=[a_draft("3", subject=dso), a_draft("x", body={"w": 0.5})]))
    put(store, a_unit(2, evidence=[a_draft("4", subject=dso)]))
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        numbers = [(e.document["site_seq"], e.document.get("pseq")) for e in reader.tail(3)]
    assert numbers == [(1, 1), (2, None), (3, 2)]


# --- broken disks ---------------------------------------------------------------------------


class Flaky(sqlite3.Connection):
    """Fails the statements that its switch names."""

    fail_on: str | None = None
    after_commit = False

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:  # type: ignore[override]  # narrower on purpose
        if Flaky.fail_on is not None and sql.startswith(Flaky.fail_on):
            if Flaky.after_commit:
                super().execute(sql, *values)
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *values)

    def executemany(self, sql: str, rows: Iterable[object]) -> sqlite3.Cursor:  # type: ignore[override]  # as above
        if Flaky.fail_on is not None and sql.startswith(Flaky.fail_on):
            raise sqlite3.OperationalError("disk I/O error")
        return super().executemany(sql, rows)  # type: ignore[arg-type]  # as above


def flaky(path: Path) -> sqlite3.Connection:
    from gateway.infra.store_sql.connection import prepare_writer

    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Flaky)
    prepare_writer(connection)
    return connection


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    monkeypatch.setattr(Flaky, "fail_on", None)
    monkeypatch.setattr(Flaky, "after_commit", False)
    opened = a_store(tmp_path, connect=flaky)
    opened.open_site(DEPOT)
    yield opened
    Flaky.fail_on = None
    opened.close()
    assert verify_log(tmp_path / "gridgate.db", head_path=tmp_path / "gridgate.head").ok


@pytest.mark.parametrize("statement", ["COMMIT", "BEGIN", "INSERT INTO entry", "UPDATE head", "SAVEPOINT"])
def test_a_failed_commit_is_told_and_the_next_one_starts_from_what_is_there(
    broken: SqliteStore, statement: str
) -> None:
    put(broken, a_unit(1))
    Flaky.fail_on = statement
    assert refusal(broken, a_unit(2)) == "store.not-committed"
    assert refusal(broken, a_unit(2)) == "store.not-committed"
    Flaky.fail_on = None
    assert put(broken, a_unit(2)) == ("evd_depot_2",)


def test_a_commit_that_failed_and_yet_landed_is_not_acknowledged_and_not_repeated(broken: SqliteStore) -> None:
    Flaky.fail_on, Flaky.after_commit = "COMMIT", True
    assert refusal(broken, a_unit(1)) == "store.not-committed"
    Flaky.fail_on = None
    assert refusal(broken, a_unit(1)) == "store.fenced"
    assert broken.open_site(DEPOT).seq == 1


def test_a_full_disk_stops_the_store_until_there_is_room(tmp_path: Path) -> None:
    room = 400

    def small(path: Path) -> sqlite3.Connection:
        connection = flaky(path)
        connection.execute(f"PRAGMA max_page_count={room}")
        return connection

    store = a_store(tmp_path, connect=small)
    store.open_site(DEPOT)
    big = [EncodedRow("demo", "big", os.urandom(2_000_000))]
    put(store, a_unit(1))
    assert refusal(store, a_unit(2, rows=big)) == "store.not-committed"
    assert store.head().size == 2
    put(store, a_unit(2))
    room = 100_000
    store.close()
    store = a_store(tmp_path, connect=small)
    loaded = store.open_site(DEPOT)
    put(store, a_unit(3, epoch=loaded.epoch, rows=big))
    store.close()
    assert verify_log(tmp_path / "gridgate.db").ok


# --- retention ------------------------------------------------------------------------------


def test_message_ids_delivered_facts_and_journal_go_after_seven_days_and_evidence_stays(tmp_path: Path) -> None:
    now = Now()
    store = a_store(tmp_path, now=now)
    store.open_site(DEPOT)
    put(store, a_unit(1, inbounds=[a_message("old")], journal=Journal(NOON, "tick", b"[]"), outbox=[a_fact("old")]))
    put(store, a_unit(0, outbox_updates=[OutboxUpdate("old", "done", 1, None, "")], outbox=[a_fact("owed")]))
    now.advance(KEEP + timedelta(seconds=1))
    fresh = Inbound(DSO, "forecast", "new", b"{}", now())
    put(store, a_unit(2, at=now(), inbounds=[fresh], journal=Journal(now(), "tick", b"[]")))
    store._main.prune()
    assert store.inbox(DSO, "forecast", "old") is None
    assert store.inbox(DSO, "forecast", "new") is not None
    store.close()
    database = sqlite3.connect(tmp_path / "gridgate.db")
    assert database.execute("SELECT seq FROM journal").fetchall() == [(2,)]
    assert database.execute("SELECT id FROM outbox").fetchall() == [("owed",)]
    database.close()
    assert verify_log(tmp_path / "gridgate.db").ok


# --- telemetry ------------------------------------------------------------------------------


def a_sample(value: int, second: int) -> Measurement:
    at = NOON + timedelta(seconds=second)
    return Measurement(NodeId("main/house"), Quantity.P, value, at, at, Quality.GOOD, "meter")


def test_samples_can_be_read_back_in_order_by_time(store: SqliteStore, tmp_path: Path) -> None:
    store.record_samples(DEPOT, [a_sample(300, 3), a_sample(100, 1)]).result(WAIT_S)
    store.record_samples(DEPOT, [a_sample(200, 2), a_sample(900, 9)]).result(WAIT_S)
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        found = reader.samples("main/house", Quantity.P, NOON, NOON + timedelta(seconds=9))
        assert [s.value for s in found] == [100, 200, 300]
        assert [(s.node, s.quantity, s.source) for s in reader.series()] == [("main/house", "power_w", "meter")]


def test_the_first_value_for_an_instant_stays(store: SqliteStore, tmp_path: Path) -> None:
    store.record_samples(DEPOT, [a_sample(100, 1)]).result(WAIT_S)
    store.record_samples(DEPOT, [a_sample(999, 1)]).result(WAIT_S)
    with EvidenceReader(tmp_path / "gridgate.db") as reader:
        assert [s.value for s in reader.samples("main/house", Quantity.P, NOON, NOON + timedelta(1))] == [100]


def test_a_sample_that_no_integer_column_holds_fails_its_batch_and_not_the_next(store: SqliteStore) -> None:
    assert isinstance(store.record_samples(DEPOT, [a_sample(2**70, 1)]).exception(WAIT_S), StoreError)
    store.record_samples(DEPOT, [a_sample(1, 2)]).result(WAIT_S)


def test_samples_of_the_first_schema_are_kept(store: SqliteStore, tmp_path: Path) -> None:
    store.record_samples(DEPOT, [a_sample(300, 3), a_sample(100, 1)]).result(WAIT_S)
    store.close()
    with closing(sqlite3.connect(tmp_path / "gridgate-telemetry.db")) as database:
        database.executescript(
            "CREATE TABLE old(series_id INTEGER NOT NULL, ts_ms INTEGER NOT NULL, value INTEGER NOT NULL,"
            " quality TEXT NOT NULL, received_ms INTEGER NOT NULL,"
            " PRIMARY KEY (series_id, ts_ms)) STRICT, WITHOUT ROWID;"
            "INSERT INTO old SELECT series_id, ts_ms, value, quality, received_ms FROM sample;"
            "DROP TABLE sample; ALTER TABLE old RENAME TO sample; PRAGMA user_version = 1"
        )
    SampleFile(tmp_path / "gridgate-telemetry.db", connect_telemetry).finish()
    with closing(sqlite3.connect(tmp_path / "gridgate-telemetry.db")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
        key = [row[1] for row in database.execute("PRAGMA table_info(sample)") if row[5]]
        assert key == ["ts_ms", "series_id"]
        assert [row[0] for row in database.execute("SELECT value FROM sample ORDER BY ts_ms")] == [100, 300]


# --- files ----------------------------------------------------------------------------------


def test_every_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    a_store(tmp_path).close()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    names = {"gridgate.db", "gridgate-telemetry.db", "gridgate.head", "evidence.key", "gridgate.db.lock"}
    assert modes == dict.fromkeys(names, 0o600)


def test_two_processes_cannot_have_one_store(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        a_store(tmp_path)
    assert caught.value.code == "store.locked"


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        a_store(tmp_path / "nowhere")


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gridgate.db").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError) as caught:
        a_store(tmp_path)
    assert caught.value.code == "store.unreadable"


def test_durability_is_what_the_settings_say(store: SqliteStore) -> None:
    def ask(name: str) -> object:
        return store._main.connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert [ask(n) for n in ("journal_mode", "synchronous", "foreign_keys")] == ["wal", 2, 1]
