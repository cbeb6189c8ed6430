from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.stored import view_of
from gateway.config import load
from gateway.domain.errors import LocalError
from gateway.domain.measurement import Measurement
from gateway.infra.http_server import HttpListener
from gateway.web.admin import admin_app
from tests.unit.cli.evening import Said, gridgate

EVSE = "main/garage/evse-1"
VERBS: list[tuple[tuple[str, ...], str]] = [
    (("status",), "envelopes"),
    (("tree",), "nodes"),
    (("explain", EVSE), "binding"),
]


@asynccontextmanager
async def running(file: Path) -> AsyncIterator[str]:
    """The site's admin listener as its gateway would serve it; its URL."""
    config = load(file)
    settings = config.listeners["admin"]
    free = type(settings)(**{**{f: getattr(settings, f) for f in settings.__slots__}, "port": 0})
    listener = HttpListener(free, admin_app(view_of(config)))
    await listener.start()
    try:
        yield listener.url
    finally:
        await listener.stop(1.0)


async def asked(*words: str | Path) -> Said:
    return await asyncio.to_thread(gridgate, *words)


@pytest.mark.anyio
@pytest.mark.parametrize(("words", "key"), VERBS)
async def test_a_running_gateway_is_asked_with_the_operators_certificate(
    evening: Path, words: tuple[str, ...], key: str
) -> None:
    async with running(evening) as url:
        said = await asked(*words, evening, "--url", url, "--json")
    assert said.code == 0, said.err
    assert said.document["from"] == "gateway"
    assert key in said.document


@pytest.mark.anyio
async def test_what_the_gateway_refuses_is_told_with_its_code(evening: Path) -> None:
    folder = evening.parent / "pki" / "admin" / "meters"
    async with running(evening) as url:
        meter = ("--cert", folder / "main.pem", "--key", folder / "main.key")
        refused = await asked("tree", evening, "--url", url, *meter, "--json")
        unknown = await asked("explain", "main/garage/evse-9", evening, "--url", url, "--json")
    assert (refused.code, refused.document["error"]["code"]) == (1, "peer.not-authorised")
    assert (unknown.code, unknown.document["error"]["code"]) == (1, "domain.unknown-node")


@pytest.mark.parametrize(("words", "key"), VERBS)
def test_the_store_is_read_offline_and_the_answer_says_so(evening: Path, words: tuple[str, ...], key: str) -> None:
    said = gridgate(*words, evening, "--offline", "--json")
    assert said.code == 0
    assert said.document["from"] == "store"
    assert said.document["at"].startswith("2026-03-01T17:06:")
    assert key in said.document
    assert "from the store, as last written" in gridgate(*words, evening, "--offline").out


def test_offline_shows_what_the_gateway_left(evening: Path) -> None:
    status = gridgate("status", evening, "--offline", "--json").document
    [envelope] = status["envelopes"]
    assert (envelope["node"], envelope["state"]) == ("main", "ACTIVE")
    assert envelope["values"] == [{"dimension": "sum_w", "value": 30_000}]
    nodes = {n["node"]: n for n in gridgate("tree", evening, "--offline", "--json").document["nodes"]}
    assert nodes["main"]["limit_w"] == 30_000


def test_a_gateway_that_does_not_answer_is_replaced_by_the_store(
    evening: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.source._url", lambda _config: "https://127.0.0.1:1")
    said = gridgate("tree", evening, "--json")
    assert (said.code, said.document["from"]) == (0, "store")
    assert "no gateway answers at https://127.0.0.1:1" in said.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--url", "https://127.0.0.1:1"), 1, "transport.peer-unreachable"),
        (("--url", "https://127.0.0.1:1", "--offline"), 2, "cli.usage"),
        (("--url", "https://127.0.0.1:1", "--cert", "nobody.pem"), 2, "cli.no-identity"),
        (("--url", "http://127.0.0.1:1"), 1, "peer.url"),
    ],
)
def test_a_gateway_that_was_named_must_answer(evening: Path, words: Sequence[str], code: int, text: str) -> None:
    said = gridgate("status", evening, *words)
    assert said.code == code
    assert said.err.startswith(f"error  {text}")


def test_an_unknown_evse_is_a_usage_error(evening: Path) -> None:
    said = gridgate("explain", "main/house", evening, "--offline")
    assert said.code == 2
    assert "is no EVSE" in said.err


def test_explain_names_the_message_behind_a_binding_envelope() -> None:
    from gateway.cli.explain import lines

    document: dict[str, Any] = {
        "evse": EVSE,
        "at": "2026-03-01T17:06:00Z",
        "target_w": 5_309,
        "installed_w": 5_309,
        "worst_case_w": 5_309,
        "proven": False,
        "class": "fresh envelope",
        "code": "ENVELOPE",
        "why": "dso limits main (ACTIVE since 2026-03-01T17:00:00Z)",
        "until": "2026-03-01T18:00:00Z",
        "binding": "ENVELOPE main:envelope:env_1",
        "binding_node": "main",
        "decision": "dec_1",
        "session": None,
        "uncommandable_since": None,
        "lying": False,
        "envelope": {
            "envelope": "env_1",
            "source": "dso",
            "state": "ACTIVE",
            "values": [{"dimension": "sum_w", "value": 30_000, "revision": "evd_1", "request_id": "req-7"}],
        },
    }
    text = "\n".join(lines(document, "gateway"))
    assert "envelope env_1 from dso: ACTIVE" in text
    assert "bound by       fresh envelope (ENVELOPE)" in text
    assert "until          2026-03-01T18:00:00Z" in text
    assert "UNPROVEN" in text
    assert "request req-7" in text


def test_a_stored_view_takes_no_measurements(evening: Path) -> None:
    view = view_of(load(evening))
    samples: Sequence[Measurement] = ()
    with pytest.raises(LocalError, match="takes no measurements"):
        asyncio.run(view.measure(samples))
