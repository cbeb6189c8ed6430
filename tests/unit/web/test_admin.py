from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from gateway.domain.errors import ActionRefused, ConfigError, ConfigProblem, LocalError, StoreError, UnknownNode
from gateway.domain.events import OperatorActed, OperatorAction
from gateway.domain.evidence import Json
from gateway.domain.ids import NodeId, SiteId
from gateway.domain.measurement import Measurement, Quality, Quantity
from gateway.domain.timeline import rfc3339
from gateway.kit.asgi import MAX_BODY_BYTES
from gateway.kit.peer import EXTENSION, PeerInfo
from gateway.ports.gate import Inbound, Receipt, Verdict
from gateway.web.admin import ACTION, admin_app, build, require_actions
from gateway.web.rights import Action

pytestmark = pytest.mark.anyio

NOW = datetime(2031, 3, 1, 18, tzinfo=UTC)
OPERATOR = "urn:gridgate:operator:alice"
METER = "urn:gridgate:meter:main"
STRANGER = "urn:gridgate:party:dso"
URL = "/v1/sites/depot"


class FakeView:
    """A site with one EVSE that remembers what was measured."""

    def __init__(self) -> None:
        self.stored: list[Measurement] = []
        self.acts: list[tuple[OperatorActed, NodeId | None]] = []
        self.is_ready = True
        self.broken = False

    @property
    def site(self) -> SiteId:
        return SiteId("depot")

    @property
    def meters(self) -> Mapping[str, NodeId]:
        return {METER: NodeId("main"), "urn:gridgate:meter:house": NodeId("main/house")}

    @staticmethod
    def now() -> datetime:
        return NOW

    def status(self) -> dict[str, Json]:
        return {
            "site": "depot",
            "at": rfc3339(NOW),
            "sequence": 41,
            "stations": [{"station": "CP-1", "connected": True}, {"station": "CP-2", "connected": False}],
            "sessions": [],
            "envelopes": [{"state": "ACTIVE"}, {"state": "ACTIVE"}],
            "outbox": {"dso": 3},
            "standing_violations_w": {"main": 1200},
        }

    def tree(self) -> dict[str, Json]:
        return {"site": "depot", "nodes": []}

    def capacity(self, node: NodeId, minutes: int) -> dict[str, Json]:
        return {"node": node, "minutes": minutes}

    def envelopes(self) -> list[Json]:
        return [{"envelope": "env_1"}]

    def stations(self) -> dict[str, Json]:
        return {"stations": [], "approved": [], "unknown": [{"station": "NEW-7"}]}

    async def approve_station(self, event: OperatorActed, inbound: Inbound, evse: NodeId, credential: str) -> Receipt:
        if credential != "ab12":
            raise ActionRefused("nobody knocked with that")
        self.acts.append((event, evse))
        return Receipt(Verdict.STORED)

    async def reload(self, event: OperatorActed, inbound: Inbound) -> tuple[Receipt, Sequence[tuple[str, str]]]:
        if self.broken:
            raise ConfigError(
                (ConfigProblem("config.range", "site.yaml", 7, "nodes[0].import_max_w", "too low", "-5"),)
            )
        self.acts.append((event, None))
        return Receipt(Verdict.STORED), [("removed", "station CP-2")]

    async def revoke_station(self, event: OperatorActed, inbound: Inbound) -> Receipt:
        self.acts.append((event, None))
        return Receipt(Verdict.STORED)

    def explain(self, evse: NodeId) -> dict[str, Json]:
        if evse != "main/garage/evse-1":
            raise UnknownNode(f'no node "{evse}"', hint="see the tree")
        return {"evse": evse, "binding": "DEMAND"}

    def ready(self) -> dict[str, Json]:
        return {"ready": self.is_ready}

    async def measure(self, samples: Sequence[Measurement]) -> None:
        if self.broken:
            raise StoreError("disk full")
        self.stored += samples


class Client:
    """A peer with a certificate that carries ``uris``; None shows no certificate."""

    def __init__(self, view: FakeView, *uris: str, certificate: str = "ab" * 32) -> None:
        peer = PeerInfo("admin", "127.0.0.1", cert_sha256=certificate, san_uris=uris)
        app = admin_app(view)

        async def proven(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "extensions": {EXTENSION: peer}}, receive, send)

        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(proven, raise_app_exceptions=False), base_url="http://t"
        )

    async def get(self, path: str) -> httpx.Response:
        return await self._client.get(path)

    async def post(self, rows: Any, *, path: str = f"{URL}/measurements", **options: Any) -> httpx.Response:
        options.setdefault("content", json.dumps({"measurements": rows}).encode())
        options.setdefault("headers", {"Content-Type": "application/json"})
        return await self._client.post(path, **options)


def row(node: str = "main", **fields: Any) -> dict[str, Any]:
    return {"node": node, "quantity": "power_w", "value": 38_870, "measured_at": "2031-03-01T17:59:55Z", **fields}


@pytest.fixture
def view() -> FakeView:
    return FakeView()


async def test_a_meter_posts_its_own_node_and_hears_204_once_it_is_stored(view: FakeView) -> None:
    answer = await Client(view, METER).post([row(), row(quantity="energy_import_wh", value=12)])
    assert (answer.status_code, answer.content) == (204, b"")
    first = Measurement(
        NodeId("main"), Quantity.P, 38_870, datetime(2031, 3, 1, 17, 59, 55, tzinfo=UTC), NOW, Quality.GOOD, METER
    )
    assert view.stored[0] == first
    assert view.stored[1].quantity is Quantity.E_IMPORT


async def test_a_meter_cannot_report_another_node(view: FakeView) -> None:
    answer = await Client(view, METER).post([row(), row("main/house")])
    assert answer.status_code == 403
    assert answer.json()["code"] == "peer.not-authorised"
    assert view.stored == []


@pytest.mark.parametrize("uris", [(OPERATOR,), (STRANGER,), (), (METER, OPERATOR), ("urn:gridgate:meter:unknown",)])
async def test_only_known_meters_may_post(view: FakeView, uris: tuple[str, ...]) -> None:
    assert (await Client(view, *uris).post([row()])).status_code == 403
    assert view.stored == []


async def test_what_was_not_stored_is_not_acknowledged(view: FakeView) -> None:
    view.broken = True
    answer = await Client(view, METER).post([row()])
    assert answer.status_code == 503
    assert answer.json() == {"code": "store.error", "message": "disk full", "hint": StoreError.hint}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        "main",
        [7],
        [row(value=1.5)],
        [row(value=True)],
        [row(value=2**54)],
        [row(quantity="power_kw")],
        [row(quality="FINE")],
        [row(measured_at="2031-03-01T17:59:55")],
        [row(measured_at=5)],
        [{**row(), "node": 5}],
        [row(colour="red")],
        [{"node": "main"}],
        [row()] * 1_001,
    ],
)
async def test_a_body_that_means_nothing_is_refused_with_words(view: FakeView, rows: Any) -> None:
    answer = await Client(view, METER).post(rows)
    assert answer.status_code == 400
    assert answer.json()["code"] == "admin.measurement"
    assert set(answer.json()) == {"code", "message", "hint"}
    assert view.stored == []


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"content": b"{"}, 400, "peer.json"),
        ({"content": b"x" * (MAX_BODY_BYTES + 1)}, 413, "peer.body-too-large"),
        ({"headers": {"Content-Type": "text/plain"}}, 415, "admin.media-type"),
        ({"path": "/v1/sites/other/measurements"}, 404, "admin.not-found"),
    ],
)
async def test_posts_that_cannot_be_read_are_refused(
    view: FakeView, options: dict[str, Any], status: int, code: str
) -> None:
    answer = await Client(view, METER).post([row()], **options)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert view.stored == []


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (URL, "sequence"),
        (f"{URL}/tree", "nodes"),
        (f"{URL}/envelopes", "envelopes"),
        (f"{URL}/stations", "unknown"),
        (f"{URL}/evses/main/garage/evse-1/explain", "binding"),
        ("/openapi.json", "paths"),
    ],
)
async def test_an_operator_reads_and_nobody_else_does(view: FakeView, path: str, key: str) -> None:
    answer = await Client(view, OPERATOR).get(path)
    assert answer.status_code == 200
    assert key in answer.json()
    assert (await Client(view, METER).get(path)).status_code == 403
    assert (await Client(view, OPERATOR, METER).get(path)).status_code == 403
    assert (await Client(view, OPERATOR, certificate="").get(path)).status_code == 403


@pytest.mark.parametrize(
    "path", ["/v1/sites/other", f"{URL}/evses/main/explain", "/docs", "/redoc", "/v1/sites/depot/secrets"]
)
async def test_what_is_not_there_is_404(view: FakeView, path: str) -> None:
    answer = await Client(view, OPERATOR).get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"code", "message", "hint"}


@pytest.mark.parametrize("uris", [(OPERATOR,), (METER,), (STRANGER,), ()])
async def test_health_needs_any_certificate(view: FakeView, uris: tuple[str, ...]) -> None:
    assert (await Client(view, *uris).get("/health/live")).status_code == 200
    assert (await Client(view, *uris, certificate="").get("/health/live")).status_code == 403


async def test_a_gateway_that_cannot_store_is_alive_and_not_ready(view: FakeView) -> None:
    view.is_ready = False
    assert (await Client(view, OPERATOR).get("/health/live")).status_code == 200
    assert (await Client(view, OPERATOR).get("/health/ready")).status_code == 503


async def test_metrics_are_prometheus_text(view: FakeView) -> None:
    answer = await Client(view, OPERATOR).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'gridgate_sequence_total{site="depot"} 41' in lines
    assert 'gridgate_outbox_depth{site="depot",peer="dso"} 3' in lines
    assert 'gridgate_stations_connected{site="depot"} 1' in lines
    assert 'gridgate_standing_violation_watts{site="depot",node="main"} 1200' in lines
    assert 'gridgate_envelopes{site="depot",state="ACTIVE"} 2' in lines


async def test_a_bug_of_ours_is_500_without_its_text(view: FakeView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeView, "tree", lambda self: 1 / 0)
    answer = await Client(view, OPERATOR).get(f"{URL}/tree")
    assert (answer.status_code, answer.json()["code"]) == (500, "admin.internal")
    assert "division" not in answer.text


def test_every_route_declares_an_action(view: FakeView) -> None:
    routes = build(view).routes
    assert len(routes) == 19
    for route in routes:
        assert isinstance(route, APIRoute)
        assert Action((route.openapi_extra or {})[ACTION])
        assert len(route.dependencies) == 1


def test_a_new_route_without_an_action_is_refused(view: FakeView) -> None:
    app = build(view)
    app.get("/v1/everything")(lambda: {})
    with pytest.raises(LocalError, match="/v1/everything"):
        require_actions(app.routes)


APPROVAL = {"reason": "replaced", "evse": "main/garage/evse-1", "credential": "ab12"}


async def test_an_operator_approves_and_revokes_a_station(view: FakeView) -> None:
    operator = Client(view, OPERATOR)
    for verb, body in (("approve", APPROVAL), ("revoke", {"reason": "gone"})):
        path = f"{URL}/stations/NEW%207/{verb}"
        answer = await operator.post(None, path=path, content=json.dumps(body).encode())
        assert answer.status_code == 200
        assert (answer.json()["action"], answer.json()["subject"]) == (f"station.{verb}", "NEW 7")
    (approved, evse), (revoked, _) = view.acts
    assert (approved.action, evse, approved.reason) == (OperatorAction.APPROVE, "main/garage/evse-1", "replaced")
    assert approved.message.actor.principal == OPERATOR
    assert revoked.action is OperatorAction.REVOKE


@pytest.mark.parametrize("uris", [(METER,), (STRANGER,), (), (OPERATOR, METER)])
async def test_nobody_else_approves(view: FakeView, uris: tuple[str, ...]) -> None:
    content = json.dumps(APPROVAL).encode()
    answer = await Client(view, *uris).post(None, path=f"{URL}/stations/NEW-7/approve", content=content)
    assert answer.status_code == 403
    assert view.acts == []


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"evse": 7}, 400, "admin.approve"),
        ({"credential": None}, 400, "admin.approve"),
        ({"reason": " "}, 400, "admin.reason"),
        ({"colour": "red"}, 400, "admin.reason"),
        ({"credential": "cd"}, 409, "domain.action-refused"),
    ],
)
async def test_an_approval_that_means_nothing_is_refused(
    view: FakeView, change: dict[str, Any], status: int, code: str
) -> None:
    content = json.dumps(APPROVAL | change).encode()
    answer = await Client(view, OPERATOR).post(None, path=f"{URL}/stations/NEW-7/approve", content=content)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert view.acts == []


async def test_a_reload_says_what_changed(view: FakeView) -> None:
    answer = await Client(view, OPERATOR).post(None, path=f"{URL}/reload", content=b'{"reason": "a new circuit"}')
    assert answer.status_code == 200
    assert answer.json()["changes"] == ["removed station CP-2"]
    [(event, _)] = view.acts
    assert (event.action, event.subject) == (OperatorAction.RELOAD, "depot")


async def test_a_refused_reload_tells_every_mistake_with_its_line(view: FakeView) -> None:
    view.broken = True
    answer = await Client(view, OPERATOR).post(None, path=f"{URL}/reload", content=b'{"reason": "a new circuit"}')
    assert answer.status_code == 422
    [problem] = answer.json()["problems"]
    assert (problem["code"], problem["line"], problem["key"]) == ("config.range", 7, "nodes[0].import_max_w")


@pytest.mark.parametrize(("query", "minutes"), [("", 30), ("?minutes=1440", 1_440)])
async def test_a_nodes_capacity_is_told_for_as_long_as_is_asked(view: FakeView, query: str, minutes: int) -> None:
    answer = await Client(view, OPERATOR).get(f"{URL}/nodes/main/garage/capacity{query}")
    assert (answer.status_code, answer.json()) == (200, {"node": "main/garage", "minutes": minutes})


@pytest.mark.parametrize("minutes", ["0", "-5", "1441", "ten", "99999999999", ""])
async def test_a_time_that_cannot_be_looked_at_is_refused(view: FakeView, minutes: str) -> None:
    answer = await Client(view, OPERATOR).get(f"{URL}/nodes/main/capacity?minutes={minutes}")
    assert (answer.status_code, answer.json()["code"]) == (400, "admin.minutes")


async def test_a_meter_does_not_read_a_nodes_capacity(view: FakeView) -> None:
    assert (await Client(view, METER).get(f"{URL}/nodes/main/capacity")).status_code == 403
