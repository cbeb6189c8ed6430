"""The stage of a story: a folder with throw-away certificates, secrets and a ``site.yaml``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gateway.pki.dev import DevPki, make_dev_pki

DSO = "dso"
"""Name of the grid party in the configuration, and of its certificate."""

LISTENERS = ("grid", "ocpp", "admin")

TOKEN_BYTES = 48
"""Length of the token that both sides are given before they register (OSCP 2.0, token A)."""


@dataclass(frozen=True, slots=True)
class StationPlan:
    """A station of the story. ``version`` as its adapter names it; currents in A."""

    id: str
    node: str
    version: str
    min_a: int = 6
    max_a: int = 32
    safe_share_w: int = 4_600

    @property
    def serial(self) -> str:
        """What its certificate's common name says."""
        return f"SN-{self.id}"


@dataclass(frozen=True, slots=True)
class SitePlan:
    """A site as its operator would describe it. ``nodes`` are rows of ``site.yaml``, EVSEs aside."""

    id: str
    group: str
    root: str
    nodes: Sequence[Mapping[str, Any]]
    stations: Sequence[StationPlan]
    meters: Sequence[str]
    operator_domain: str = "example.org"

    def static_limits(self) -> dict[str, float | None]:
        """Limits that the operator configured, W, by node."""
        return {str(node["path"]): node.get("import_max_w") for node in self.nodes}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything lies. ``token`` is the secret of the first registration."""

    folder: Path
    pki: DevPki
    token: str

    @property
    def site_file(self) -> Path:
        """The configuration."""
        return self.folder / "site.yaml"

    @property
    def store(self) -> Path:
        """The gateway's database."""
        return self.folder / "gridgate.db"


def build_stage(folder: Path, plan: SitePlan) -> Stage:
    """Make certificates and secrets in ``folder``, which must be readable by us alone.

    Raises:
        ConfigError: a name in ``plan`` that no certificate can carry.
    """
    folder.chmod(0o700)
    pki = make_dev_pki(
        folder / "pki",
        site=plan.id,
        now=datetime.now(UTC),
        parties=(DSO,),
        stations=[(s.id, s.serial) for s in plan.stations],
        meters=[meter_name(node) for node in plan.meters],
    )
    stage = Stage(folder, pki, secrets.token_urlsafe(TOKEN_BYTES))
    (folder / "secrets").mkdir(mode=0o700, exist_ok=True)
    token_file = folder / "secrets" / "dso.token"
    token_file.touch(mode=0o600)
    token_file.write_text(stage.token + "\n", encoding="ascii")
    return stage


def write_site(stage: Stage, plan: SitePlan, *, dso_host: str, ports: Mapping[str, int] | None = None) -> None:
    """Write ``site.yaml``. ``dso_host``: host and port that the gateway may call for the DSO.

    ``ports`` by listener; any free ones without it.
    """
    yaml = YAML()
    yaml.default_flow_style = None
    with stage.site_file.open("w", encoding="utf-8") as file:
        yaml.dump(_document(stage, plan, dso_host, ports or {}), file)


def meter_name(node: str) -> str:
    """A node's meter as certificates name it."""
    return node.replace("/", "-")


def _document(stage: Stage, plan: SitePlan, dso_host: str, ports: Mapping[str, int]) -> dict[str, Any]:
    return {
        "site": {"id": plan.id, "timezone": "UTC", "operator_domain": plan.operator_domain},
        "nodes": [dict(node) for node in plan.nodes],
        "evses": [_evse(station) for station in plan.stations],
        "stations": [{"id": s.id, "serial": s.serial, "listener": "ocpp", "profile": 3} for s in plan.stations],
        "peers": [
            {
                "id": DSO,
                "adapter": "oscp",
                "listener": "grid",
                "certificate": {"san_uri": f"urn:gridgate:party:{DSO}"},
                "dialect": "standard",
                "token": "file:secrets/dso.token",
                "url_hosts": [dso_host],
                "allow_private": True,
            }
        ],
        "bindings": [
            {
                "peer": DSO,
                "group": plan.group,
                "node": plan.root,
                "on_loss": "fallback_now",
                "gap_grace_s": 60,
                "recover_s": 60,
                "demands_envelope": True,
                "window_s": 60,
            }
        ],
        "meters": [{"node": n, "principal": f"urn:gridgate:meter:{meter_name(n)}"} for n in plan.meters],
        "listeners": {name: _listener(stage, name, ports.get(name, 0)) for name in LISTENERS},
        "client": {"grid": _client(stage)},
        "adapters": {"oscp": {"key_file": "secrets/oscp.key"}},
        "store": {"path": "gridgate.db", "head": "gridgate.head", "key": "gridgate-evidence.key"},
    }


def _evse(station: StationPlan) -> dict[str, Any]:
    return {
        "node": station.node,
        "station": station.id,
        "number": 1,
        "phases": ["L1", "L2", "L3"],
        "min_a": station.min_a,
        "max_a": station.max_a,
        "safe_share_w": station.safe_share_w,
    }


def _listener(stage: Stage, name: str, port: int) -> dict[str, Any]:
    settings = stage.pki.settings(name)
    files = {"certificate": settings.certificate, "key": settings.key, "client_ca": settings.client_ca}
    return {
        "host": settings.host,
        "port": port,
        "trust": settings.trust.value,
        "policy": settings.policy,
        **{key: _relative(stage, path) for key, path in files.items()},
    }


def _client(stage: Stage) -> dict[str, Any]:
    identity = stage.pki.client
    files = {"certificate": identity.certificate, "key": identity.key, "server_ca": identity.server_ca}
    return {key: _relative(stage, path) for key, path in files.items()}


def _relative(stage: Stage, path: Path | None) -> str:
    if path is None:
        raise ValueError("a mutual-TLS identity without one of its files")
    return str(path.relative_to(stage.folder.absolute()))
