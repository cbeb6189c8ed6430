"""``gridgate check``: everything that is wrong with a configuration, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.cli.options import SITE_FILE, File, Json, load_config
from gateway.cli.say import Exit, printable, problem_document, problem_lines, put, put_json, verb
from gateway.domain.errors import ConfigError

if TYPE_CHECKING:
    from gateway.config import SiteConfig


@verb
def check(file: File = SITE_FILE, json_output: Json = False) -> Exit:
    """Say everything that is wrong with a configuration, or what it describes.

    Exit code 3 if there are mistakes.
    """
    try:
        config = load_config(file)
        from gateway.runtime import examine

        examine(config)
    except ConfigError as problem:
        if any(mistake.code == "config.no-file" for mistake in problem.problems):
            raise
        _tell(problem, json_output)
        return Exit.FOUND
    from gateway.config import relaxations

    relaxed = list(relaxations(config))
    if json_output:
        put_json({"ok": True, "problems": [], "relaxations": relaxed, "summary": summary(config)})
        return Exit.OK
    said = summary(config)
    put(f"site       {said['site']} ({said['timezone']}), {said['nodes']} nodes, {said['evses']} EVSEs")
    put(f"stations   {said['stations']}")
    put(f"peers      {printable(', '.join(said['peers'])) or '-'}")
    put(f"bindings   {printable(', '.join(said['bindings'])) or '-'}")
    put(f"listeners  {printable(', '.join(said['listeners']))}")
    put(f"store      {printable(said['store'])}")
    for relaxation in relaxed:
        put(f"warn  {printable(relaxation)}")
    put(f"ok  {printable(str(file))} can be run")
    return Exit.OK


def summary(config: SiteConfig) -> dict[str, Any]:
    """What a configuration describes."""
    return {
        "site": config.site,
        "timezone": config.timezone,
        "sha256": config.sha256,
        "nodes": len(config.tree.nodes),
        "evses": sum(1 for _ in config.tree.evses()),
        "stations": len(config.stations),
        "peers": [f"{peer.id} ({peer.adapter})" for peer in config.peers],
        "bindings": [f"{group.peer} {group.group} on {group.node}" for group in config.groups],
        "listeners": [f"{name} {s.host}:{s.port} {s.trust.value}" for name, s in sorted(config.listeners.items())],
        "store": str(config.store.path),
    }


def _tell(problem: ConfigError, as_json: bool) -> None:
    if as_json:
        put_json({"ok": False, "problems": [problem_document(p) for p in problem.problems], "relaxations": []})
        return
    for mistake in problem.problems:
        for line in problem_lines(mistake):
            put(line)
    put(f"failed  {len(problem.problems)} mistake(s)")
