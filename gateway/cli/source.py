"""Where verbs get the site's state and act on it: a running gateway, or for reading its store.

A running gateway is asked through its admin listener with an operator's certificate. Without one
the state is read from the store as it was when the gateway last wrote, and the answer says so.

Every verb that does so takes the same options; :func:`site_verb` gives them to it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from gateway.cli.options import SITE_FILE, File, FileOption, Json, load_config
from gateway.cli.say import Exit, NotFound, UsageError, note, verb
from gateway.domain.errors import GatewayError, PeerUnreachable

if TYPE_CHECKING:
    from gateway.config import SiteConfig
    from gateway.ports.adapter import ClientIdentity
    from gateway.runtime import View

OPERATOR = "operator"
"""The operator of ``gridgate init`` and of development certificates."""

TIMEOUT_S = 5.0

Url = Annotated[str, typer.Option(help="The admin listener; from the configuration if not given.")]
Certificate = Annotated[Path | None, typer.Option("--cert", help="The operator's certificate (PEM).")]
Key = Annotated[Path | None, typer.Option("--key", help="Its key (PEM).")]
Anchors = Annotated[Path | None, typer.Option("--ca", help="Whom to trust as the gateway (PEM).")]
Offline = Annotated[bool, typer.Option("--offline", help="Read the store; ask no gateway.")]


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a gateway, as the command line says it."""

    url: str = ""
    certificate: Path | None = None
    key: Path | None = None
    anchors: Path | None = None
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Site:
    """The site that a verb is about, how to reach its gateway, and whether to answer in JSON."""

    config: SiteConfig
    access: Access
    as_json: bool

    def ask(self, path: str, stored: Callable[[View], dict[str, Any]]) -> tuple[dict[str, Any], str]:
        """See :func:`ask`."""
        return ask(self.config, self.access, path, stored)

    def tell(self, path: str, document: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """See :func:`tell`."""
        return tell(self.config, self.access, path, document, timeout_s)


def _options(
    file: File = SITE_FILE,
    url: Url = "",
    certificate: Certificate = None,
    key: Key = None,
    anchors: Anchors = None,
    offline: Offline = False,
    json_output: Json = False,
) -> tuple[Path, Access, bool]:
    """The options of every :func:`site_verb`, in the order of its help."""
    return file, Access(url, certificate, key, anchors, offline), json_output


_SHARED = inspect.signature(_options, eval_str=True).parameters


def site_verb(*, reads: bool, by_option: bool = False) -> Callable[[Callable[..., Exit]], Callable[..., None]]:
    """A verb about a site: its own parameters, then :func:`_options`; it is handed a :class:`Site` first instead.

    Args:
        reads: it can read the store too, so it has ``--offline``.
        by_option: the configuration is named by ``--file``, not by the last argument.
    """

    def decorate(act: Callable[..., Exit]) -> Callable[..., None]:
        def run(**given: Any) -> Exit:
            file, access, as_json = _options(**{name: given.pop(name) for name in shared})
            return act(Site(load_config(file), access, as_json), **given)

        shared = {name: p for name, p in _SHARED.items() if reads or name != "offline"}
        if by_option:
            shared["file"] = shared["file"].replace(annotation=FileOption)
        _, *own = inspect.signature(act, eval_str=True).parameters.values()
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared.values())]
        shown: Any = run
        shown.__signature__ = inspect.Signature(parameters)
        shown.__annotations__ = {p.name: p.annotation for p in parameters}
        shown.__name__, shown.__doc__ = getattr(act, "__name__", "verb"), act.__doc__
        return verb(run)

    return decorate


def ask(
    config: SiteConfig, access: Access, path: str, stored: Callable[[View], dict[str, Any]]
) -> tuple[dict[str, Any], str]:
    """A document, and where it is from: ``gateway`` or ``store``.

    Args:
        path: below ``/v1/sites/{site}``.
        stored: the same document from the stored state.

    Raises:
        GatewayError: neither could be had.
    """
    if access.url and access.offline:
        raise UsageError("--url asks a gateway, --offline asks none", hint="leave one of them out")
    url = "" if access.offline else access.url or _url(config)
    if url:
        try:
            return _ask_gateway(config, access, url, path), "gateway"
        except PeerUnreachable as problem:
            if access.url:
                raise
            note(f"note  no gateway answers at {url} ({problem}); this is from the store")
    from gateway.cli.stored import view_of

    return stored(view_of(config)), "store"


def _url(config: SiteConfig) -> str:
    """The configured admin listener's; empty when its port is only known to the running gateway."""
    settings = config.listeners.get("admin")
    if settings is None or settings.port == 0:
        return ""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  compared, not bound
    return f"https://{f'[{host}]' if ':' in host else host}:{settings.port}"


def _identity(config: SiteConfig, access: Access) -> ClientIdentity:
    from gateway.ports.adapter import ClientIdentity

    folder = config.path.absolute().parent / "pki" / "admin"
    files = {
        "certificate": access.certificate or folder / "operators" / f"{OPERATOR}.pem",
        "key": access.key or folder / "operators" / f"{OPERATOR}.key",
        "server_ca": access.anchors or folder / "server-ca.pem",
    }
    for file in files.values():
        if not file.is_file():
            raise UsageError(
                f"the operator's identity is incomplete: {file} is not there",
                code="cli.no-identity",
                hint="name it with --cert, --key and --ca, or read the store with --offline",
            )
    return ClientIdentity(**{name: file.absolute() for name, file in files.items()})


def tell(
    config: SiteConfig, access: Access, path: str, document: Mapping[str, Any], timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Post a document to a running gateway; its answer within ``timeout_s`` real seconds.

    Raises:
        GatewayError: nobody is there, or it refuses.
    """
    url = access.url or _url(config)
    if not url:
        raise UsageError(
            "the admin listener's address is not in the configuration (port 0 takes a free one)",
            code="cli.no-gateway",
            hint="name the running gateway with --url",
        )
    return _ask_gateway(config, access, url, path, document, timeout_s)


def _ask_gateway(
    config: SiteConfig,
    access: Access,
    url: str,
    path: str,
    document: Mapping[str, Any] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    import asyncio

    full = f"{url.rstrip('/')}/v1/sites/{quote(config.site)}{quote(path)}"
    return asyncio.run(_exchange(_identity(config, access), full, document, timeout_s))


async def _exchange(
    identity: ClientIdentity, url: str, posted: Mapping[str, Any] | None, timeout_s: float
) -> dict[str, Any]:
    from gateway.domain.errors import MalformedMessage
    from gateway.kit.asgi import parse_json
    from gateway.kit.http_client import HttpCaller

    headers = {"Accept": "application/json"}
    caller = HttpCaller(identity, url_hosts=(urlsplit(url).netloc,), allow_private=True, total_timeout_s=timeout_s)
    try:
        if posted is None:
            answer = await caller.request("GET", url, headers=headers)
        else:
            body = json.dumps(posted).encode()
            answer = await caller.post(url, headers={**headers, "Content-Type": "application/json"}, content=body)
    finally:
        await caller.aclose()
    document = parse_json(answer.body)
    if not isinstance(document, Mapping):
        raise MalformedMessage("the gateway's answer is no JSON object")
    if answer.status != 200:
        raise _refused(answer.status, document)
    return dict(document)


def _refused(status: int, document: Mapping[str, Any]) -> GatewayError:
    kind = NotFound if status == 404 else GatewayError
    text = f"the gateway said {status}: {document.get('message', '')}"
    for problem in document.get("problems") or ():
        note(f"{problem['key']} (line {problem['line']}): {problem['message']}")
    return kind(text, code=str(document.get("code") or "admin.refused"), hint=str(document.get("hint") or ""))
