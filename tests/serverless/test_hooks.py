"""A signed webhook starts a job through API Gateway and a function as it does on a server: its
signature is of the very bytes that were sent."""

from __future__ import annotations

import json

import httpx2
import pytest

from control_plane.webhooks import signatures
from tests.serverless.deployed import Deployed

pytestmark = pytest.mark.xdist_group("serverless")

# A name that JSON may write in two ways, of which only one was signed.
PUSH = json.dumps(
    {
        "ref": "refs/heads/main",
        "after": "c0ffee" * 6 + "beef",
        "repository": {"full_name": "acme/vision"},
        "pusher": {"name": "Zo\u00eb"},
    },
    ensure_ascii=False,
).encode()


def deliver(deployed: Deployed, secret: str, body: bytes = PUSH) -> httpx2.Response:
    return httpx2.post(
        f"{deployed.url}/v1/hooks/train",
        content=body,
        headers={
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "d-1",
            "X-Hub-Signature-256": signatures.github_signature(secret, PUSH),
        },
        timeout=60,
    )


def test_a_push_starts_a_job_once(deployed: Deployed) -> None:
    with deployed.restored():
        deployed.orchctl("queue", "create", "hooked")
        command = ("--queue", "hooked", "--on", "push", "--repository", "acme/*", "--", "true")
        deployed.orchctl("hook", "create", "train", *command)
        secret = deployed.orchctl("hook", "secret", "train").strip()
        first, again = deliver(deployed, secret), deliver(deployed, secret)
        assert (first.status_code, again.status_code) == (201, 200), first.text
        assert first.json()["job"] == again.json()["job"]
        forged = deliver(deployed, "whsec_" + "A" * 43)
        changed = deliver(deployed, secret, PUSH.replace(b"vision", b"vixens"))
        for refused in (forged, changed):
            assert refused.status_code == 401
            assert refused.headers["content-type"] == "application/problem+json"
        job = json.loads(deployed.orchctl("job", "get", first.json()["job"], "-o", "json"))
        assert (job["queue"], job["owner"]) == ("hooked", "hook:train")
