"""Looking for entries by what they are about, their type, verdict and time. Reads a store; prints nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.cli.say import UsageError
from gateway.domain.compliance import Verdict
from gateway.domain.errors import NotUtc
from gateway.domain.timeline import parse_rfc3339
from gateway.infra.evidence_read import EvidenceReader, StoredEntry

PAGE = 1_000
"""Entries looked at in one go."""

MAX_PAGES = 1_000
"""Pages of one search: a million entries."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an entry must be; None asks for nothing. ``[start, end)``."""

    node: str | None = None
    peer: str | None = None
    type: str | None = None
    verdict: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    @classmethod
    def of(
        cls,
        *,
        node: str | None,
        peer: str | None,
        type: str | None,
        verdict: str | None,
        start: str | None,
        end: str | None,
    ) -> Wanted:
        """From the words of a command line.

        Raises:
            UsageError: no instant, an end before its start, or a verdict that no window can have.
        """
        word = verdict.upper() if verdict else None
        if word is not None and word not in set(Verdict):
            raise UsageError(f'--verdict: "{verdict}" is none', hint=f"one of {', '.join(Verdict)}")
        first, last = _instant("--from", start), _instant("--to", end)
        if first is not None and last is not None and last <= first:
            raise UsageError(f"--to {end} is not after --from {start}")
        return cls(node, peer, type, word, first, last)

    def matches(self, entry: StoredEntry) -> bool:
        """Whether an entry is one of those."""
        subject = entry.subject
        return (
            (self.node is None or self.node in (subject.get("node"), subject.get("evse")))
            and (self.peer is None or self.peer in (subject.get("peer"), subject.get("operator")))
            and (self.type is None or entry.type == self.type)
            and (self.verdict is None or str(entry.body.get("verdict", "")).upper() == self.verdict)
            and (self.start is None or entry.at >= self.start)
            and (self.end is None or entry.at < self.end)
        )


def search(reader: EvidenceReader, wanted: Wanted, limit: int) -> tuple[list[StoredEntry], bool]:
    """The newest ``limit`` entries that match, newest first, and whether these are all.

    Raises:
        StoreError: the store cannot be read.
    """
    found: list[StoredEntry] = []
    before: int | None = None
    for _ in range(MAX_PAGES):
        page = _page(reader, wanted, before)
        for entry in page:
            if wanted.matches(entry):
                if len(found) == limit:
                    return found, False
                found.append(entry)
        # Entries stand in the order of their commits; their instants never fall.
        if not page or (wanted.start is not None and page[-1].at < wanted.start):
            return found, True
        before = page[-1].idx
    return found, False


def _page(reader: EvidenceReader, wanted: Wanted, before: int | None) -> list[StoredEntry]:
    """The next entries by the narrowest look-up that there is."""
    if wanted.peer is not None:
        return reader.by_any_subject(wanted.peer, before=before, limit=PAGE)
    if wanted.node is not None:
        return reader.by_any_subject(wanted.node, before=before, limit=PAGE)
    if wanted.type is not None:
        return reader.by_type(wanted.type, before=before, limit=PAGE)
    return reader.newest(before=before, limit=PAGE)


def _instant(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_rfc3339(text)
    except (ValueError, NotUtc) as problem:
        raise UsageError(f'{option}: "{text}" is no instant: {problem}', hint="as in 2026-11-25T17:30:00Z") from problem
