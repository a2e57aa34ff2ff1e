"""A whole control plane: a push comes in, its job fails on a machine, and somebody is told."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from control_plane.core.alerts import DeliveryState
from control_plane.local import serving
from control_plane.webhooks import signatures
from tests.api.test_server import until
from tests.unit.webhooks.receiver import Receiver

DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: here
queues:
  default: {pools: [local]}
pools:
  local:
    cpu: 1..
    clouds: {local: {}}
    machines: {max: 1}
alerts:
  - {webhook: secret://pager, on: [job-failed]}
"""
COMMAND = 'test "$ORCHCTL_HOOK_REF $ORCHCTL_HOOK_SHA" = "refs/heads/main $WANTED" && exit 7'
SHA = "ab" * 20


def test_from_a_push_to_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("ORCHCTL_SECRET_PAGER", f"{receiver.url}/page")
        with serving(tmp_path / "state") as server:
            token = {"Authorization": f"Bearer {server.plane.admin_token}"}
            with httpx2.Client(base_url=server.url, headers=token, timeout=30) as client:
                client.put(
                    "/v1/autoscalers/here",
                    json={"document": DOCUMENT},
                    headers={"If-None-Match": "*"},
                ).raise_for_status()
                job = {"command": COMMAND, "env": {"WANTED": SHA}}
                hook = {"on": ["push"], "job": job}
                client.put("/v1/hooks/deploy", json=hook).raise_for_status()
                secret = client.get("/v1/hooks/deploy/secret").json()["secret"]
                body = json.dumps({"ref": "refs/heads/main", "after": SHA}).encode()
                signed = {
                    "X-GitHub-Event": "push",
                    "X-GitHub-Delivery": "1",
                    "X-Hub-Signature-256": signatures.github_signature(secret, body),
                }
                pushed = httpx2.post(f"{server.url}/v1/hooks/deploy", content=body, headers=signed)
                assert pushed.status_code == 201, pushed.text
                asked = {"target": "secret://pager"}
                key = client.get("/v1/alert-secret", params=asked).json()["secret"]
                until(lambda: receiver.asked)
            log = server.plane.store.delivery_list
            until(lambda: log()[0].state is DeliveryState.SENT)
            now = server.plane.service.clock.now()
        (page,) = receiver.asked
        signatures.check_standard(page.headers, page.body, [key], now)
        told = json.loads(page.body)
        assert told["data"]["subject"] == pushed.json()["job"]
        assert "7" in told["data"]["text"]
