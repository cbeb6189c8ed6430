"""A station's connection on the bench: no sockets, commits at once, every output kept."""

from __future__ import annotations

import itertools
import json
from typing import Any

from adapters.ocpp.core import Close, Job, Memory, Note, Options, StationCore, Tools
from adapters.ocpp.core.quirks import Quirk
from adapters.ocpp.diagnosis import diagnose
from adapters.ocpp.session import Received, Send
from adapters.ocpp.wire import Version
from gateway.domain.evidence import Actor
from gateway.ports.gate import Receipt, Verdict
from tests.support.ocpp import T0, a_station

STORED = Receipt(Verdict.STORED)


class Bench:
    """Plays transport: hands jobs back as stored, keeps what was sent, noted and stored.

    ``now`` is the story's instant, ``at`` are monotonic seconds: a test moves both by itself.
    """

    def __init__(
        self,
        version: Version = Version.V16,
        memory: Memory | None = None,
        *,
        quirks: tuple[Quirk, ...] = (),
        **settings: Any,
    ) -> None:
        calls, numbers = itertools.count(1), itertools.count(4711)
        self.memory = memory or Memory()
        self.core = StationCore(
            settings=a_station(**settings),
            version=version,
            generation=7,
            actor=Actor("station", "CP-1"),
            memory=self.memory,
            tools=Tools(lambda: f"own-{next(calls)}", lambda: next(numbers), diagnose, b"k" * 32, quirks),
            options=Options(),
            proven_serial=True,
        )
        self.sent: list[Any] = []
        self.answered: set[str] = set()
        self.events: list[Any] = []
        self.jobs: list[Job] = []
        self.closed: list[Close] = []
        self.receipt = STORED
        self.stores = True
        self.at = 0.0
        self._ids = itertools.count(1)
        self.now = T0
        self.do(self.core.open(T0, 0))

    def do(self, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case Send(text=text):
                    self.sent.append(json.loads(text))
                case Note(events=events):
                    self.events += events
                case Close():
                    self.closed.append(action)
                case Received():
                    self.do(self.core.handle(action, self.now, self.at))
                case Job():
                    self._store(action)

    def _store(self, job: Job) -> None:
        self.jobs.append(job)
        self.core.begin(job)
        if not self.stores:
            self.do(self.core.failed(job, self.now, self.at))
            return
        self.events += job.events
        self.core.stored(job, self.receipt)
        self.do(self.core.done(job, self.receipt, self.now, self.at))

    def call(self, action: str, payload: dict) -> Any:
        """The station calls; the answer frame, if one came."""
        before = len(self.sent)
        name = f"st-{next(self._ids)}"
        self.do(self.core.receive(json.dumps([2, name, action, payload]), self.now, self.at))
        return next((frame for frame in self.sent[before:] if frame[1] == name), None)

    def answer(self, payload: dict) -> None:
        """The station answers the last CALL of ours."""
        asked = [frame for frame in self.sent if frame[0] == 2][-1]
        self.answered.add(asked[1])
        self.do(self.core.receive(json.dumps([3, asked[1], payload]), self.now, self.at))

    def fault(self, code: str) -> None:
        """The station answers the last CALL of ours with a CALLERROR."""
        asked = [frame for frame in self.sent if frame[0] == 2][-1]
        self.answered.add(asked[1])
        self.do(self.core.receive(json.dumps([4, asked[1], code, "", {}]), self.now, self.at))

    def open(self) -> Any:
        """The CALL of ours that waits for its answer, or None."""
        asked = [frame for frame in self.sent if frame[0] == 2 and frame[1] not in self.answered]
        return asked[-1] if asked else None

    def tick(self, at: float) -> None:
        self.at = at
        self.do(self.core.tick(self.now, at))

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def asked(self) -> list[str]:
        return [frame[2] for frame in self.sent if frame[0] == 2]
