"""Generated requests for every operation: whatever is sent, no answer is a server error, and every
answer is one that the description promises, in the shape it promises.

The API stands on SQLite with something of everything in it, and the ids of these things are handed
to the generator, so that it gets beyond 404."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from control_plane.api.people import bare_people
from control_plane.stores.sqlite import SqliteStore
from tests.api.world import DOCUMENT, World
from tests.conftest import LONG

_KNOWN = {"job_id": "j-0001", "machine_id": "m-1", "queues": "default", "autoscalers": "research"}
"""What exists, by the parameter's name, or by the noun in front of `{name}`."""


def _document() -> dict[str, Any]:
    document = copy.deepcopy(bare_people().openapi())
    # Who may send a request is proven in `test_auth.py`; here everybody has the token.
    del document["security"], document["components"]["securitySchemes"]
    for path, item in document["paths"].items():
        for parameter in [each for op in item.values() for each in op.get("parameters", ())]:
            known = _KNOWN.get(parameter["name"]) or _KNOWN.get(path.split("/")[2])
            if parameter["in"] == "path" and known and "artifacts" not in path:
                parameter["schema"] = {"anyOf": [{"const": known}, parameter["schema"]]}
    return document


def _schema() -> BaseSchema:
    """The description to test; at length also the borders of every single value, which takes a
    quarter of a minute to lay out."""
    settings = {
        "generation": {"deterministic": True},
        "phases": {"coverage": {"enabled": LONG}},
    }
    return schemathesis.openapi.from_dict(
        _document(), config=SchemathesisConfig.from_dict(settings)
    )


described = _schema()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An admin of a world with an autoscaler, jobs, a machine and some history."""
    path: Path = tmp_path_factory.mktemp("schema") / "orchctl.db"
    store = SqliteStore(path, durability="normal")
    world = World(store)
    with world.client() as client:
        client.put(
            "/v1/autoscalers/research",
            json={"document": DOCUMENT},
            headers={"If-None-Match": "*"},
        )
        for _ in range(3):
            client.post("/v1/jobs", json={"command": "true"})
        world.registered()
        yield client
    store.close()


@described.parametrize()
@settings(
    max_examples=200 if LONG else 12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case: Case[Any], crowded: TestClient) -> None:
    """Send one generated request and hold the answer against the description."""
    request = case.as_transport_kwargs(base_url="http://testserver")
    crowded.cookies.update(request.pop("cookies"))
    headers = request.pop("headers").items()
    request["headers"] = {name: value.encode("latin-1") for name, value in headers}
    if isinstance(request.get("data"), str | bytes):
        request["content"] = request.pop("data")
    response = crowded.request(**request)
    crowded.cookies.clear()
    case.validate_response(response, excluded_checks=[positive_data_acceptance])
