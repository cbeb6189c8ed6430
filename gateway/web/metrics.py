"""A site's status as Prometheus text (exposition format 0.0.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(status: Mapping[str, Any], *, ready: bool) -> str:
    """The text for one status document."""
    site = {"site": str(status["site"])}
    stations = status.get("stations") or ()
    envelopes = status.get("envelopes") or ()
    states: dict[str, int] = {}
    for envelope in envelopes:
        states[str(envelope["state"])] = states.get(str(envelope["state"]), 0) + 1
    families = (
        ("ready", "gauge", "Whether durable state can be written.", [(site, int(ready))]),
        ("sequence", "counter", "Number of the site's last step.", [(site, int(status["sequence"]))]),
        (
            "stations_connected",
            "gauge",
            "Charging stations with a line.",
            [(site, sum(1 for station in stations if station["connected"]))],
        ),
        ("stations", "gauge", "Charging stations known.", [(site, len(stations))]),
        ("sessions", "gauge", "Charging sessions under way.", [(site, len(status.get("sessions") or ()))]),
        (
            "envelopes",
            "gauge",
            "Operating envelopes by state.",
            [({**site, "state": state}, n) for state, n in sorted(states.items())],
        ),
        (
            "outbox_depth",
            "gauge",
            "Facts that are still owed to a peer.",
            [({**site, "peer": str(peer)}, int(n)) for peer, n in sorted((status.get("outbox") or {}).items())],
        ),
        (
            "standing_violation_watts",
            "gauge",
            "Power above a limit that nothing controllable can lower.",
            [
                ({**site, "node": str(node)}, int(watts))
                for node, watts in sorted((status.get("standing_violations_w") or {}).items())
            ],
        ),
    )
    return "\n".join(line for family in families for line in _family(*family)) + "\n"


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], int]]) -> Iterator[str]:
    full = f"gridgate_{name}_total" if kind == "counter" else f"gridgate_{name}"
    yield f"# HELP {full} {text}"
    yield f"# TYPE {full} {kind}"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{full}{{{pairs}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
