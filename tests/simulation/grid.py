"""A grid party with bad days: the adapter's simulated Capacity Provider on a line in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from adapters.oscp.peer import FORECAST, ForecastBlock, SimulatedDso
from adapters.oscp.peer import _forecast as forecast_message
from adapters.oscp.wire import ForecastType
from gateway.domain.errors import PeerTimeout, PeerUnreachable, ProtocolViolation
from gateway.ports.clock import Clock
from tests.simulation.line import HttpLine

GROUP = "DEPOT-7"
TOKEN = "onboarding-token-of-the-dso"
AGAIN_S = (1.0, 5.0)


class Dso(SimulatedDso):
    """Says a thing until it is acknowledged, under one id."""

    def __init__(self, clock: Clock, line: HttpLine, pause: Callable[[float, float], Any]) -> None:
        super().__init__(fp_url="http://gateway", token=TOKEN, clock=clock)
        self.url = "http://dso"
        self.app = self._app
        self.refusals: list[str] = []
        self.acknowledged: list[str] = []
        self._memory = line
        self._pause = pause

    def _line(self) -> Any:
        return self._memory

    async def join(self) -> None:
        """Register and shake hands, while all is well."""
        await self.register()
        await self.handshake()

    async def tell(self, type_: ForecastType, blocks: list[ForecastBlock]) -> str:
        """Tell a forecast until it is acknowledged; its id, empty when it was refused."""
        request_id = secrets.token_urlsafe(16)
        message = forecast_message(GROUP, type_, blocks)
        while True:
            try:
                await self.send(FORECAST, message, request_id=request_id)
            except (PeerTimeout, PeerUnreachable):
                await self._pause(*AGAIN_S)
            except ProtocolViolation as problem:
                if not problem.code.startswith("oscp.http-5"):
                    self.refusals.append(str(problem))
                    return ""
                await self._pause(*AGAIN_S)
            else:
                self.acknowledged.append(request_id)
                return request_id

    async def beat(self, offline_after_s: float) -> bool | None:
        """One heartbeat; whether it was taken, None where that is not known."""
        try:
            await self.heartbeat(offline_after_s)
        except PeerTimeout:
            return None
        except (PeerUnreachable, ProtocolViolation) as problem:
            if problem.code.startswith("oscp.http-4"):
                self.refusals.append(str(problem))
            return False
        return True
