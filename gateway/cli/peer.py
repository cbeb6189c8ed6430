"""``gridgate peer`` and ``adjust``: invite a grid party, start something with it, ask it for capacity."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from gateway.cli.options import SITE_FILE, FileOption, Json, load_config
from gateway.cli.say import Exit, UsageError, printable, put, put_json, table, verb
from gateway.cli.source import Site, site_verb

app = typer.Typer(help="Grid parties.", no_args_is_help=True)

TOKEN_BYTES = 48
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")

Peer = Annotated[str, typer.Argument(metavar="PEER", help="The grid party's id in the configuration.")]
Reason = Annotated[str, typer.Option(help="Why, in a sentence; it goes into the evidence.")]


@app.command("list")
@site_verb(reads=True)
def list_peers(site: Site) -> Exit:
    """List the configured grid parties and whether they live."""
    status, source = site.ask("", lambda view: view.status())
    seen = {s["source"]: s for s in status["sources"]}
    rows = []
    for peer in site.config.peers:
        known = seen.get(peer.id)
        word = "never heard" if known is None else "ended" if known["ended"] else "alive" if known["alive"] else "LOST"
        groups = [group.group for group in site.config.groups if group.peer == peer.id]
        rows.append(
            {"peer": peer.id, "adapter": peer.adapter, "dialect": peer.dialect, "state": word, "groups": groups}
        )
    if site.as_json:
        put_json({"peers": rows, "from": source})
        return Exit.OK
    words = [(str(r["peer"]), f"{r['adapter']}, {r['dialect']}", str(r["state"]), ", ".join(r["groups"])) for r in rows]
    for line in table(words) or ["no grid parties"]:
        put(printable(line))
    return Exit.OK


@app.command("invite")
@verb
def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new grid party's id.")],
    file: FileOption = SITE_FILE,
    json_output: Json = False,
) -> Exit:
    """Draw the onboarding token of a new grid party, and say what to write into the configuration.

    The token goes to the party through a channel of your own; it is good for one registration.
    """
    import secrets

    config = load_config(file)
    if not _NAME.fullmatch(name):
        raise UsageError(f'"{name}" is no id', hint="small letters, digits and dashes, 32 at most")
    if any(peer.id == name for peer in config.peers):
        raise UsageError(f'"{name}" is a peer already', hint="`gridgate peer register` starts anew with it")
    folder = config.path.absolute().parent / "secrets"
    token = folder / f"{name}.token"
    if token.exists():
        raise UsageError(f"{token} is there already; nothing was written", hint="use it, or remove it first")
    folder.mkdir(mode=0o700, exist_ok=True)
    token.touch(mode=0o600)
    token.write_text(secrets.token_urlsafe(TOKEN_BYTES) + "\n", encoding="ascii")
    rows = _ROWS.format(name=name)
    if json_output:
        put_json({"peer": name, "token": str(token), "rows": rows})
        return Exit.OK
    put(printable(f"wrote  {token}   give it to {name}, on paper or by a channel that both trust"))
    put("next   add to the configuration, then `gridgate check` and start the gateway again:")
    put()
    for line in rows.splitlines():
        put(line)
    return Exit.OK


_ROWS = """\
peers:
  - id: {name}
    adapter: oscp
    listener: grid
    certificate: {{san_uri: "urn:gridgate:party:{name}"}}
    token: file:secrets/{name}.token
    url_hosts: [{name}.example.org]        # the only hosts that are called for it
bindings:
  - peer: {name}
    group: ITS-NAME-FOR-THE-PLACE
    node: main
"""


def _start(path: str, text: str) -> None:
    @site_verb(reads=False)
    def start(site: Site, peer: Peer, reason: Reason) -> Exit:
        return _told(site.tell(f"/peers/{peer}/{path}", {"reason": reason}), site.as_json)

    app.command(path, help=text)(start)


_start("register", "Start a registration with a grid party: it is called at the address that we know of it.")
_start("renew", "Give a grid party a new token and our present address.")
_start("end", "End the relation to a grid party. Its fallback stays in force until it is released.")
_start("handshake", "Agree anew with a grid party on who wants what of whom.")


@site_verb(reads=False, by_option=True)
def adjust(
    site: Site,
    peer: Peer,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The peer's name for the place.")],
    watts: Annotated[int, typer.Option(min=0, help="The capacity wanted in total, W.")],
    start: Annotated[str, typer.Option("--from", help="From this instant (RFC 3339).")],
    end: Annotated[str, typer.Option("--to", help="Before this instant (RFC 3339).")],
    reason: Reason,
    type_: Annotated[str, typer.Option("--type", help="The type of forecast that is meant.")] = "CONSUMPTION",
) -> Exit:
    """Ask a grid party for another capacity. Its next forecast says whether it grants it."""
    body = {
        "reason": reason,
        "group": group,
        "type": type_,
        "blocks": [{"start": start, "end": end, "watts": watts}],
    }
    return _told(site.tell(f"/peers/{peer}/adjust", body), site.as_json)


def _told(document: dict[str, object], json_output: bool) -> Exit:
    if json_output:
        put_json(document)
    else:
        put(printable(f"ok  {document['action']} {document['subject']}"))
        put(printable(f"    call {document.get('call') or '-'}; `gridgate trace {document['request_id']}` follows it"))
    return Exit.OK
