"""pyoscp 0.1.0 as Capacity Provider, remote-controlled over HTTP. Runs in ``.peers/pyoscp``.

Usage::

    .peers/pyoscp/bin/python tests/interop/pyoscp_cp.py --state DIR [--port N] [--base-url URL]

prints one line ``ready http://127.0.0.1:PORT`` and serves until its stdin ends. Its OSCP side is
pyoscp's own blueprint at ``/oscp/cp/2.0``; pyoscp's own background thread sends the heartbeats.
``--base-url`` is what it tells others to call, for when TLS ends before it (``tls_forwarder.py``).
All of ``/control`` is ours, speaks JSON, and exists for tests (loopback only):

- ``POST /control/register  {"fp_url": ".../oscp/fp/2.0", "token": A}`` starts a registration with
  pyoscp's code; the answer is the Flexibility Provider's status, 0 without one. Its callback arrives later: then
  ``GET /control/state`` has ``"registered": true``.
- ``POST /control/handshake {"heartbeat_interval": 5}``
- ``POST /control/forecast  {"group_id": ..., "type": ..., "forecasted_blocks": [...]}``
- ``POST /control/heartbeat {"offline_mode_at": "..."}``: any text, as pyoscp would send it
- ``POST /control/raw       {"endpoint": ..., "body": ..., "token": optional}``
- ``GET  /control/state``   registration, and pyoscp's own view of its endpoints
- ``GET  /control/received`` every OSCP request that came, with headers, body and our status

The posting controls answer ``{"status": ..., "body": ..., "request_id": ...}``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import requests
from flask import Flask, Response, jsonify, request
from oscp import createBlueprint
from oscp.RegistrationManager import RegistrationDictMan, createOscpHeader, lock
from werkzeug.serving import make_server

TOKEN_B = "pyoscp-token-b-0123456789"
TIMEOUT_S = 10


class CapacityProvider:
    """What pyoscp hands decoded messages to."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, Any]] = []

    def handleAdjustGroupCapacityForecast(self, payload: Any, _token: str) -> None:
        self.handled.append(("adjust", payload))

    def handleGroupCapacityComplianceError(self, payload: Any, _token: str) -> None:
        self.handled.append(("compliance_error", payload))

    def handleUpdateGroupMeasurements(self, payload: Any, _token: str) -> None:
        self.handled.append(("measurements", payload))


def read(manager: RegistrationDictMan) -> Any:
    """Pyoscp's endpoints; its own reader does not wait for its writer."""
    with lock:
        return manager.readJson()


def make_app(manager: RegistrationDictMan, provider: CapacityProvider) -> Flask:
    """Pyoscp's blueprint and our control beside it."""
    app = Flask("pyoscp_cp")
    received: list[dict[str, Any]] = []
    app.register_blueprint(
        createBlueprint({"capacityprovider": provider, "registrationmanager": manager}, "cp"), name="oscp"
    )

    @app.after_request
    def remember(response: Response) -> Response:
        if request.path.startswith("/oscp/"):
            body = request.get_json(silent=True)
            headers = {k.lower(): v for k, v in request.headers.items()}
            received.append({"path": request.path, "headers": headers, "body": body, "status": response.status_code})
        return response

    add_control(app, manager)

    @app.get("/control/state")
    def state() -> Any:
        endpoints = read(manager)
        callbacks = [r for r in received if r["path"].endswith("/register") and r["status"] == 204]
        return jsonify(registered=bool(callbacks), endpoints=endpoints, handled=provider.handled)

    @app.get("/control/received")
    def all_received() -> Any:
        return jsonify(received)

    return app


def add_control(app: Flask, manager: RegistrationDictMan) -> None:
    """What makes pyoscp speak."""

    def send(endpoint: str, body: Any, token: str | None = None) -> Any:
        relation = read(manager)[TOKEN_B]["register"]
        headers = createOscpHeader(token or relation["token"])
        answer = requests.post(f"{relation['base_url']}/{endpoint}", headers=headers, json=body, timeout=TIMEOUT_S)
        return jsonify(status=answer.status_code, body=answer.text, request_id=headers["X-Request-ID"])

    @app.post("/control/register")
    def register() -> Any:
        wanted = request.get_json()
        manager._updateService(TOKEN_B, wanted["token"], wanted["fp_url"])
        try:
            manager._send_register(wanted["fp_url"], TOKEN_B, wanted["token"])
        except requests.HTTPError as problem:
            return jsonify(status=problem.response.status_code, body=problem.response.text)
        except requests.ConnectionError as problem:
            return jsonify(status=0, body=repr(problem))
        return jsonify(status=204, body="")

    @app.post("/control/handshake")
    def handshake() -> Any:
        wanted = {"measurement_configuration": ["CONTINUOUS"], **request.get_json()}
        return send("handshake", {"required_behaviour": wanted})

    @app.post("/control/forecast")
    def forecast() -> Any:
        return send("update_group_capacity_forecast", request.get_json())

    @app.post("/control/heartbeat")
    def heartbeat() -> Any:
        return send("heartbeat", request.get_json())

    @app.post("/control/raw")
    def raw() -> Any:
        wanted = request.get_json()
        return send(wanted["endpoint"], wanted["body"], wanted.get("token"))


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="folder for pyoscp's endpoints.json")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--base-url", default="")
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    mine = {"version": "2.0", "base_url": ""}  # the port is known only once it is bound
    manager = RegistrationDictMan([mine], filename=str(options.state / "endpoints.json"))
    server = make_server("127.0.0.1", options.port, make_app(manager, CapacityProvider()), threaded=True)
    url = f"http://127.0.0.1:{server.server_port}"
    mine["base_url"] = options.base_url or f"{url}/oscp/cp/2.0"
    manager.start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"ready {url}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
