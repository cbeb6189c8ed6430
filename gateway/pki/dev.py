"""Throw-away certificates for a demo, a test or a first try: a whole tree in one call.

Each listener gets a CA of its own, so that no certificate opens two of them. The CA keys lie
beside what they sign, which is right for a folder that is thrown away and for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.domain.errors import ConfigError, ConfigProblem
from gateway.pki.folder import Folder
from gateway.pki.issue import Issued
from gateway.pki.profile import Profile, load_profiles
from gateway.ports.adapter import ClientIdentity, ListenerSettings, Trust

DEV_LISTENERS: Mapping[str, str] = {"grid": "modern", "ocpp": "ocpp", "admin": "modern"}
"""Listeners that get certificates, with the TLS policy each is meant for."""

MAX_HOLDERS = 10_000
"""Most parties, stations, meters and operators together; a demo has ten."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9*_=:+|@.-]{0,63}")
"""What OCPP allows in an identity, up to what a common name can hold; also a safe file name."""


@dataclass(frozen=True, slots=True)
class ListenerPki:
    """What one listener needs, and ``server_ca``: whom its clients trust."""

    certificate: Path
    key: Path
    client_ca: Path
    server_ca: Path


@dataclass(frozen=True, slots=True)
class DevPki:
    """Where everything is. Absolute paths; keys of the mappings are the ids asked for.

    ``client`` is what the gateway shows when it calls a grid party.
    """

    directory: Path
    listeners: Mapping[str, ListenerPki]
    parties: Mapping[str, ClientIdentity]
    stations: Mapping[str, ClientIdentity]
    meters: Mapping[str, ClientIdentity]
    operators: Mapping[str, ClientIdentity]
    client: ClientIdentity

    def settings(self, name: str, *, host: str = "127.0.0.1", port: int = 0) -> ListenerSettings:
        """A mutual-TLS listener with these certificates."""
        files = self.listeners[name]
        return ListenerSettings(
            name=name,
            host=host,
            port=port,
            trust=Trust.MTLS,
            policy=DEV_LISTENERS[name],
            certificate=files.certificate,
            key=files.key,
            client_ca=files.client_ca,
        )


def make_dev_pki(
    directory: Path,
    *,
    site: str,
    now: datetime,
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    parties: Sequence[str] = (),
    stations: Sequence[tuple[str, str]] = (),
    meters: Sequence[str] = (),
    operators: Sequence[str] = ("operator",),
) -> DevPki:
    """Create what is missing below ``directory``; what exists stays as it is.

    Args:
        now: the machine's real time, for that is what TLS compares with.
        stations: pairs of station id and serial number.

    Raises:
        ConfigError: an id that cannot be a file's name, a broken file, a certificate without key.
    """
    _check_names((site, *parties, *meters, *operators), stations)
    variables = {"site": site, "organisation": site, "hosts": ",".join(hosts), "fqdn": _main_host(hosts)}
    profiles = load_profiles()
    makers = {
        name: _Maker(Folder(directory.absolute() / name), name, profiles, variables, now) for name in DEV_LISTENERS
    }
    grid, ocpp, admin = makers["grid"], makers["ocpp"], makers["admin"]
    return DevPki(
        directory=directory.absolute(),
        listeners={name: maker.listener() for name, maker in makers.items()},
        parties={name: grid.identity("party", name, party=name) for name in parties},
        stations={name: ocpp.identity("station", name, serial=serial) for name, serial in stations},
        meters={name: admin.identity("meter", name, meter=name) for name in meters},
        operators={name: admin.identity("operator", name, operator=name) for name in operators},
        client=grid.identity("gateway", site),
    )


class _Maker:
    """One listener's CA and everything it issues."""

    def __init__(
        self, folder: Folder, chain: str, profiles: Mapping[str, Profile], variables: Mapping[str, str], now: datetime
    ) -> None:
        self._folder = folder
        self._chain = chain
        self._profiles = profiles
        self._variables = variables
        self._now = now
        root = self._make("root", "ca/root", {}, None)
        self._issuing = self._make("issuing", "ca/issuing", {}, root)
        anchors = root.certificate_pem() + self._issuing.certificate_pem()
        # The issuing CA is listed too, for peers that send their leaf alone.
        self._anchors = folder.write_once("client-ca.pem", anchors)
        self._server_ca = folder.write_once("server-ca.pem", anchors)

    def listener(self) -> ListenerPki:
        self._make("server", "server", {}, self._issuing)
        return ListenerPki(
            self._folder.path("server.pem"), self._folder.path("server.key"), self._anchors, self._server_ca
        )

    def identity(self, kind: str, name: str, **variables: str) -> ClientIdentity:
        stem = f"{_FOLDERS[kind]}/{name}"
        self._make(kind, stem, variables, self._issuing)
        return ClientIdentity(self._folder.path(f"{stem}.pem"), self._folder.path(f"{stem}.key"), self._server_ca)

    def _make(self, kind: str, stem: str, variables: Mapping[str, str], issuer: Issued | None) -> Issued:
        profile = self._profiles[f"{self._chain}-{kind}"]
        return self._folder.load_or_issue(stem, profile, {**self._variables, **variables}, self._now, issuer)


_FOLDERS = {
    "party": "parties",
    "station": "stations",
    "meter": "meters",
    "operator": "operators",
    "gateway": "client",
}


def _main_host(hosts: Sequence[str]) -> str:
    """The common name of servers: the first name that is no address, else the first address."""
    return next((host for host in hosts if not host.replace(".", "").isdigit() and ":" not in host), hosts[0])


def _check_names(names: Iterable[str], stations: Sequence[tuple[str, str]]) -> None:
    every = [*names, *(part for station in stations for part in station)]
    if len(every) > 2 * MAX_HOLDERS:
        raise ConfigError((ConfigProblem("pki.names", "", 0, "", f"more than {MAX_HOLDERS} certificate holders"),))
    bad = tuple(
        ConfigProblem("pki.name", "", 0, name, "cannot be the name of a certificate and its file", found=name)
        for name in every
        if _NAME.fullmatch(name) is None
    )
    if bad:
        raise ConfigError(bad)
