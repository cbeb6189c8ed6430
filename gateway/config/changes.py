"""What differs between two configurations of a site, and what of it a running gateway cannot take. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.config.settings import SiteConfig
from gateway.domain.errors import ConfigProblem
from gateway.domain.ids import NodeId

Change = tuple[str, str]
"""What was done (``added``, ``removed``, ``changed``), and to which thing, as ``node main/garage``."""

_FIXED: Mapping[str, tuple[str, Callable[[SiteConfig], object]]] = {
    "site.id": ("it names the site in every stored row", lambda c: c.site),
    "site.operator_domain": ("it names the evidence log", lambda c: c.operator_domain),
    "listeners": ("their sockets and certificates belong to the running process", lambda c: c.listeners),
    "client": ("what is shown to peers belongs to open lines", lambda c: c.identities),
    "store": ("it is open", lambda c: c.store),
    "peers": ("their relations are under way", lambda c: c.peers),
    "adapters": ("adapters read their options when they start", lambda c: c.adapters),
}


def changes(before: SiteConfig, after: SiteConfig) -> tuple[Change, ...]:
    """Everything that was added, removed or changed and may be, by name; empty where nothing was."""
    kinds: tuple[tuple[str, Mapping[Any, object], Mapping[Any, object]], ...] = (
        ("node", before.tree.nodes, after.tree.nodes),
        ("station", {s.id: s for s in before.stations}, {s.id: s for s in after.stations}),
        ("binding", _bindings(before), _bindings(after)),
        ("meter", before.meters, after.meters),
    )
    found = [change for kind, old, new in kinds for change in _differences(kind, old, new)]
    if before.timezone != after.timezone:
        found.append(("changed", "site.timezone"))
    return tuple(found)


def needs_restart(before: SiteConfig, after: SiteConfig) -> tuple[ConfigProblem, ...]:
    """What cannot change while the gateway runs, each with the reason."""
    file = str(after.path)
    problems = [
        ConfigProblem("config.needs-restart", file, 0, key, f"cannot change while the gateway runs: {why}")
        for key, (why, of) in _FIXED.items()
        if of(before) != of(after)
    ]
    open_listeners = {station.listener for station in before.stations}
    problems += [
        ConfigProblem(
            "config.needs-restart",
            file,
            0,
            f"stations[{station.id}].listener",
            "no station used this listener when the gateway started, so it is not open",
            station.listener,
        )
        for station in after.stations
        if station.listener not in open_listeners
    ]
    return tuple(problems)


def leaving(before: SiteConfig, after: SiteConfig) -> tuple[NodeId, ...]:
    """EVSEs that are no longer there, or that another station serves."""
    return tuple(node.path for node in before.tree.evses() if _device(before, node.path) != _device(after, node.path))


def _device(config: SiteConfig, evse: NodeId) -> tuple[str, int] | None:
    node = config.tree.nodes.get(evse)
    return None if node is None or node.evse is None else (node.evse.station, node.evse.number)


def _differences(kind: str, old: Mapping[Any, object], new: Mapping[Any, object]) -> Iterable[Change]:
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            yield "removed", f"{kind} {name}"
        elif name not in old:
            yield "added", f"{kind} {name}"
        elif old[name] != new[name]:
            yield "changed", f"{kind} {name}"


def _bindings(config: SiteConfig) -> dict[str, object]:
    return {f"{group.peer}/{group.group}": group for group in config.groups}
