"""``gridgate init``: a site that runs, with comments, development certificates and a token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import Json
from gateway.cli.say import Exit, UsageError, put, put_json, verb

if TYPE_CHECKING:
    from gateway.pki.dev import DevPki

MAX_STATIONS = 100
TOKEN_BYTES = 48
"""OSCP 2.0 wants 32 random bytes at least."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@verb
def init(
    folder: Annotated[Path, typer.Argument(help="Where; made if it is not there.")] = Path(),
    site: Annotated[str, typer.Option(help="The site's id: small letters, digits, dashes.")] = "depot",
    stations: Annotated[int, typer.Option(min=1, max=MAX_STATIONS, help="Charging stations, one EVSE each.")] = 2,
    json_output: Json = False,
) -> Exit:
    """Write a commented site.yaml, development certificates and a token; overwrite nothing."""
    file = folder / "site.yaml"
    if not _NAME.fullmatch(site):
        raise UsageError(f'--site "{site}" is no id', hint="small letters, digits and dashes, 32 at most")
    taken = [path for path in (file, folder / "pki", folder / "secrets") if path.exists()]
    if taken:
        raise UsageError(f"{taken[0]} is there already; nothing was written", hint="name a new folder")
    token = _write(folder, file, site, stations)
    if json_output:
        put_json({"ok": True, "site": str(file), "pki": str(folder / "pki"), "token": str(token)})
        return Exit.OK
    put(f"wrote  {file}            the site, to be read from top to bottom")
    put(f"       {folder / 'pki'}/  certificates for trying things out, not for production")
    put(f"       {token}            give it to the grid party, for its first registration")
    put(f"next   gridgate check {file}")
    put(f"       gridgate run {file}")
    put(f"       gridgate status {file}     in another terminal")
    return Exit.OK


def _write(folder: Path, file: Path, site: str, stations: int) -> Path:
    from gateway.domain.errors import StoreError

    try:
        return _write_all(folder, file, site, stations)
    except OSError as problem:
        raise StoreError(
            f"{problem.filename or folder} cannot be written: {problem.strerror}", code="cli.unwritable"
        ) from problem


def _write_all(folder: Path, file: Path, site: str, stations: int) -> Path:
    import secrets
    from datetime import UTC, datetime

    from gateway.pki.dev import make_dev_pki

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ids = [f"CP-{number}" for number in range(1, stations + 1)]
    pki = make_dev_pki(
        folder / "pki",
        site=site,
        now=datetime.now(UTC),
        parties=["dso"],
        stations=[(name, f"SN-{name}") for name in ids],
        meters=["main", "main-house"],
    )
    (folder / "secrets").mkdir(mode=0o700)
    token = folder / "secrets" / "dso.token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_urlsafe(TOKEN_BYTES) + "\n", encoding="ascii")
    # Last: a folder with site.yaml is a complete one.
    file.touch(mode=0o600)
    file.write_text(_document(site, ids, pki), encoding="utf-8")
    return token


def _document(site: str, stations: list[str], pki: DevPki) -> str:
    return _SITE.format(
        site=site,
        main_w=23_000 * len(stations) + 16_000,
        garage_w=23_000 * len(stations),
        evses="".join(_EVSE.format(number=n, station=name) for n, name in enumerate(stations, 1)),
        stations="".join(f"  - {{id: {name}, serial: SN-{name}, listener: ocpp, profile: 3}}\n" for name in stations),
    )


_EVSE = """  - node: main/garage/evse-{number}
    station: {station}
    number: 1                   # what the station calls it (connector or EVSE id)
    phases: [L1, L2, L3]        # site phases at the EVSE's terminals 1, 2, 3
    min_a: 6                    # below this only 0 exists (IEC 61851-1)
    max_a: 32
    safe_share_w: 4600          # what it may draw for ever without us
"""

_SITE = """\
# A site of gridgate. Check it with `gridgate check site.yaml`, run it with `gridgate run site.yaml`.
# Watts, amperes and seconds are in the names of the keys. Leaving a limit out is no statement;
# 0 means that nothing is allowed. Paths are relative to this file.

site:
  id: {site}
  timezone: UTC                 # IANA name, for what people read; everything stored is UTC
  operator_domain: example.org  # yours: it names the evidence log, for ever

# The electrical tree, EVSEs apart. Every grid connection needs import_max_w.
nodes:
  - path: main
    kind: GRID_CONNECTION
    import_max_w: {main_w}
    export_max_w: 0
  - path: main/garage
    kind: CIRCUIT
    import_max_w: {garage_w}
    # apparent_max_va: 63000    # a transformer: power up to this times assumed_pf (0.98)
    # derate: 0.8               # what is left of its limits for good
    # derate_seasons: [{{start: 06-01, end: 08-31, fraction: 0.9}}]
    # derate_heat: [{{above_c: 35, fraction: 0.85}}]   # by its measured temperature_centicelsius
    # phase_map: [L2, L3, L1]   # the site phases that feed its terminals 1, 2, 3
    # unbalance_max_a: 20       # how far its phases may differ
  - path: main/house
    kind: LOAD                  # measured, not controlled
    reserve_w: 8000             # kept free for it while no meter says more
    # reserve_profile: [{{start: "06:00", w: 9000}}, {{start: "22:00", w: 3000}}]   # instead of reserve_w

evses:
{evses}
# Stations that may connect, by OCPP 1.6J or 2.0.1. profile 3: TLS with a client certificate.
stations:
{stations}
# Grid parties. The certificate says who is calling; every other name in a message must agree.
peers:
  - id: dso
    adapter: oscp
    listener: grid
    certificate: {{san_uri: "urn:gridgate:party:dso"}}
    dialect: standard
    token: file:secrets/dso.token       # for its first registration
    url_hosts: [dso.example.org]        # the only hosts that we call for it
    allow_private: false                # true if it lives in a private network (a VPN)

# What a party calls a place, and what holds when it is not heard.
bindings:
  - peer: dso
    group: DEPOT-7
    node: main
    on_loss: fallback_now       # or exhaust_schedule: keep what is held until it ends
    gap_grace_s: 60
    recover_s: 60
    demands_envelope: true      # once it has spoken: where no envelope holds, the fallback does
    window_s: 60                # compliance is judged over windows of so much

# Which certificate may post measurements of which node (POST /v1/sites/{site}/measurements).
meters:
  - {{node: main, principal: "urn:gridgate:meter:main"}}
  - {{node: main/house, principal: "urn:gridgate:meter:main-house"}}

# Each listener is a trust domain of its own: its port, its certificates, whom it trusts.
listeners:
  grid:
    host: 127.0.0.1
    port: 8443
    trust: mtls
    policy: modern
    certificate: pki/grid/server.pem
    key: pki/grid/server.key
    client_ca: pki/grid/client-ca.pem
  ocpp:
    host: 127.0.0.1
    port: 8887
    trust: mtls
    policy: ocpp
    certificate: pki/ocpp/server.pem
    key: pki/ocpp/server.key
    client_ca: pki/ocpp/client-ca.pem
  admin:
    host: 127.0.0.1
    port: 8460
    trust: mtls
    policy: modern
    certificate: pki/admin/server.pem
    key: pki/admin/server.key
    client_ca: pki/admin/client-ca.pem

# What we show, and whom we trust, when we call a party of that listener.
client:
  grid:
    certificate: pki/grid/client/{site}.pem
    key: pki/grid/client/{site}.key
    server_ca: pki/grid/server-ca.pem

# Options of the adapters. key_file: the key under which tokens are kept; made by the first run.
adapters:
  oscp:
    key_file: secrets/oscp.key

# One database. head is the last signed head of the evidence log: better on another volume.
store:
  path: gridgate.db
  head: gridgate.head
  key: gridgate-evidence.key
"""
