"""The functions of a deployment in this process: the real handlers on the AWS emulator and the fake
of EC2, with everything that they ask of AWS recorded by function.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from typing import Any

import pytest

from agent_bootstrap import wire
from agent_bootstrap.identity import proof
from control_plane.blobs.s3 import connect as connect_s3
from control_plane.identity import web
from control_plane.stores.dynamodb import INDEXES
from control_plane.stores.dynamodb.calls import connect
from control_plane.stores.dynamodb.table import create_table
from control_plane.system import SystemClock
from tests.emulators.ministack import Ministack
from tests.fakes.ec2.account import Account
from tests.fakes.ec2.server import Ec2Server
from tests.fakes.iam.recorder import Recorder
from tests.fakes.metadata import identity
from tests.fakes.metadata.server import Metadata

REGION = "eu-central-1"
BUYS_IN = "us-east-1"
STAGE = "test"
TABLE, BUCKET = f"orchctl-{STAGE}-table", f"orchctl-{STAGE}-bucket"
TOKEN = "orchctl_a-token-of-the-tests"
PROFILE = f"orchctl-machine-{STAGE}"
LOOK_MS = 30_400
"""What is left of a function's time when it may look once more and not twice."""

_HANDLERS = "control_plane.serverless"


@dataclass
class Context:
    """What Lambda tells a handler of its invocation."""

    function_name: str
    memory_limit_in_mb: int = 1024
    aws_request_id: str = "00000000-0000-4000-8000-000000000000"

    @property
    def invoked_function_arn(self) -> str:
        return f"arn:aws:lambda:{REGION}:123456789012:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        return LOOK_MS


class Refused(Exception):
    """The API did not do it."""


class Plane:
    """A fresh deployment. `recorder` knows what its functions have asked of AWS."""

    def __init__(self, ministack: Ministack, patch: pytest.MonkeyPatch, bucket: str) -> None:
        self.recorder = Recorder()
        self.recorder.install(patch)
        self.account = Account(start=None)
        self.account.start_s = self.account.stop_s = 0.0
        self.account.profiles.add(PROFILE)
        self.ec2 = Ec2Server(self.account)
        self.vouching = identity.Clouds()
        self.log = io.StringIO()
        """What the functions write."""
        self._late = timedelta()
        self._handlers: dict[str, Any] = {}
        self._patch = patch
        # The one that the API's handler finds; it would make its own and never close it.
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._settle(ministack, bucket)

    def _settle(self, ministack: Ministack, bucket: str) -> None:
        patch = self._patch
        for name, value in _environment(ministack, self.ec2.url, bucket).items():
            patch.setenv(name, value)
        patch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + self._late)
        transport = self.vouching.transport()
        make = web.Web.__init__
        patch.setattr(web.Web, "__init__", partialmethod(make, transport=transport))
        for name in [each for each in sys.modules if each.startswith(f"{_HANDLERS}.")]:
            patch.delitem(sys.modules, name)
        create_table(connect(), TABLE, INDEXES)
        connect_s3().create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
        )

    def close(self) -> None:
        for name in [each for each in sys.modules if each.startswith(f"{_HANDLERS}.")]:
            del sys.modules[name]
        asyncio.set_event_loop(None)
        self._loop.close()
        self.vouching.close()
        self.ec2.close()

    def invoke(self, function: str, event: Mapping[str, Any]) -> Any:
        """Run a function, which starts at its first call."""
        with self.recorder.of(function), redirect_stdout(self.log):
            if function not in self._handlers:
                self._handlers[function] = importlib.import_module(f"{_HANDLERS}.{function}")
            return self._handlers[function].handler(event, Context(f"orchctl-{STAGE}-{function}"))

    def advance(self, by: timedelta) -> None:
        """Let time pass for the functions and for EC2."""
        self._late += by
        self.account.advance(by.total_seconds())

    # --------------------------------------------------------------------------------- the API

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = TOKEN,
        **headers: str,
    ) -> Any:
        """What the API answers; JSON unless the body or the answer is bytes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.invoke(
            "api", _http(method, path, raw if body is not None else b"", token, headers)
        )
        content = answer.get("body", "")
        data = base64.b64decode(content) if answer.get("isBase64Encoded") else content.encode()
        if answer["statusCode"] >= 400:
            raise Refused(f"{method} {path}: {answer['statusCode']} {data.decode()[:2000]}")
        kind = answer.get("headers", {}).get("content-type", "")
        return json.loads(data) if "json" in kind and data else data


class Agent:
    """A machine's agent, as far as the control plane can tell."""

    def __init__(self, plane: Plane, machine_id: str, instance_id: str, cpus: int = 8) -> None:
        self._plane = plane
        self._token = ""
        metadata = Metadata()
        role = f"/latest/meta-data/iam/security-credentials/{PROFILE}"
        session = plane.vouching.aws_credentials(
            instance_id, role=PROFILE, account=plane.account.id
        )
        metadata.documents |= {
            "/latest/meta-data/iam/security-credentials/": lambda _: PROFILE,
            role: lambda _: json.dumps(session),
        }
        try:
            nonce = plane.ask("POST", "/v1/agent/nonce", {"machine_id": machine_id})["nonce"]
            register = wire.Register(
                machine_id=machine_id,
                instance="one",
                proof=proof("aws", nonce, "", metadata.url),
                found=wire.Found(cpus=cpus, memory_mib=16_384),
            )
        finally:
            metadata.close()
        self._token = plane.ask("POST", "/v1/agent/register", wire.dump(register))["token"]

    def say(self, path: str, body: object, method: str = "POST") -> Any:
        return self._plane.ask(method, f"/v1/agent/{path}", body, token=self._token)


@contextmanager
def running(ministack: Ministack, bucket: str = BUCKET) -> Iterator[Plane]:
    """A plane of its own; no two accounts have a bucket of the same name."""
    with pytest.MonkeyPatch.context() as patch:
        plane = Plane(ministack, patch, bucket)
        try:
            yield plane
        finally:
            plane.close()


def _environment(ministack: Ministack, ec2: str, bucket: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": ministack.endpoint,
        **{f"AWS_ENDPOINT_URL_{each}": ec2 for each in ("EC2", "SSM", "SCHEDULER")},
        "AWS_ENDPOINT_URL_SERVICE_QUOTAS": ec2,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ministack.new_account(),
        "AWS_SECRET_ACCESS_KEY": "any",
        # Of this plane alone: a logger keeps where the first one of its name writes.
        "AWS_LAMBDA_FUNCTION_NAME": f"orchctl-{STAGE}-{ec2.rpartition(':')[2]}",
        "ORCHCTL_TABLE": TABLE,
        "ORCHCTL_BUCKET": bucket,
        "ORCHCTL_PUBLIC_URL": "https://orchctl.example",
        "ORCHCTL_INSTALLATION": STAGE,
        "ORCHCTL_ADMIN_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest(),
        "ORCHCTL_RECONCILE_FUNCTION": f"orchctl-{STAGE}-reconcile",
    }


def _http(
    method: str, path: str, body: bytes, token: str, headers: Mapping[str, str]
) -> dict[str, Any]:
    """A request as an HTTP API hands it to a function, payload format 2.0."""
    bare, _, query = path.partition("?")
    kind = "application/json" if body[:1] in b'{["' else "application/octet-stream"
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": bare,
        "rawQueryString": query,
        "headers": {
            "authorization": f"Bearer {token}",
            "content-type": kind,
            "content-length": str(len(body)),
            "host": "orchctl.example",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        "requestContext": {
            "http": {
                "method": method,
                "path": bare,
                "sourceIp": "192.0.2.1",
                "protocol": "HTTP/1.1",
            },
            "stage": "$default",
        },
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
