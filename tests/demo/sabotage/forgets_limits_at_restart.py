"""The gateway that rebuilds its state without the envelopes."""

import sys
from dataclasses import replace
from typing import Any

from gateway import runtime
from gateway.cli import main

_decode_state = runtime.decode_state


def _forget(loaded: Any) -> Any:
    return replace(_decode_state(loaded), envelopes={})


runtime.decode_state = _forget  # the sabotage
sys.exit(main())
