"""The meters of a story: they post what physically flows to the gateway, each with its certificate."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta

from gateway.domain.errors import GatewayError
from gateway.domain.timeline import rfc3339
from gateway.kit.http_client import HttpCaller
from gateway.ports.adapter import ClientIdentity
from gateway.ports.clock import Clock

EVERY_S = 5.0
"""Story seconds between two readings, as fast electricity meters report."""


class Meter:
    """One meter at one node. ``read`` gives its quantities (integers in the unit of their name)."""

    def __init__(
        self, node: str, identity: ClientIdentity, url: str, site: str, read: Callable[[datetime], dict[str, int]]
    ) -> None:
        self.node = node
        self.posted = 0
        self.refusals: list[tuple[datetime, datetime, str]] = []
        """Readings that were not taken: when each was sent, when that was clear, and why."""
        self._url = f"{url}/v1/sites/{site}/measurements"
        self._read = read
        host = url.partition("://")[2]
        self._caller = HttpCaller(identity, url_hosts=(host,), allow_private=True)

    async def run(self, clock: Clock) -> None:
        """Post for ever. A reading that does not get through is counted and gone, as with real meters."""
        while True:
            due = clock.now() + timedelta(seconds=EVERY_S)
            await self.post(clock)
            await clock.sleep_until(due)

    async def post(self, clock: Clock) -> None:
        """Post one reading."""
        now = clock.now()
        rows = [
            {"node": self.node, "quantity": name, "value": value, "measured_at": rfc3339(now)}
            for name, value in self._read(now).items()
        ]
        body = json.dumps({"measurements": rows}).encode()
        try:
            answer = await self._caller.post(self._url, headers={"Content-Type": "application/json"}, content=body)
        except GatewayError as problem:
            self.refusals.append((now, clock.now(), str(problem)))
            return
        if answer.status < 300:
            self.posted += 1
        else:
            text = f"HTTP {answer.status} {answer.body[:200].decode(errors='replace')}"
            self.refusals.append((now, clock.now(), text))

    async def close(self) -> None:
        """Hang up."""
        await self._caller.aclose()
