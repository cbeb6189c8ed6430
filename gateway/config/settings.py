"""What a loaded ``site.yaml`` is. Holds secrets of peers: never print a whole one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.domain.ids import NodeId, SiteId
from gateway.domain.sharing import Policy
from gateway.domain.topology import Tree
from gateway.ports.adapter import ClientIdentity, ListenerSettings
from gateway.ports.fleet import StationSettings
from gateway.ports.grid import GroupBinding, PeerSettings


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Database, last signed head, and the evidence log's key. Absolute paths."""

    path: Path
    head: Path
    key: Path


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """One site. ``sha256`` is that of the file's bytes, in hex.

    ``identities`` are by listener name; ``meters`` map a certificate's principal to the node that
    it measures; ``adapters`` are each adapter's own options, by its name.
    """

    path: Path
    sha256: str
    site: SiteId
    timezone: str
    operator_domain: str
    sharing: Policy | None
    tree: Tree
    listeners: Mapping[str, ListenerSettings]
    identities: Mapping[str, ClientIdentity]
    peers: tuple[PeerSettings, ...]
    groups: tuple[GroupBinding, ...]
    stations: tuple[StationSettings, ...]
    meters: Mapping[str, NodeId]
    adapters: Mapping[str, Mapping[str, str | int | bool]]
    store: StoreSettings
