"""The committed description of the interface is the one the code has, and says what is needed."""

from __future__ import annotations

import json

from starlette.testclient import TestClient

from control_plane.api import openapi


def test_the_committed_file_is_current() -> None:
    committed = openapi.FILE.read_text(encoding="utf-8")
    assert committed == openapi.text(), "run `python -m control_plane.api.openapi`"


def test_the_server_sends_the_same(client: TestClient) -> None:
    assert client.get("/v1/openapi.json").json() == json.loads(openapi.text())


def test_every_operation_is_described() -> None:
    document = json.loads(openapi.text())
    ids = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (method, path)
            assert operation["tags"], (method, path)
            assert "4XX" in operation["responses"], (method, path)
            ids.append(operation["operationId"])
    assert len(ids) == len(set(ids))
    assert "submit_job" in ids
