"""The glue of one station's connection: session and translation, without I/O."""

from __future__ import annotations

from adapters.ocpp.core.actions import ADAPTER, Action, Close, Job, Memory, Note, Options, Purpose, Tools
from adapters.ocpp.core.intake import OpenTransaction
from adapters.ocpp.core.station import Phase, StationCore

__all__ = [
    "ADAPTER",
    "Action",
    "Close",
    "Job",
    "Memory",
    "Note",
    "OpenTransaction",
    "Options",
    "Phase",
    "Purpose",
    "StationCore",
    "Tools",
]
