"""What was promised, judged against what physically flows. Imports nothing of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from tests.property.fleet_model import FAR, NEVER, Announcement, Judge

CALL_S = 45.0
"""A CALL that gets no answer blocks a station's line for 30 s; a proof is waited for 5 s, twice."""

KEPT_S = 60.0
"""A gap is bridged with the last value for so long."""


@dataclass
class Word(Announcement):
    """A limit that was told: on its way since ``sent_at``, taken at the latest at ``done_at``.

    ``known_at`` is when its sender was told that it is known; never, if nobody told.
    """

    sent_at: float = NEVER
    done_at: float = FAR


@dataclass
class Oracle(Judge):
    """The judge of the property tests, for words that overtake each other."""

    def _due(self, now: float) -> list[Announcement]:
        """What must hold: nothing that may have been taken after it allows more."""
        covering = [said for said in self.said if said.start <= now < said.end]
        out: list[Announcement] = []
        for said in covering:
            later = [other for other in covering if other is not said and other.key == said.key and _after(other, said)]
            if all(other.value <= said.value for other in later) and self._in_time(said, now):
                out.append(said)
        return out

    def trouble(self, now: float) -> None:
        """Something was lost, late or dead: it may take a call to be noticed."""
        self.trouble_at = max(self.trouble_at, now + CALL_S)


def _after(other: Announcement, said: Announcement) -> bool:
    """Whether ``other`` may have been taken after ``said``."""
    if isinstance(other, Word) and isinstance(said, Word):
        return other.done_at > said.sent_at
    return other.known_at > said.known_at
