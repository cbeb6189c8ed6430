"""``gridgate doctor``: what of this machine and this folder would keep a gateway from working."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.options import SITE_FILE, File, Json, load_config
from gateway.cli.say import Exit, printable, put, put_json, verb
from gateway.domain.errors import ConfigError, GatewayError
from gateway.kit.private import OTHERS

if TYPE_CHECKING:
    from gateway.config import SiteConfig

OLDEST_PYTHON = (3, 11)

PATCHED_SQLITE = (3, 51, 3)
"""The first without the WAL-reset bug, which needs several writing connections; we have one."""

EXPIRES_SOON = timedelta(days=30)

LEAST_FREE = 1 << 30
FEW_FREE = 100 << 20
"""Bytes on the store's volume: a warning, and a failure."""

_WORDS = {True: "ok", False: "fail"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``status``: ok, warn or fail."""

    name: str
    status: str
    text: str


@verb
def doctor(file: File = SITE_FILE, json_output: Json = False) -> Exit:
    """Look at Python, packages, configuration, ports, files, certificates, clock and disk.

    Exit code 3 if anything would keep the gateway from working.
    """
    findings = list(examine(file))
    ok = all(f.status != "fail" for f in findings)
    if json_output:
        put_json({"ok": ok, "checks": [{"name": f.name, "status": f.status, "text": f.text} for f in findings]})
    else:
        for finding in findings:
            put(f"{finding.status:<5} {finding.name:<13} {printable(finding.text)}")
    return Exit.OK if ok else Exit.FOUND


def examine(file: Path) -> Iterator[Finding]:
    """Everything there is to find; without a configuration only the machine."""
    yield from _python()
    yield from _packages()
    yield from _sqlite()
    try:
        config = load_config(file)
    except ConfigError as problem:
        missing = problem.problems[0].code == "config.no-file"
        text = f"{file} is not there; looked at the machine alone" if missing else f"{file}: {problem}"
        yield Finding("configuration", "warn" if missing else "fail", text)
        return
    yield Finding("configuration", "ok", f"{file} can be run")
    parts: tuple[Callable[[SiteConfig], Iterator[Finding]], ...] = (
        _relaxations,
        _ports,
        _modes,
        _certificates,
        _clock,
        _disk,
        _store,
    )
    for part in parts:
        yield from part(config)


# --- the machine ----------------------------------------------------------------------------


def _python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", _WORDS[sys.version_info[:2] >= OLDEST_PYTHON], f"{found}; 3.11 or newer is needed")


def _packages() -> Iterator[Finding]:
    """Whether everything is installed, and the generic names `gateway` and `adapters` are ours."""
    import re
    from importlib.metadata import PackageNotFoundError, requires, version
    from importlib.util import find_spec

    try:
        wanted = [r for r in requires("gridgate") or () if "extra ==" not in r]
    except PackageNotFoundError:
        yield Finding("packages", "warn", "gridgate is not installed as a distribution; adapters may not be found")
        return
    missing = []
    for requirement in wanted:
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    text = f"not installed: {', '.join(missing)}" if missing else f"{len(wanted)} required ones are installed"
    yield Finding("packages", _WORDS[not missing], text)
    places = {name: spec.origin for name in ("gateway", "adapters") if (spec := find_spec(name)) is not None}
    folders = {Path(origin).parent.parent for origin in places.values() if origin}
    ours = len(places) == 2 and len(folders) == 1
    text = f"gateway and adapters are in {', '.join(map(str, sorted(folders)))}"
    yield Finding("imports", _WORDS[ours], text if ours else f"{text}: install gridgate into an environment of its own")


def _sqlite() -> Iterator[Finding]:
    import sqlite3

    patched = sqlite3.sqlite_version_info >= PATCHED_SQLITE
    text = sqlite3.sqlite_version if patched else f"{sqlite3.sqlite_version}; let no other program write to the store"
    yield Finding("sqlite", "ok" if patched else "warn", text)


# --- the site -------------------------------------------------------------------------------


def _relaxations(config: SiteConfig) -> Iterator[Finding]:
    from gateway.config import relaxations

    for relaxation in relaxations(config):
        yield Finding("relaxed", "warn", relaxation)


def _ports(config: SiteConfig) -> Iterator[Finding]:
    import socket

    for name, settings in sorted(config.listeners.items()):
        try:
            found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(found[0][4])
        except OSError as problem:
            if _is_running(config):
                yield Finding("port", "ok", f"{name} {settings.host}:{settings.port}, the gateway is running")
            else:
                yield Finding("port", "fail", f"{name} {settings.host}:{settings.port}: {problem.strerror}")
        else:
            yield Finding("port", "ok", f"{name} {settings.host}:{settings.port or 'any'}")


def _is_running(config: SiteConfig) -> bool:
    """Whether a gateway holds this store, and so most likely these ports."""
    from gateway.infra.store_sql.lock import StoreLock

    if not config.store.path.exists():
        return False
    try:
        StoreLock(config.store.path).release()
    except GatewayError:
        return True
    return False


def _modes(config: SiteConfig) -> Iterator[Finding]:
    """Whether private keys are ours alone."""
    keys = [s.key for s in config.listeners.values()] + [i.key for i in config.identities.values()]
    count = 0
    for path in sorted({*(k for k in keys if k is not None), config.store.key, config.store.path}):
        if path.exists():
            count += 1
            if path.stat().st_mode & OTHERS:
                yield Finding("file mode", "fail", f"{path} can be read by others: chmod 600 {path}")
    yield Finding("file mode", "ok", f"{count} private files looked at")


def _certificates(config: SiteConfig) -> Iterator[Finding]:
    listeners = config.listeners.items()
    identities = config.identities.items()
    files = {f"listener {n}": s.certificate for n, s in listeners} | {
        f"clients of {n}": s.client_ca for n, s in listeners
    }
    files |= {f"client {n}": i.certificate for n, i in identities} | {
        f"servers of {n}": i.server_ca for n, i in identities
    }
    for name, path in files.items():
        if path is not None:
            yield _expiry(name, path, datetime.now(UTC))


def _expiry(name: str, path: Path, now: datetime) -> Finding:
    """The first date on which a certificate of the file ends."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
        ends = min(c.not_valid_after_utc for c in found)
        begins = max(c.not_valid_before_utc for c in found)
    except (OSError, ValueError) as problem:
        return Finding("certificate", "fail", f"{name}: {path} cannot be read: {problem}")
    if ends <= now:
        return Finding("certificate", "fail", f"{name}: ended {ends:%Y-%m-%d %H:%MZ} ({path})")
    if begins > now:
        return Finding("certificate", "fail", f"{name}: begins {begins:%Y-%m-%d %H:%MZ} ({path}); is the clock right?")
    soon = ends - now < EXPIRES_SOON
    return Finding("certificate", "warn" if soon else "ok", f"{name}: until {ends:%Y-%m-%d}, {(ends - now).days} days")


def _clock(config: SiteConfig) -> Iterator[Finding]:
    """Whether time runs forward: never before what was sealed already."""
    from zoneinfo import ZoneInfo

    from gateway.infra.evidence_read import EvidenceReader

    now = datetime.now(UTC)
    local = now.astimezone(ZoneInfo(config.timezone))
    text = f"{now:%Y-%m-%d %H:%M:%SZ}, at the site {local:%H:%M}"
    sealed = None
    if config.store.path.exists():
        try:
            with EvidenceReader(config.store.path) as reader:
                sealed = max((entry.at for entry in reader.tail(1)), default=None)
        except GatewayError:
            pass  # the store has a line of its own
    if sealed is not None and sealed > now + timedelta(seconds=5):
        yield Finding("clock", "fail", f"{text}: before the newest evidence, {sealed:%Y-%m-%d %H:%M:%SZ}")
    else:
        yield Finding("clock", "ok", text)


def _disk(config: SiteConfig) -> Iterator[Finding]:
    import shutil

    folder = config.store.path.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as problem:
        yield Finding("disk", "fail", f"{folder}: {problem.strerror}")
        return
    status = "ok" if free >= LEAST_FREE else "warn" if free >= FEW_FREE else "fail"
    yield Finding("disk", status, f"{free >> 20} MiB free at {folder}")


def _store(config: SiteConfig) -> Iterator[Finding]:
    """Whether the store opens and its key is there; the log itself is `evidence verify`'s."""
    from gateway.infra.evidence_read import EvidenceReader

    if not config.store.path.exists():
        yield Finding("store", "ok", f"{config.store.path} will be made by the first run")
        return
    try:
        with EvidenceReader(config.store.path) as reader:
            size = reader.head().size
    except GatewayError as problem:
        yield Finding("store", "fail", str(problem))
        return
    lacking = [str(path) for path in (config.store.key, config.store.head) if not path.exists()]
    if lacking:
        yield Finding("store", "fail", f"{size} entries, but {' and '.join(lacking)} is missing: bring it back")
    else:
        yield Finding("store", "ok", f"{size} entries; `gridgate evidence verify` checks them")
