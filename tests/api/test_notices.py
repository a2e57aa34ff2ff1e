"""What clouds deliver over HTTP: who may, what is refused, and that nothing else opens by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient

from control_plane.api.app import create_app
from control_plane.api.edge import NOTICES_MAX_BYTES
from control_plane.clouds import cloud_sources
from control_plane.core.model import Machine, MachineState
from control_plane.identity.web import Web
from control_plane.interruptions import Interruptions
from tests.api.world import NOTICES_TOKEN, NOW, TOKEN, World, offer
from tests.fakes import notices
from tests.fakes.metadata.identity import GOOGLE_KID, Clouds, Fault, spare_key

SERVER = "https://orchctl.example"
PUSHER = "orchctl-notices@acme-ml.iam.gserviceaccount.com"
INSTANCE = "projects/acme-ml/zones/us-central1-a/instances/orchctl-m1-1"
VM = "/subscriptions/0/resourceGroups/ml/providers/Microsoft.Compute/virtualMachines/m1"
WARNING = notices.aws_warning("i-1", NOW)


class Sky:
    """A control plane that clouds can reach, with a machine at each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clouds = Clouds(world.clock.now)
        web = Web(self.clouds.transport())
        sources = cloud_sources(web, world.clock.now, SERVER)
        world.interruptions = Interruptions(world.service, sources)
        self.http = TestClient(world.app())
        self.machine("aws", "i-1")
        self.machine("gcp", INSTANCE)
        self.machine("azure", VM)

    def machine(self, provider: str, provider_id: str, **changes: Any) -> None:
        begun = self.world.machine(provider, MachineState.READY)
        sold = (replace(offer(), provider=provider, region="us-east-1"),)
        made = replace(begun, provider_id=provider_id, offers=sold, **changes)
        self.world.store.machine_put(made, expected_version=begun.version, fence=None)

    def read(self, provider: str) -> Machine:
        return self.world.store.machine_get(provider)

    def untouched(self) -> bool:
        machines = self.world.store.machine_list()
        return all(each.state is MachineState.READY for each in machines)

    def send(self, cloud: str, delivery: Any, token: str = NOTICES_TOKEN) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return self.http.post(f"/v1/notices/{cloud}", json=delivery, headers=headers)

    def push_token(self, **changes: Any) -> str:
        claims = self.clouds.gcp_push_claims(f"{SERVER}/v1/notices/gcp", PUSHER)
        return self.clouds.gcp_token(claims | changes)

    def early(self) -> None:
        """A launch is under way whose answer is not recorded."""
        begun = self.world.machine("m-new", MachineState.LAUNCHING)
        sold = (replace(offer(), provider="aws", region="us-east-1"),)
        made = replace(begun, offers=sold)
        self.world.store.machine_put(made, expected_version=begun.version, fence=None)


@pytest.fixture
def sky(world: World) -> Iterator[Sky]:
    sky = Sky(world)
    with sky.http:
        yield sky
    sky.clouds.close()


# ------------------------------------------------------------------------------- taken


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_a_machine_of_each_cloud_is_taken(sky: Sky, cloud: str) -> None:
    delivery: Any = {
        "aws": WARNING,
        "gcp": notices.gcp_preempted(INSTANCE, NOW),
        "azure": notices.azure_preempted(VM, NOW),
    }[cloud]
    token = sky.push_token() if cloud == "gcp" else NOTICES_TOKEN
    for _ in range(2):  # every cloud may deliver it twice
        answer = sky.send(cloud, delivery, token)
        assert (answer.status_code, answer.json()) == (200, {"machines": [cloud]})
    assert sky.read(cloud).state is MachineState.DRAINING
    assert sky.world.wakes == 1


def test_the_token_may_stand_in_the_address(sky: Sky) -> None:
    delivery = notices.azure_preempted(VM, NOW)
    wrong = sky.http.post("/v1/notices/azure", params={"token": "wrong"}, json=delivery)
    assert (wrong.status_code, sky.untouched()) == (401, True)
    right = sky.http.post("/v1/notices/azure", params={"token": NOTICES_TOKEN}, json=delivery)
    assert (right.status_code, right.json()) == (200, {"machines": ["azure"]})


def test_event_grid_is_told_that_its_events_are_wanted(sky: Sky) -> None:
    question = notices.azure_validation("512d38b6", NOW)
    assert sky.send("azure", question, "wrong").status_code == 401
    answer = sky.send("azure", question)
    assert (answer.status_code, answer.json()) == (200, {"validationResponse": "512d38b6"})
    assert answer.headers["Content-Type"] == "application/json"


def test_machines_of_others_are_taken_note_of_by_nobody(sky: Sky) -> None:
    answer = sky.send("aws", notices.aws_warning("i-of-somebody-else", NOW))
    assert (answer.status_code, answer.json()) == (200, {"machines": []})
    assert sky.untouched()
    assert sky.world.wakes == 0


def test_what_comes_before_the_record_of_its_launch_is_to_come_again(sky: Sky) -> None:
    sky.early()
    answer = sky.send("aws", notices.aws_warning("i-new", NOW))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "1"


# ------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("token", ["wrong", TOKEN, "", "\u00fc"])
def test_only_its_own_token_opens(sky: Sky, token: str) -> None:
    headers = [(b"Authorization", f"Bearer {token}".encode("latin-1"))]
    answer = sky.http.post("/v1/notices/aws", json=WARNING, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "denied")
    assert sky.untouched()


def test_its_token_opens_nothing_else(sky: Sky) -> None:
    headers = {"Authorization": f"Bearer {NOTICES_TOKEN}"}
    for method, path in (
        ("GET", "/v1/jobs"),
        ("POST", "/v1/jobs"),
        ("POST", "/v1/reconcile"),
        ("POST", "/v1/agent/claim"),
        ("POST", "/v1/agent/notice"),
        ("GET", f"/login?token={NOTICES_TOKEN}"),
        ("GET", "/"),
    ):
        body = {"kind": "spot"} if method == "POST" else None
        answer = sky.http.request(method, path, headers=headers, json=body)
        assert answer.status_code == 401, path


def test_where_no_token_was_made_none_opens(world: World) -> None:
    deps = world.deps()
    assert deps.settings.notices_token_hash
    bare = replace(deps, settings=replace(deps.settings, notices_token_hash=""))
    with TestClient(create_app(bare)) as http:
        for token in ("", "x", NOTICES_TOKEN):
            answer = http.post("/v1/notices/aws", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401


def test_a_cloud_that_is_not_listened_to(sky: Sky) -> None:
    assert sky.send("ovh", {}).status_code == 404
    assert sky.send("ovh", {}, "wrong").status_code == 401


def test_our_token_is_no_token_of_google(sky: Sky) -> None:
    delivery = notices.gcp_preempted(INSTANCE, NOW)
    assert sky.send("gcp", delivery, NOTICES_TOKEN).status_code == 401
    assert sky.send("gcp", delivery, TOKEN).status_code == 401
    assert sky.untouched()


def test_a_forged_token_of_google(sky: Sky) -> None:
    claims = sky.clouds.gcp_push_claims(f"{SERVER}/v1/notices/gcp", PUSHER)
    headers = {"kid": GOOGLE_KID}
    forged = [
        jwt.encode(claims, spare_key(1), algorithm="RS256", headers=headers),
        jwt.encode(claims, "", algorithm="none", headers=headers),
        sky.push_token(aud=f"{SERVER}/0123456789"),
        sky.push_token(email="agents@acme-ml.iam.gserviceaccount.com"),
    ]
    for token in forged:
        answer = sky.send("gcp", notices.gcp_preempted(INSTANCE, NOW), token)
        assert (answer.status_code, answer.json()["code"]) == (401, "denied")
    assert sky.untouched()


def test_an_account_of_another_project_speaks_of_its_own_machines_alone(sky: Sky) -> None:
    token = sky.push_token(email=PUSHER.replace("acme-ml", "evil"))
    answer = sky.send("gcp", notices.gcp_preempted(INSTANCE, NOW), token)
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert sky.untouched()


def test_while_google_does_not_answer_it_is_to_come_again(sky: Sky) -> None:
    sky.clouds.faults["www.googleapis.com"] = Fault(status=500)
    answer = sky.send("gcp", notices.gcp_preempted(INSTANCE, NOW), sky.push_token())
    assert answer.status_code == 503
    del sky.clouds.faults["www.googleapis.com"]
    answer = sky.send("gcp", notices.gcp_preempted(INSTANCE, NOW), sky.push_token())
    assert answer.json() == {"machines": ["gcp"]}


@pytest.mark.parametrize(
    ("cloud", "body"),
    [
        ("aws", b""),
        ("aws", b"{"),
        ("aws", b'{"source": "aws.ec2"}'),
        ("azure", b"{}"),
        ("azure", b"[7]"),
        ("gcp", b'{"message": {"data": "?"}}'),
        ("aws", b"[" * 500_000),
    ],
)
def test_what_cannot_be_read(sky: Sky, cloud: str, body: bytes) -> None:
    token = sky.push_token() if cloud == "gcp" else NOTICES_TOKEN
    headers = {"Authorization": f"Bearer {token}"}
    answer = sky.http.post(f"/v1/notices/{cloud}", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("announced", [True, False])
def test_a_delivery_that_is_too_large(sky: Sky, *, announced: bool) -> None:
    body = json.dumps(WARNING | {"padding": "x" * NOTICES_MAX_BYTES}).encode()
    sent: Any = body if announced else iter([body[:1000], body[1000:]])
    headers = {"Authorization": f"Bearer {NOTICES_TOKEN}"}
    answer = sky.http.post("/v1/notices/aws", content=sent, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    assert sky.untouched()


def test_no_answer_is_kept_for_whoever_names_a_key(sky: Sky) -> None:
    """Who has no token would read what was answered to one who has."""
    headers = {"Authorization": f"Bearer {NOTICES_TOKEN}", "Idempotency-Key": "k"}
    first = sky.http.post("/v1/notices/aws", json=WARNING, headers=headers)
    assert first.json() == {"machines": ["aws"]}
    again = sky.http.post("/v1/notices/aws", json=WARNING, headers={"Idempotency-Key": "k"})
    assert again.status_code == 401


def test_deliveries_are_posted(sky: Sky) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = sky.http.request(
            method, "/v1/notices/aws", headers={"Authorization": f"Bearer {NOTICES_TOKEN}"}
        )
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
