"""What the configuration says to this adapter, checked as a whole. Reads the dialects and files that options name."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from adapters.oscp.caller import Caller
from adapters.oscp.dialect import Dialect, dialect_of
from adapters.oscp.link import ADAPTER_NAME, Link
from adapters.oscp.oauth import ClientCredentials
from gateway.domain.errors import ConfigError, ConfigProblem, NotAuthorised
from gateway.domain.evidence import sha256_hex
from gateway.domain.ids import PeerId
from gateway.ports.adapter import AdapterContext, Trust
from gateway.ports.grid import GroupBinding, PeerSettings

TOKEN_OUT = "token_out_file"  # noqa: S105  a name of an option

TOKEN_URL = "token_url"  # noqa: S105  a name of an option
SECRET_FILE = "client_secret_file"  # noqa: S105  a name of an option

_MEANS = {
    "token": "what the peer shows to us",
    "options.address": "where the peer's endpoints are",
    f"options.{TOKEN_OUT}": f"the file with the token that we show, unless {TOKEN_URL} says where to fetch one",
}
_OURS = frozenset({"authorization", "content-type", "content-length", "host", "x-request-id", "x-correlation-id"})
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{1,4096}")

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
        address = str(peer.options.get("address", "")).rstrip("/")
        # A token that came with an address is the peer's: it lets us in there, not the peer in here.
        ours = dialect.onboarding == "register" and not address
        digest = sha256_hex(peer.token.encode()) if peer.token and ours else ""
        links[peer.id] = Link(
            peer,
            dialect,
            _groups(peer, context, problems),
            onboarding_sha256=digest,
            address=address,
            headers=_headers(peer, problems),
            credentials=_credentials(peer, dialect, problems),
        )
        if dialect.onboarding == "provisioned":
            problems += _provisioned_problems(peer, address)
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


def _provisioned_problems(peer: PeerSettings, address: str) -> Iterator[ConfigProblem]:
    """A relation without registration stands in the configuration alone."""
    for key, found in (
        ("token", peer.token),
        ("options.address", address),
        (f"options.{TOKEN_OUT}", peer.options.get(TOKEN_OUT) or peer.options.get(TOKEN_URL)),
    ):
        if not found:
            text = f"needed with onboarding provisioned: {_MEANS[key]}"
            yield ConfigProblem("oscp.peer", "", 0, f"peers[{peer.id}].{key}", text)


def _headers(peer: PeerSettings, problems: list[ConfigProblem]) -> dict[str, str]:
    """Headers that the peer wants with every call, a JSON object of names and values."""
    path = peer.options.get("headers_file")
    if not path:
        return {}
    try:
        found = json.loads(Path(str(path)).read_text("utf-8"))
    except (OSError, ValueError) as problem:
        found = type(problem).__name__
    if isinstance(found, dict) and all(
        isinstance(v, str) and _HEADER_NAME.fullmatch(k) and _HEADER_VALUE.fullmatch(v) and k.lower() not in _OURS
        for k, v in found.items()
    ):
        return found
    where = f"peers[{peer.id}].options.headers_file"
    text = f"a JSON object of header names and values, none of {', '.join(sorted(_OURS))}"
    problems.append(ConfigProblem("oscp.peer", "", 0, where, text, str(path)))
    return {}


def _credentials(peer: PeerSettings, dialect: Dialect, problems: list[ConfigProblem]) -> ClientCredentials | None:
    """How to get the token that the peer wants to be shown; None where that is not by OAuth2."""
    url = str(peer.options.get(TOKEN_URL, ""))
    if not url:
        return None
    secret = _line_of(peer.options.get(SECRET_FILE))
    client_id, scope = str(peer.options.get("client_id", "")), str(peer.options.get("scope", ""))
    for key, is_right, expected in (
        (TOKEN_URL, dialect.onboarding == "provisioned", "only with onboarding provisioned"),
        (TOKEN_URL, not peer.options.get(TOKEN_OUT), f"either this or {TOKEN_OUT}"),
        ("client_id", _HEADER_VALUE.fullmatch(client_id), f"needed with {TOKEN_URL}"),
        (SECRET_FILE, secret, f"a file with the client's secret, needed with {TOKEN_URL}"),
        ("scope", not scope or _HEADER_VALUE.fullmatch(scope), "names, with blanks between"),
    ):
        if not is_right:
            problems.append(ConfigProblem("oscp.peer", "", 0, f"peers[{peer.id}].options.{key}", expected))
    return ClientCredentials(url, client_id, secret, scope)


def check_token_urls(links: Mapping[PeerId, Link], callers: Mapping[PeerId, Caller]) -> None:
    """Whether each peer's token endpoint is among the addresses that may be called for it.

    Raises:
        ConfigError: one is not.
    """
    problems = []
    for peer, link in links.items():
        if link.credentials is not None:
            try:
                callers[peer].check_url(link.credentials.url)
            except NotAuthorised as problem:
                where = f"peers[{peer}].options.{TOKEN_URL}"
                problems.append(ConfigProblem("oscp.peer", "", 0, where, str(problem), link.credentials.url))
    if problems:
        raise ConfigError(tuple(problems))


def token_out(peer: PeerSettings) -> str:
    """The token that a provisioned peer gave us.

    Raises:
        ConfigError: the file cannot be read or holds no token.
    """
    path = peer.options.get(TOKEN_OUT)
    token = _line_of(path)
    if token and " " not in token:
        return token
    where = f"peers[{peer.id}].options.{TOKEN_OUT}"
    raise ConfigError((ConfigProblem("oscp.peer", "", 0, where, "a file with the token that we show", str(path)),))


def _line_of(path: object) -> str:
    """The one line of visible characters that a file holds; empty where it holds none."""
    try:
        text = Path(str(path)).read_text("utf-8").strip() if path else ""
    except (OSError, ValueError):
        return ""
    return text if _HEADER_VALUE.fullmatch(text) else ""


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
