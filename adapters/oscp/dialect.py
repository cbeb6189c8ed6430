"""What real peers do differently, as data: ``dialects/*.yaml``, read from the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, tzinfo
from functools import cache
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ruamel.yaml import YAML

from gateway.domain.errors import ConfigError, ConfigProblem
from gateway.domain.timeline import rfc3339
from gateway.ports.grid import PeerSettings

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "request_id": ("required", "synthesise"),
    "times_without_zone": ("refuse", "local"),
    "liveness": ("heartbeat", "forecast"),
    "heartbeat_time": ("rfc3339", "local_seconds"),
    "acknowledge_body": ("full", "interval", "empty"),
    "measurement_unit": ("WH", "KWH"),
    "onboarding": ("register", "provisioned"),
    "registration_start": ("cp", "fp"),
    "handshake_start": ("cp", "fp"),
    "scheme": ("Token", "Bearer"),
    "metering": ("group", "asset"),
    "asset_unit": ("W", "KW"),
    "asset_category": ("CHARGING", "CONSUMPTION", "GENERATION", "STORAGE"),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One peer's profile. Every default is the standard's; the files explain each switch."""

    name: str = "standard"
    summary: str = ""
    request_id: str = "required"
    times_without_zone: str = "refuse"
    numeric_strings: bool = False
    handshake_required: bool = False
    liveness: str = "heartbeat"
    silence_limit_s: int = 1_800
    heartbeat_interval_s: int = 60
    heartbeat_time: str = "rfc3339"
    acknowledge_body: str = "full"
    measurement_unit: str = "WH"
    onboarding: str = "register"
    registration_start: str = "cp"
    handshake_start: str = "cp"
    scheme: str = "Token"
    metering: str = "group"
    asset_unit: str = "W"
    asset_category: str = "CHARGING"
    paths: Mapping[str, str] = field(default_factory=dict)
    zone: tzinfo = UTC

    def path(self, endpoint: str) -> str:
        """How this peer spells an endpoint's path segment."""
        return self.paths.get(endpoint, endpoint)

    def naive_zone(self) -> tzinfo | None:
        """Zone of times without one; None refuses them."""
        return self.zone if self.times_without_zone == "local" else None

    def heartbeat_text(self, instant: datetime) -> str:
        """``offline_mode_at`` as this peer reads it, in whole seconds."""
        whole = instant.replace(microsecond=0)
        if self.heartbeat_time == "rfc3339":
            return rfc3339(whole)
        return whole.astimezone(self.zone).strftime("%Y-%m-%d %H:%M:%S")


def names() -> tuple[str, ...]:
    """The profiles that ship."""
    folder = files(__package__) / "dialects"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def dialect_of(peer: PeerSettings) -> Dialect:
    """The peer's profile with the peer's own options laid over it.

    Options that are known switches override the file; ``time_zone`` names an IANA zone.

    Raises:
        ConfigError: no such profile, or a value that a switch does not have.
    """
    if peer.dialect not in names():
        raise _wrong(peer, "dialect", peer.dialect, f"one of {', '.join(names())}")
    switches = {f.name for f in fields(Dialect)} - {"name", "summary", "paths", "zone"}
    values = dict(_load(peer.dialect))
    values.update({k: v for k, v in peer.options.items() if k in switches})
    for key, allowed in _CHOICES.items():
        if key in values and values[key] not in allowed:
            raise _wrong(peer, key, str(values[key]), f"one of {', '.join(allowed)}")
    for key in ("heartbeat_interval_s", "silence_limit_s"):
        if int(values.get(key, 1)) < 1:
            raise _wrong(peer, key, str(values[key]), "1 or more seconds")
    return Dialect(**{**values, "name": peer.dialect, "zone": _zone(peer)})


@cache
def _load(name: str) -> Mapping[str, Any]:
    text = (files(__package__) / "dialects" / f"{name}.yaml").read_text("utf-8")
    loaded: dict[str, Any] = YAML(typ="safe").load(text)
    return loaded


def _zone(peer: PeerSettings) -> tzinfo:
    name = str(peer.options.get("time_zone", "UTC"))
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as problem:
        raise _wrong(peer, "time_zone", name, "an IANA zone name") from problem


def _wrong(peer: PeerSettings, key: str, found: str, expected: str) -> ConfigError:
    where = f"peers[{peer.id}].{key}"
    return ConfigError((ConfigProblem("oscp.peer", "", 0, where, f"expected {expected}", found),))
