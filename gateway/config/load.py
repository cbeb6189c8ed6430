"""From the file to :class:`SiteConfig`, or to everything that is wrong with it."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from gateway.config.checks import check
from gateway.config.document import BindingRow, CertificateRow, PeerRow, StoreRow
from gateway.config.electric import build_tree, check_shares
from gateway.config.files import Files
from gateway.config.lines import read
from gateway.config.parse import Document, parse
from gateway.config.problems import Place, Problems, nearest
from gateway.config.settings import SiteConfig, StoreSettings
from gateway.domain.envelope import BindingPolicy
from gateway.domain.ids import NodeId, PeerId, SiteId, StationId
from gateway.domain.quantities import ALL_PHASES, Volts, Watts
from gateway.domain.topology import EvseFacts, Tree
from gateway.ports.adapter import ClientIdentity, ListenerSettings
from gateway.ports.fleet import EvseBinding, StationSettings
from gateway.ports.grid import CertificateMatch, GroupBinding, PeerSettings

PATH_SUFFIX = "_file"
"""Options of adapters and peers whose names end so are paths, relative to the file's folder."""


def load(path: Path) -> SiteConfig:
    """Read and check ``site.yaml``.

    Raises:
        ConfigError: every mistake in it, in the order of its lines.
    """
    source = read(path)
    problems = source.problems
    document = parse(source)
    check(document, problems)
    _timezone(document, problems)
    tree = build_tree(document, problems)
    if tree is not None:
        check_shares(tree, document, problems)
    files = Files(path.absolute().parent, problems)
    listeners = _listeners(document, files)
    identities = _identities(document, files)
    peers = _peers(document, files)
    passwords = _passwords(document, files)
    store = None if document.store is None else _store(document.store, files, problems)
    if problems or document.site is None or tree is None or store is None:
        raise problems.error()
    return SiteConfig(
        path=path.absolute(),
        sha256=source.sha256,
        site=SiteId(document.site.id),
        timezone=document.site.timezone,
        operator_domain=document.site.operator_domain,
        sharing=document.site.sharing,
        tree=tree,
        listeners=listeners,
        identities=identities,
        peers=peers,
        groups=tuple(_group(row) for _, row in document.bindings),
        stations=_stations(document, tree, passwords),
        meters={row.principal: NodeId(row.node) for _, row in document.meters},
        adapters={name: _options(options, files) for name, options in document.adapters.items()},
        store=store,
    )


def _timezone(document: Document, problems: Problems) -> None:
    if document.site is None:
        return
    name = document.site.timezone
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest(name, zoneinfo.available_timezones())
        expected = "expected an IANA time zone such as Europe/Berlin"
        problems.add("timezone", ("site", "timezone"), expected, found=name, suggestion=hint)


def _listeners(document: Document, files: Files) -> dict[str, ListenerSettings]:
    return {
        str(place[-1]): ListenerSettings(
            name=str(place[-1]),
            host=row.host,
            port=row.port,
            trust=row.trust,
            policy=row.policy,
            certificate=files.existing(row.certificate, (*place, "certificate")),
            key=files.existing(row.key, (*place, "key"), private=True),
            client_ca=files.existing(row.client_ca, (*place, "client_ca")),
            public_url=row.public_url or "",
        )
        for place, row in document.listeners
    }


def _identities(document: Document, files: Files) -> dict[str, ClientIdentity]:
    return {
        str(place[-1]): ClientIdentity(
            certificate=files.existing(row.certificate, (*place, "certificate")),
            key=files.existing(row.key, (*place, "key"), private=True),
            server_ca=files.existing(row.server_ca, (*place, "server_ca")),
        )
        for place, row in document.client
    }


def _peers(document: Document, files: Files) -> tuple[PeerSettings, ...]:
    return tuple(_peer(place, row, files) for place, row in document.peers)


def _peer(place: Place, row: PeerRow, files: Files) -> PeerSettings:
    return PeerSettings(
        id=PeerId(row.id),
        adapter=row.adapter,
        listener=row.listener,
        certificate=None if row.certificate is None else _match(row.certificate),
        dialect=row.dialect,
        url_hosts=row.url_hosts,
        allow_private=row.allow_private,
        token=files.secret(row.token, (*place, "token")) or "",
        options=_options(row.options, files),
    )


def _match(row: CertificateRow) -> CertificateMatch:
    return CertificateMatch(row.san_uri, row.subject_cn, _digest(row.sha256), _digest(row.spki_sha256))


def _digest(text: str | None) -> str | None:
    """As :class:`gateway.kit.peer.PeerInfo` writes digests."""
    return None if text is None else text.replace(":", "").lower()


def _options(given: Mapping[str, str | int | bool], files: Files) -> dict[str, str | int | bool]:
    return {
        key: str(files.path(value)) if key.endswith(PATH_SUFFIX) and isinstance(value, str) else value
        for key, value in given.items()
    }


def _passwords(document: Document, files: Files) -> dict[str, str]:
    """Digests by station."""
    out = {}
    for place, row in document.stations:
        secret = files.secret(row.password, (*place, "password"))
        if secret is not None:
            out[row.id] = sha256(secret.encode()).hexdigest()
    return out


def _store(row: StoreRow, files: Files, problems: Problems) -> StoreSettings:
    store = StoreSettings(
        path=files.planned(row.path, ("store", "path")),
        head=files.planned(row.head, ("store", "head")),
        key=files.planned(row.key, ("store", "key"), private=True),
    )
    if len({store.path, store.head, store.key}) < 3:
        problems.add("duplicate", ("store",), "path, head and key are three different files")
    return store


def _group(row: BindingRow) -> GroupBinding:
    policy = BindingPolicy(
        on_loss=row.on_loss,
        demands_envelope=row.demands_envelope,
        resume_previous=row.resume_previous,
        loss_grace_s=row.loss_grace_s,
        gap_grace_s=row.gap_grace_s,
        recover_s=row.recover_s,
        dwell_s=row.dwell_s,
        fallback=row.fallback,
        fixed_w=None if row.fixed_w is None else Watts(row.fixed_w),
        reaction_s=row.reaction_s,
        window_s=row.window_s,
    )
    first, second, third = row.phases
    return GroupBinding(
        PeerId(row.peer), row.group, NodeId(row.node), policy, (first, second, third), Volts(row.voltage_v)
    )


def _stations(document: Document, tree: Tree, passwords: Mapping[str, str]) -> tuple[StationSettings, ...]:
    evses: dict[StationId, list[EvseBinding]] = {}
    for node in tree.evses():
        if node.evse is not None:
            evses.setdefault(node.evse.station, []).append(_evse(node.path, node.evse))
    return tuple(
        StationSettings(
            id=StationId(row.id),
            serial=row.serial,
            listener=row.listener,
            profile=row.profile,
            evses=tuple(sorted(evses.get(StationId(row.id), ()), key=lambda evse: evse.number)),
            meter_node=None if row.meter_node is None else NodeId(row.meter_node),
            meter_phases=ALL_PHASES if row.meter_node is None else tree.phases(NodeId(row.meter_node)),
            rate_unit=row.rate_unit,
            password_sha256=passwords.get(row.id, ""),
        )
        for _, row in document.stations
    )


def _evse(path: NodeId, facts: EvseFacts) -> EvseBinding:
    return EvseBinding(path, facts.number, facts.phases, facts.voltage_v, facts.max_ma, facts.min_ma, facts.efficiency)
