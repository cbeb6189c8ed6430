"""The generated messages against the schemas they come from."""

from __future__ import annotations

import json
from importlib.resources import files

import msgspec
import pytest

from adapters.ocpp.diagnosis import diagnose
from adapters.ocpp.wire import REQUESTS, RESPONSES, Version, encode, request_decoder, response_decoder, v16, v201
from adapters.ocpp.wire.frames import ErrorCode

V16, V201 = Version.V16, Version.V201

DOCUMENTS = [
    (version, path.name.removesuffix(".json"), path.read_bytes().decode("utf-8-sig"))
    for version, package in ((V16, "v16"), (V201, "v201"))
    for path in sorted((files("ocpp") / package / "schemas").iterdir(), key=lambda p: p.name)
    if path.name.endswith(".json")
]


@pytest.mark.parametrize(("version", "name", "text"), DOCUMENTS, ids=[f"{v}-{n}" for v, n, _ in DOCUMENTS])
def test_every_property_keeps_its_name_and_whether_it_is_required(version: Version, name: str, text: str):
    document = json.loads(text)
    table = RESPONSES if name.endswith("Response") else REQUESTS
    struct = table[version][name.removesuffix("Response").removesuffix("Request")]
    found = {field.encode_name: field.required for field in msgspec.structs.fields(struct)}
    required = set(document.get("required", ()))
    assert found == {key: key in required for key in document.get("properties", {})}


def test_every_message_has_a_working_decoder():
    for version in Version:
        for action in REQUESTS[version]:
            request_decoder(version, action)
        for action in RESPONSES[version]:
            response_decoder(version, action)


def test_absent_optional_fields_are_left_out():
    assert encode(v16.StatusNotificationRequest(connector_id=1, error_code="NoError", status="Available")) == (
        b'{"connectorId":1,"errorCode":"NoError","status":"Available"}'
    )


def test_unknown_fields_are_ignored():
    message = request_decoder(V201, "Heartbeat").decode(b'{"vendorThing":[1,2]}')
    assert message == v201.HeartbeatRequest()


@pytest.mark.parametrize("value", ['"12.5"', "12.5", "12"])
def test_a_sampled_value_may_be_text_or_number_in_either_version(value: str):
    old = f'{{"connectorId":1,"meterValue":[{{"timestamp":"t","sampledValue":[{{"value":{value}}}]}}]}}'
    new = f'{{"evseId":1,"meterValue":[{{"timestamp":"t","sampledValue":[{{"value":{value}}}]}}]}}'
    request_decoder(V16, "MeterValues").decode(old.encode())
    request_decoder(V201, "MeterValues").decode(new.encode())


@pytest.mark.parametrize(
    ("version", "action", "payload", "code"),
    [
        (V16, "Authorize", '{"idTag":7}', ErrorCode.TYPE),
        (V16, "Authorize", "{}", ErrorCode.PROTOCOL),
        (V16, "Authorize", '{"idTag":"123456789012345678901"}', ErrorCode.PROPERTY),
        (V16, "StatusNotification", '{"connectorId":1,"errorCode":"NoError","status":"Odd"}', ErrorCode.PROPERTY),
        (V201, "BootNotification", '{"reason":"PowerUp"}', ErrorCode.OCCURRENCE),
        (
            V201,
            "BootNotification",
            '{"reason":"Odd","chargingStation":{"model":"m","vendorName":"v"}}',
            ErrorCode.PROPERTY,
        ),
        (V201, "MeterValues", '{"evseId":1,"meterValue":[]}', ErrorCode.OCCURRENCE),
        (V201, "MeterValues", '{"evseId":"1","meterValue":[]}', ErrorCode.TYPE),
        (V201, "Heartbeat", "{oops", ErrorCode.FORMAT),
    ],
)
def test_a_refused_payload_gets_the_exact_code(version: Version, action: str, payload: str, code: ErrorCode):
    with pytest.raises(msgspec.DecodeError):
        request_decoder(version, action).decode(payload.encode())
    found, text = diagnose(version, action, payload.encode())
    assert found is code
    assert "123456789012345678901" not in text
