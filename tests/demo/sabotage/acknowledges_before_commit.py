"""The gateway with a runner that answers at once and commits half a second later."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from gateway.cli import main
from gateway.infra.runner import Runner
from gateway.ports.gate import Inbound, Receipt, Verdict

DELAY_S = 0.5
_submit = Runner.submit
_late: set[asyncio.Task[Receipt]] = set()


async def _later(runner: Runner, events: Sequence[Any], inbound: Inbound, rest: dict[str, Any]) -> Receipt:
    await asyncio.sleep(DELAY_S)
    return await _submit(runner, events, inbound=inbound, **rest)


async def _answer_first(self: Runner, events: Sequence[Any], *, inbound: Inbound | None = None, **rest: Any) -> Receipt:
    if inbound is None or "forecast" not in inbound.endpoint:
        return await _submit(self, events, inbound=inbound, **rest)
    task = asyncio.create_task(_later(self, events, inbound, rest))
    _late.add(task)
    task.add_done_callback(_late.discard)
    return Receipt(Verdict.STORED, inbound.answer)


Runner.submit = _answer_first  # type: ignore[method-assign]  # the sabotage
sys.exit(main())
