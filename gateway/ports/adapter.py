"""What the runtime starts and stops, and what it lends to it. Found by entry point.

A third party's adapter implements :class:`Adapter` in a package of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gateway.domain.ids import SiteId
from gateway.domain.topology import Tree
from gateway.ports.clock import Clock
from gateway.ports.fleet import LimitActuator, StationOperator, StationSettings
from gateway.ports.gate import SiteGate
from gateway.ports.grid import FactCarrier, GroupBinding, PeerOperator, PeerSettings

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Trust(StrEnum):
    """How a listener knows its peers."""

    MTLS = "mtls"
    SERVER_TLS = "server_tls"
    INSECURE = "insecure"


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One listener = one trust domain = one trust store. Paths are absolute.

    ``insecure`` listeners speak plain TCP and are refused outside loopback. ``port`` 0 takes a
    free one. ``policy`` names a TLS policy of ``gateway.kit.tls``.
    """

    name: str
    host: str
    port: int
    trust: Trust
    policy: str = "ocpp"
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    public_url: str = ""


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """What we show when we call out: our certificate, and whom we trust as a server."""

    certificate: Path | None = None
    key: Path | None = None
    server_ca: Path | None = None


@dataclass(frozen=True)
class AdapterContext:
    """What an adapter may see of the site. ``identity`` is per listener name."""

    site: SiteId
    tree: Tree
    gate: SiteGate
    clock: Clock
    listeners: Mapping[str, ListenerSettings]
    identities: Mapping[str, ClientIdentity]
    peers: Sequence[PeerSettings] = ()
    groups: Sequence[GroupBinding] = ()
    stations: Sequence[StationSettings] = ()
    options: Mapping[str, str | int | bool] = field(default_factory=dict)


class Running(Protocol):
    """An opened adapter.

    ``asgi`` maps a listener's name to the application to mount there (HTTP listeners are run by
    the gateway, with the verified peer in ``scope["extensions"]["gridgate.peer"]``). An adapter
    that needs a transport of its own (OCPP) opens it in ``start`` and reports it in ``ports``.
    """

    @property
    def asgi(self) -> Mapping[str, ASGIApp]: ...

    @property
    def actuator(self) -> LimitActuator | None: ...

    @property
    def carrier(self) -> FactCarrier | None: ...

    @property
    def ports(self) -> Mapping[str, int]: ...

    async def start(self, urls: Mapping[str, str]) -> None:
        """Begin. ``urls``: listener name to its base URL as bound (scheme://host:port)."""
        ...

    async def stop(self, grace_s: float) -> None:
        """End in order: no new work, let running work end for ``grace_s``, close."""
        ...


@runtime_checkable
class Operated(Protocol):
    """A running adapter that can start things with its peers (OSCP: a registration), once started."""

    @property
    def operator(self) -> PeerOperator | None: ...


@runtime_checkable
class Admitting(Protocol):
    """An adapter that remembers stations which nobody configured (OCPP), opened or running."""

    @property
    def admissions(self) -> StationOperator: ...


@runtime_checkable
class Following(Protocol):
    """A running adapter that takes other stations and bindings of the same listeners and peers."""

    def follow(self, context: AdapterContext) -> None:
        """Serve what this context says from now on; ends the lines of stations that are gone or changed.

        The context has passed ``open`` before, so nothing in it can be refused.
        """
        ...


class Adapter(Protocol):
    """The manifest."""

    @property
    def name(self) -> str: ...

    @property
    def versions(self) -> tuple[str, ...]: ...

    @property
    def roles(self) -> tuple[str, ...]: ...

    def open(self, context: AdapterContext) -> Running:
        """Wire it up; no I/O before ``start``.

        Raises:
            ConfigError: the settings make no sense to this adapter.
        """
        ...

    def demo_peer(self, role: str) -> Any:
        """The other side, for the demo and tests: a factory, see the adapter's ``peer.py``."""
        ...
