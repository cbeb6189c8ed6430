"""OSCP 2.0: gridgate as Flexibility Provider. See README.md in this folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from adapters.oscp.wire import SCHEMAS, VERSION

if TYPE_CHECKING:
    from gateway.ports.adapter import AdapterContext, Running

__all__ = ["ADAPTER", "OscpAdapter", "schemas"]


class OscpAdapter:
    """The manifest; heavy parts are imported when they are used."""

    name = "oscp"
    versions = (VERSION,)
    roles = ("fp",)

    def open(self, context: AdapterContext) -> Running:
        """Wire it up. Option ``key_file``: path of the key under which tokens are kept.

        Raises:
            ConfigError: the settings make no sense to OSCP.
        """
        from adapters.oscp.transport import OscpRunning

        return OscpRunning(context)

    def demo_peer(self, role: str) -> Any:
        """``cp``: the simulated Capacity Provider, a class (see ``peer.py``).

        Raises:
            KeyError: no such role.
        """
        from adapters.oscp.peer import SimulatedDso

        return {"cp": SimulatedDso}[role]


def schemas() -> dict[str, bytes]:
    """JSON Schemas of our own message models: path below ``schemas/`` to the file's bytes."""
    return {f"oscp/{VERSION}/{name}.json": _schema_file(name) for name in SCHEMAS}


def _schema_file(name: str) -> bytes:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **SCHEMAS[name].model_json_schema(mode="validation"),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True).encode() + b"\n"


ADAPTER = OscpAdapter()
