"""What one row says against what another says: references, duplicates, trust, policies. Opens no file that is named."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

from gateway.config.document import BindingRow, CertificateRow, ListenerRow, PeerRow, StationRow
from gateway.config.nodes import check_node
from gateway.config.parse import Document, Section
from gateway.config.problems import Place, Problems, nearest, shown
from gateway.domain.envelope import FallbackRule
from gateway.kit.tls import is_loopback
from gateway.ports.adapter import Trust

ENTRY_POINTS = "gridgate.adapters"

ADMIN = "admin"
"""The listener of the operators' own interface."""

STATIONS = "ocpp"
"""The adapter that speaks to stations."""

TRUST_OF_PROFILE = {0: Trust.INSECURE, 1: Trust.INSECURE, 2: Trust.SERVER_TLS, 3: Trust.MTLS}
"""OCPP's security profiles: what the transport must prove. 0 proves nothing."""

RESERVED_SOURCES = frozenset({"operator", "local"})
"""Sources of limits that are no grid party."""

_FINAL_RULES = frozenset({FallbackRule.FIXED, FallbackRule.STATIC_ONLY, FallbackRule.ZERO})
_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 — compared, not bound


def check(document: Document, problems: Problems) -> None:
    """Note everything that contradicts something else."""
    _references(document, problems)
    _duplicates(document, problems)
    for place, listener in document.listeners:
        _listener(place, listener, problems)
    _ports(document.listeners, problems)
    _shared_listeners(document, problems)
    for place, node in document.nodes:
        check_node(place, node, problems)
    by_name = {str(place[-1]): row for place, row in document.listeners}
    for place, station in document.stations:
        _station(place, station, by_name.get(station.listener), problems)
    for place, peer in document.peers:
        _peer(place, peer, by_name.get(peer.listener), problems)
    for place, binding in document.bindings:
        _binding(place, binding, problems)
    for place, client in document.client:
        _pair(place, client.certificate, client.key, problems)
    _adapters(document, problems)


def _references(document: Document, problems: Problems) -> None:
    """Rows of a wrong shape are looked at too: what they name must be there all the same."""
    nodes = document.nodes.named | document.evses.named if document.nodes.is_known and document.evses.is_known else None
    listeners, stations, peers = (
        section.named if section.is_known else None
        for section in (document.listeners, document.stations, document.peers)
    )
    sections: tuple[tuple[Section[Any], str, str, set[str] | None], ...] = (
        (document.evses, "station", "station", stations),
        (document.stations, "listener", "listener", listeners),
        (document.stations, "meter_node", "node", nodes),
        (document.peers, "listener", "listener", listeners),
        (document.bindings, "peer", "peer", peers),
        (document.bindings, "node", "node", nodes),
        (document.meters, "node", "node", nodes),
    )
    wanted = [
        ((*place, key), given.get(key), kind, known)
        for section, key, kind, known in sections
        for place, given in section.given.items()
    ]
    wanted += [(place, place[-1], "listener", listeners) for place in document.client.given]
    for place, name, kind, known in wanted:
        if known is None or not isinstance(name, str) or name in known or problems.stands_at(place):
            continue
        problems.add(f"unknown-{kind}", place, f"no such {kind}", found=shown(name), suggestion=nearest(name, known))


def _duplicates(document: Document, problems: Problems) -> None:
    _unique(problems, (((*p, "id"), s.id) for p, s in document.stations), "the station")
    _unique(problems, (((*p, "serial"), s.serial) for p, s in document.stations), "the serial")
    _unique(problems, (((*p, "id"), peer.id) for p, peer in document.peers), "the peer")
    _unique(problems, (((*p, "principal"), m.principal) for p, m in document.meters), "the principal")
    numbers = (((*p, "number"), (e.station, e.number)) for p, e in document.evses)
    _unique(problems, numbers, "the number of its station")
    groups = (((*p, "group"), (b.peer, b.group)) for p, b in document.bindings)
    _unique(problems, groups, "the group of its peer")
    nodes = (((*p, "node"), (b.peer, b.node)) for p, b in document.bindings)
    _unique(problems, nodes, "the node of its peer")
    _certificates(document.peers, problems)


def _unique(problems: Problems, values: Iterable[tuple[Place, Any]], what: str) -> None:
    first: dict[Any, Place] = {}
    for place, value in values:
        before = first.setdefault(value, place)
        if before != place:
            text = f"{what} is there twice"
            problems.add("duplicate", place, text, found=f"also on line {problems.line(before)}")


def _certificates(peers: Section[PeerRow], problems: Problems) -> None:
    """On one listener no certificate may be two peers': a match within another is both."""
    seen: list[tuple[Place, PeerRow, set[tuple[str, str]]]] = []
    for place, peer in peers:
        fields = _fields(peer.certificate)
        for before, other, theirs in seen:
            if fields and theirs and peer.listener == other.listener and (fields <= theirs or theirs <= fields):
                text = f"a certificate of {other.id} would match too"
                found = f"also on line {problems.line((*before, 'certificate'))}"
                problems.add("duplicate", (*place, "certificate"), text, found=found)
        seen.append((place, peer, fields))


def _fields(certificate: CertificateRow | None) -> set[tuple[str, str]]:
    if certificate is None:
        return set()
    return {(key, value.lower()) for key, value in certificate.model_dump(exclude_none=True).items()}


def _listener(place: Place, row: ListenerRow, problems: Problems) -> None:
    required = {Trust.MTLS: ("certificate", "key", "client_ca"), Trust.SERVER_TLS: ("certificate", "key")}
    needed = required.get(row.trust, ())
    for key in ("certificate", "key", "client_ca"):
        given = getattr(row, key) is not None
        if key in needed and not given:
            problems.add("missing-key", (*place, key), f"a listener with trust {row.trust} needs it")
        if given and key not in needed:
            hint = "leave it out, or choose the trust that uses it"
            problems.add("unused-key", (*place, key), f"trust {row.trust} does not use it", suggestion=hint)
    if not _is_host(row.host):
        problems.add("value", (*place, "host"), "expected an address or a host name, without port", found=row.host)
    elif row.trust is Trust.INSECURE and not is_loopback(row.host):
        text = "an insecure listener stands on loopback only"
        hint = "127.0.0.1, or trust: mtls"
        problems.add("insecure-outside-loopback", (*place, "host"), text, found=row.host, suggestion=hint)
    if row.public_url is not None:
        _public_url(place, row, problems)


def _is_host(text: str) -> bool:
    """A name has been looked at already; what has a colon must be an IPv6 address."""
    try:
        return ":" not in text or ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _public_url(place: Place, row: ListenerRow, problems: Problems) -> None:
    scheme = "http" if row.trust is Trust.INSECURE else "https"
    try:
        url = urlsplit(row.public_url or "")
        good = (
            url.scheme == scheme
            and url.hostname
            and url.port != 0
            and not (url.query or url.fragment or "@" in url.netloc)
        )
    except ValueError:
        good = False
    if not good:
        expected = f"expected {scheme}://host:port as peers reach this listener"
        problems.add("value", (*place, "public_url"), expected, found=row.public_url or "")


def _ports(listeners: Section[ListenerRow], problems: Problems) -> None:
    taken: list[tuple[Place, ListenerRow]] = []
    for place, row in listeners:
        for before, other in taken:
            overlap = row.host == other.host or {row.host, other.host} & _ANYWHERE
            if row.port and row.port == other.port and overlap:
                found = f"{row.port}, also on line {problems.line((*before, 'port'))}"
                problems.add("duplicate", (*place, "port"), f"the port of listener {before[-1]}", found=found)
        taken.append((place, row))


def _shared_listeners(document: Document, problems: Problems) -> None:
    """A listener belongs to one adapter: two would be two trust domains on one trust store."""
    owners = {ADMIN: ADMIN}
    users = [((*p, "listener"), s.listener, STATIONS) for p, s in document.stations]
    users += [((*p, "listener"), peer.listener, peer.adapter) for p, peer in document.peers]
    for place, listener, user in users:
        owner = owners.setdefault(listener, user)
        if owner != user:
            text = f"this listener is already that of {owner}"
            problems.add("listener-shared", place, text, found=listener, suggestion="give each adapter its own")


def _station(place: Place, row: StationRow, listener: ListenerRow | None, problems: Problems) -> None:
    wanted = TRUST_OF_PROFILE[row.profile]
    if listener is not None and listener.trust is not wanted:
        text = f"profile {row.profile} belongs on a listener with trust {wanted}"
        found = f"{row.listener} has trust {listener.trust}"
        problems.add("profile-trust", (*place, "profile"), text, found=found)
    if row.profile in (1, 2) and row.password is None:
        text = f"profile {row.profile} needs the station's password, as file:PATH or env:NAME"
        problems.add("missing-key", (*place, "password"), text)


def _peer(place: Place, row: PeerRow, listener: ListenerRow | None, problems: Problems) -> None:
    if row.id in RESERVED_SOURCES:
        problems.add("reserved", (*place, "id"), "this name is that of a source of limits of our own", found=row.id)
    if row.certificate is not None and not _fields(row.certificate):
        text = "expected san_uri, subject_cn, sha256 or spki_sha256; without one no certificate is this peer's"
        problems.add("missing-key", (*place, "certificate"), text)
    if listener is not None and listener.trust is Trust.MTLS and row.certificate is None:
        text = f"listener {row.listener} has trust mtls: say which certificate is this peer's"
        problems.add("missing-key", (*place, "certificate"), text)
    for index, host in enumerate(row.url_hosts):
        port = host.rpartition(":")[2] if not host.endswith("]") and ":" in host else "1"
        if not 1 <= int(port) <= 65_535:
            problems.add("value", (*place, "url_hosts", index), "expected a port from 1 to 65535", found=host)


def _binding(place: Place, row: BindingRow, problems: Problems) -> None:
    fixed = FallbackRule.FIXED in row.fallback
    if fixed and row.fixed_w is None:
        problems.add("missing-key", (*place, "fixed_w"), "fallback fixed needs the watts that it falls to")
    if row.fixed_w is not None and not fixed:
        hint = "add fixed to fallback, or leave it out"
        problems.add("unused-key", (*place, "fixed_w"), "fallback does not name fixed", suggestion=hint)
    for key, values in (("fallback", row.fallback), ("phases", row.phases)):
        if len(set(values)) != len(values):
            problems.add("duplicate", (*place, key), "expected each entry once", found=", ".join(values))
    final = next((i for i, rule in enumerate(row.fallback) if rule in _FINAL_RULES), len(row.fallback))
    if final < len(row.fallback) - 1:
        text = f"what stands after {row.fallback[final]} is never reached"
        problems.add("unreached", (*place, "fallback", final + 1), text, found=", ".join(row.fallback[final + 1 :]))


def _pair(place: Place, certificate: str | None, key: str | None, problems: Problems) -> None:
    if (certificate is None) != (key is None):
        missing = "key" if key is None else "certificate"
        problems.add("missing-key", (*place, missing), "certificate and key go together")


def _adapters(document: Document, problems: Problems) -> None:
    """Adapters are known by their entry points alone; where none is installed, nothing is said."""
    installed = {point.name for point in entry_points(group=ENTRY_POINTS)}
    if not installed:
        return
    named = [((*place, "adapter"), given.get("adapter")) for place, given in document.peers.given.items()]
    named += [(("adapters", name), name) for name in document.adapters]
    for place, name in named:
        if isinstance(name, str) and name not in installed and not problems.stands_at(place):
            hint = nearest(name, installed) or f"installed: {', '.join(sorted(installed))}"
            problems.add("unknown-adapter", place, "no such adapter", found=shown(name), suggestion=hint)
