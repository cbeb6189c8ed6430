"""Fakes of the ports, for tests of adapters and of the runner: in memory, honest, inspectable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from gateway.domain.effects import OutboxItem
from gateway.domain.errors import StoreError
from gateway.domain.events import Event
from gateway.domain.evidence import sha256_hex
from gateway.domain.ids import EvidenceId, NodeId, PeerId, SiteId
from gateway.domain.measurement import Measurement
from gateway.domain.quantities import Watts
from gateway.ports.gate import AdapterRow, EvseView, Inbound, Receipt, Verdict
from gateway.ports.store import CommitUnit, InboxHit, Loaded, LogHead, OutboxRow


@dataclass(frozen=True, slots=True)
class Submission:
    """One call of ``submit``."""

    events: tuple[Event, ...]
    inbound: Inbound | None
    rows: tuple[AdapterRow, ...]
    outbox: tuple[OutboxItem, ...]


@dataclass
class FakeGate:
    """Implements ``gateway.ports.gate.SiteGate``. Deduplicates as the real one does.

    ``broken`` makes every durable call fail; ``views`` are what ``evse`` answers; ``reply``
    overrides the receipt of a submission (None: the honest one).
    """

    submissions: list[Submission] = field(default_factory=list)
    noted: list[Event] = field(default_factory=list)
    samples: list[Measurement] = field(default_factory=list)
    rows: dict[tuple[str, str], bytes] = field(default_factory=dict)
    views: dict[NodeId, EvseView] = field(default_factory=dict)
    broken: bool = False
    reply: Callable[[Submission], Receipt | None] = lambda _submission: None
    _inbox: dict[tuple[PeerId, str, str], InboxHit] = field(default_factory=dict)

    @property
    def events(self) -> list[Event]:
        """Everything submitted with effect and everything noted, submissions first."""
        return [event for s in self.submissions for event in s.events] + self.noted

    async def submit(
        self,
        events: Sequence[Event],
        *,
        inbound: Inbound | None = None,
        rows: Sequence[AdapterRow] = (),
        outbox: Sequence[OutboxItem] = (),
    ) -> Receipt:
        """Record; a repetition and a conflict have no effect."""
        self._check()
        submission = Submission(tuple(events), inbound, tuple(rows), tuple(outbox))
        receipt = self.reply(submission) or self._receive(inbound)
        if receipt.verdict is Verdict.STORED:
            self.submissions.append(submission)
            self._keep(rows)
        return receipt

    def note(self, events: Sequence[Event]) -> None:
        """Record."""
        self.noted.extend(events)

    async def measure(self, samples: Sequence[Measurement]) -> None:
        """Record."""
        self._check()
        self.samples.extend(samples)

    def adapter_rows(self, adapter: str, prefix: str = "") -> dict[str, bytes]:
        """Rows kept so far."""
        return {k: v for (owner, k), v in sorted(self.rows.items()) if owner == adapter and k.startswith(prefix)}

    def evse(self, evse: NodeId) -> EvseView:
        """The view that the test set; one without power by default."""
        return self.views.get(evse, EvseView(evse, Watts(0), Watts(0), None))

    def _check(self) -> None:
        if self.broken:
            raise StoreError("the fake store is broken")

    def _receive(self, inbound: Inbound | None) -> Receipt:
        if inbound is None:
            return Receipt(Verdict.STORED)
        key = (inbound.peer, inbound.endpoint, inbound.message_id)
        hit = self._inbox.get(key)
        if hit is None:
            self._inbox[key] = InboxHit(sha256_hex(inbound.body), inbound.answer)
            return Receipt(Verdict.STORED, inbound.answer)
        same = hit.sha256 == sha256_hex(inbound.body)
        return Receipt(Verdict.DUPLICATE if same else Verdict.CONFLICT, hit.answer if same else b"")

    def _keep(self, rows: Sequence[AdapterRow]) -> None:
        for row in rows:
            if row.value is None:
                self.rows.pop((row.adapter, row.key), None)
            else:
                self.rows[(row.adapter, row.key)] = row.value


@dataclass
class FakeStore:
    """Implements ``gateway.ports.store.Store`` for one site, in memory.

    Commits resolve at once, or with ``held`` when the test calls ``release``; ``broken`` makes
    them fail. The head is a digest over entry ids: enough to see that it moved.
    """

    held: bool = False
    broken: bool = False
    units: list[CommitUnit] = field(default_factory=list)
    samples: list[Measurement] = field(default_factory=list)
    sections: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _epoch: int = 0
    _waiting: list[tuple[CommitUnit, Future[tuple[EvidenceId, ...]]]] = field(default_factory=list)
    _entries: list[EvidenceId] = field(default_factory=list)
    _inbox: dict[tuple[PeerId, str, str], InboxHit] = field(default_factory=dict)
    _outbox: dict[str, OutboxRow] = field(default_factory=dict)
    _adapter_rows: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def open_site(self, site: SiteId) -> Loaded:
        """What was committed so far, under a new epoch."""
        self._epoch += 1
        return Loaded(
            seq=self._seq,
            epoch=self._epoch,
            cold=not self.units,
            sections={name: dict(rows) for name, rows in self.sections.items()},
            outbox=tuple(self._outbox.values()),
            adapter_rows=dict(self._adapter_rows),
        )

    def commit(self, unit: CommitUnit) -> Future[tuple[EvidenceId, ...]]:
        """Queue a unit; applied at once unless ``held``."""
        future: Future[tuple[EvidenceId, ...]] = Future()
        self._waiting.append((unit, future))
        if not self.held:
            self.release()
        return future

    def release(self) -> None:
        """Commit, or refuse, everything that waits, in order."""
        waiting, self._waiting = self._waiting, []
        for unit, future in waiting:
            problem = self._problem(unit)
            if problem:
                future.set_exception(StoreError(problem))
            else:
                future.set_result(self._apply(unit))

    def record_samples(self, site: SiteId, samples: Sequence[Measurement]) -> Future[None]:
        """Keep samples."""
        future: Future[None] = Future()
        if self.broken:
            future.set_exception(StoreError("the fake store is broken"))
        else:
            self.samples.extend(samples)
            future.set_result(None)
        return future

    def inbox(self, peer: PeerId, endpoint: str, message_id: str) -> InboxHit | None:
        """A committed message."""
        return self._inbox.get((peer, endpoint, message_id))

    def head(self) -> LogHead:
        """Size, and a digest that moves with every entry."""
        return LogHead(len(self._entries), hashlib.sha256("\n".join(self._entries).encode()).hexdigest())

    def close(self) -> None:
        """Finish what waits."""
        self.release()

    @property
    def _seq(self) -> int:
        return max((u.seq for u in self.units), default=0)

    def _problem(self, unit: CommitUnit) -> str:
        if self.broken:
            return "the fake store is broken"
        if unit.epoch < self._epoch:
            return f"epoch {unit.epoch} is older than {self._epoch}"
        if unit.seq and unit.seq != self._seq + 1:
            return f"unit {unit.seq} does not follow {self._seq}"
        return ""

    def _apply(self, unit: CommitUnit) -> tuple[EvidenceId, ...]:
        self.units.append(unit)
        for row in unit.rows:
            section = self.sections.setdefault(row.section, {})
            if row.value is None:
                section.pop(row.key, None)
            else:
                section[row.key] = row.value
        for kept in unit.adapter_rows:
            if kept.value is None:
                self._adapter_rows.pop((kept.adapter, kept.key), None)
            else:
                self._adapter_rows[(kept.adapter, kept.key)] = kept.value
        self._outbox.update({item.id: OutboxRow(item, 0, item.not_before) for item in unit.outbox})
        for update in unit.outbox_updates:
            row_ = self._outbox.pop(update.id, None)
            if row_ is not None and update.status == "ready":
                self._outbox[update.id] = OutboxRow(row_.item, update.attempts, update.not_before)
        for got in unit.inbounds:
            self._inbox[(got.peer, got.endpoint, got.message_id)] = InboxHit(sha256_hex(got.body), got.answer)
        ids = tuple(draft.id for draft in unit.evidence)
        self._entries.extend(ids)
        return ids
