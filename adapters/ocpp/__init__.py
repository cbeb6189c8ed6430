"""OCPP 1.6J and 2.0.1: the charging station management system's side of the line."""

from __future__ import annotations

from typing import Any

from gateway.ports.adapter import AdapterContext, Running

__all__ = ["ADAPTER", "OcppAdapter", "sources"]


class OcppAdapter:
    """Manifest. Options: ``heartbeat_s``, ``meter_interval_s``, ``assumed_periods``, ``quirks_file``."""

    name = "ocpp"
    versions = ("1.6", "2.0.1")
    roles = ("csms",)

    def open(self, context: AdapterContext) -> Running:
        """Wire it up; no I/O before ``start``.

        Raises:
            ConfigError: a station names no listener, or a profile that the listener cannot keep.
        """
        from adapters.ocpp.transport import OcppRunning

        return OcppRunning(context)

    def demo_peer(self, role: str) -> Any:
        """The class of the simulated station, for the role ``station``.

        Raises:
            KeyError: no such role.
        """
        from adapters.ocpp.peer import SimulatedStation

        return {"station": SimulatedStation}[role]


def sources() -> dict[str, bytes]:
    """Generated modules: path from the repository's root to content (see ``gateway.resources``)."""
    from adapters.ocpp import codegen

    return codegen.schemas()


ADAPTER = OcppAdapter()
