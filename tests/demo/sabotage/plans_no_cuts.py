"""The gateway with an actuator that sends the first value of every schedule alone, without end."""

import sys
from typing import Any

from msgspec.structs import replace

from adapters.ocpp.transport import OcppRunning
from gateway.cli import main
from gateway.domain.schedule import constant

_apply = OcppRunning.apply


def _flatten(self: OcppRunning, command: Any) -> None:
    _apply(self, replace(command, schedule=constant(command.schedule.steps[0].limit_w)))


OcppRunning.apply = _flatten  # type: ignore[method-assign]  # the sabotage
sys.exit(main())
