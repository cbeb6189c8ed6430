import asyncio
from datetime import UTC, datetime

import pytest

from gateway.domain.errors import StoreError
from gateway.domain.ids import PeerId, SiteId
from gateway.ports.gate import AdapterRow, Inbound, SiteGate, Verdict
from gateway.ports.store import CommitUnit, EncodedRow, Store
from gateway.testing.fakes import FakeGate, FakeStore

NOW = datetime(2031, 3, 1, tzinfo=UTC)
DEPOT = SiteId("depot")


def a_message(body: bytes = b"{}", message_id: str = "q1") -> Inbound:
    return Inbound(PeerId("dso"), "forecast", message_id, body, NOW, answer=b"7")


def a_unit(seq: int, epoch: int = 1, value: bytes | None = b"1") -> CommitUnit:
    return CommitUnit(DEPOT, epoch, seq, NOW, rows=(EncodedRow("grants", "a", value),))


def test_the_gate_answers_a_repetition_alike_and_a_changed_body_with_a_conflict() -> None:
    gate: SiteGate = FakeGate()

    async def scene() -> list[Verdict]:
        bodies = (b"{}", b"{}", b"{1}")
        return [(await gate.submit([], inbound=a_message(body))).verdict for body in bodies]

    assert asyncio.run(scene()) == [Verdict.STORED, Verdict.DUPLICATE, Verdict.CONFLICT]


def test_a_broken_gate_never_lets_anybody_acknowledge() -> None:
    gate = FakeGate(broken=True)
    with pytest.raises(StoreError):
        asyncio.run(gate.submit([], inbound=a_message()))
    with pytest.raises(StoreError):
        asyncio.run(gate.measure([]))


def test_adapter_rows_are_kept_per_adapter_and_deleted_by_none() -> None:
    gate = FakeGate()
    asyncio.run(gate.submit([], rows=[AdapterRow("oscp", "token/a", b"x"), AdapterRow("ocpp", "token/b", b"y")]))
    assert gate.adapter_rows("oscp", "token/") == {"token/a": b"x"}
    asyncio.run(gate.submit([], rows=[AdapterRow("oscp", "token/a", None)]))
    assert gate.adapter_rows("oscp") == {}


def test_a_reopened_store_gives_back_what_was_committed_under_a_new_epoch() -> None:
    store: Store = FakeStore()
    assert store.open_site(DEPOT).cold
    store.commit(a_unit(1)).result(0)
    loaded = store.open_site(DEPOT)
    assert (loaded.seq, loaded.epoch, loaded.sections) == (1, 2, {"grants": {"a": b"1"}})


@pytest.mark.parametrize("unit", [a_unit(2), a_unit(1, epoch=0)])
def test_a_unit_out_of_order_or_of_an_old_life_is_refused(unit: CommitUnit) -> None:
    store = FakeStore()
    store.open_site(DEPOT)
    with pytest.raises(StoreError):
        store.commit(unit).result(0)


def test_a_held_commit_resolves_only_on_release() -> None:
    store = FakeStore(held=True)
    store.open_site(DEPOT)
    future = store.commit(a_unit(1))
    assert not future.done()
    store.release()
    assert future.result(0) == ()
