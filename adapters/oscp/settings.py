"""What the configuration says to this adapter, checked as a whole. Reads no file but the dialects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from adapters.oscp.core import ADAPTER_NAME, Link
from adapters.oscp.dialect import dialect_of
from gateway.domain.errors import ConfigError, ConfigProblem
from gateway.domain.evidence import sha256_hex
from gateway.domain.ids import PeerId
from gateway.ports.adapter import AdapterContext, Trust
from gateway.ports.grid import GroupBinding, PeerSettings

MIN_TOKEN_LENGTH = 16
"""An onboarding token is a bearer secret: 96 bits in base64url at the least."""


def links_of(context: AdapterContext) -> dict[PeerId, Link]:
    """The peers of the configuration.

    Raises:
        ConfigError: all that makes no sense to OSCP.
    """
    problems: list[ConfigProblem] = []
    links: dict[PeerId, Link] = {}
    for peer in _own(context):
        problems += _peer_problems(peer, context)
        try:
            dialect = dialect_of(peer)
        except ConfigError as problem:
            problems += problem.problems
            continue
        digest = sha256_hex(peer.token.encode()) if peer.token else ""
        links[peer.id] = Link(peer, dialect, _groups(peer, context, problems), onboarding_sha256=digest)
    problems += _shared_tokens(links)
    if problems:
        raise ConfigError(tuple(problems))
    return links


def _peer_problems(peer: PeerSettings, context: AdapterContext) -> list[ConfigProblem]:
    listener = context.listeners.get(peer.listener)
    where = f"peers[{peer.id}]"
    if listener is None:
        return [ConfigProblem("oscp.peer", "", 0, f"{where}.listener", "no such listener", peer.listener)]
    problems = []
    if listener.trust is Trust.MTLS and peer.certificate is None:
        problems.append(ConfigProblem("oscp.peer", "", 0, f"{where}.certificate", "needed on an mTLS listener"))
    if peer.token and len(peer.token) < MIN_TOKEN_LENGTH:
        text = f"an onboarding token has {MIN_TOKEN_LENGTH} characters or more"
        problems.append(ConfigProblem("oscp.peer", "", 0, f"{where}.token", text))
    return problems


def _groups(peer: PeerSettings, context: AdapterContext, problems: list[ConfigProblem]) -> dict[str, GroupBinding]:
    groups: dict[str, GroupBinding] = {}
    for binding in context.groups:
        if binding.peer != peer.id:
            continue
        if binding.group in groups:
            where = f"bindings[{peer.id}/{binding.group}]"
            problems.append(ConfigProblem("oscp.binding", "", 0, where, "bound twice", binding.group))
        groups[binding.group] = binding
    return groups


def _shared_tokens(links: Mapping[PeerId, Link]) -> list[ConfigProblem]:
    count = Counter((link.settings.listener, link.onboarding_sha256) for link in links.values())
    return [
        ConfigProblem("oscp.peer", "", 0, f"peers[{peer}].token", "another peer of this listener has the same token")
        for peer, link in links.items()
        if link.onboarding_sha256 and count[link.settings.listener, link.onboarding_sha256] > 1
    ]


def key_file(context: AdapterContext) -> Path | None:
    """Where the key lies under which tokens are kept; None without peers.

    Raises:
        ConfigError: the option is missing.
    """
    value = context.options.get("key_file")
    if value:
        return Path(str(value))
    if not _own(context):
        return None
    text = "names the file of the key under which tokens are kept; it is created when missing"
    raise ConfigError((ConfigProblem("oscp.key-file", "", 0, "adapters.oscp.key_file", text),))


def _own(context: AdapterContext) -> tuple[PeerSettings, ...]:
    return tuple(peer for peer in context.peers if peer.adapter == ADAPTER_NAME)
