"""The composition root: who, of the running adapters, is asked to start something with a grid party."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.config import load
from gateway.domain.errors import ActionRefused
from gateway.domain.ids import PeerId
from gateway.runtime import Gateway

DSO = PeerId("dso")


@dataclass
class Carrier:
    """Carries facts to some peers."""

    peers: tuple[str, ...]

    def serves(self, peer: PeerId) -> bool:
        return peer in self.peers


@dataclass
class Plain:
    """A running adapter that can start nothing."""

    carrier: Carrier | None
    asgi: dict[str, Any] = field(default_factory=dict)


@dataclass
class WithOperator(Plain):
    """One that can, once ``operator`` is there."""

    operator: object | None = None


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    """Not started; tests say what runs in it."""
    assert CliRunner().invoke(app, ["init", str(tmp_path / "depot")]).exit_code == 0
    return Gateway(load(tmp_path / "depot" / "site.yaml"))


def test_the_adapter_that_serves_a_peer_starts_things_with_it(gateway: Gateway) -> None:
    wanted, other = object(), object()
    gateway._running = [
        WithOperator(None, operator=other),
        WithOperator(Carrier(("aggregator",)), operator=other),
        WithOperator(Carrier(("dso",)), operator=wanted),
    ]
    assert gateway.operator_of(DSO) is wanted
    assert gateway.operator_of(PeerId("aggregator")) is other


@pytest.mark.parametrize(
    "running",
    [
        [],
        [Plain(None)],
        [Plain(Carrier(("dso",)))],
        [WithOperator(None, operator=object())],
        [WithOperator(Carrier(("dso",)), operator=None)],
        [WithOperator(Carrier(("aggregator",)), operator=object())],
        [WithOperator(Carrier(("DSO", "dso ")), operator=object())],
    ],
)
def test_where_no_adapter_can_the_wish_is_refused_by_name(gateway: Gateway, running: list[Plain]) -> None:
    gateway._running = running
    with pytest.raises(ActionRefused, match="nothing can be started with dso"):
        gateway.operator_of(DSO)


def test_a_gateway_that_does_not_run_starts_nothing(gateway: Gateway) -> None:
    with pytest.raises(ActionRefused):
        gateway.operator_of(DSO)
