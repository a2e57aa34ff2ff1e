"""A deployment as its user makes one: the zip is built, osls puts `serverless.yml` into the AWS
emulator, which enforces the roles."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session

from control_plane.serverless.shared import SECRET
from control_plane.stores.dynamodb.layout import DAYS
from tests import requires
from tests.emulators.ministack import Ministack
from tests.serverless.front import Front
from tests.serverless.osls import REGION, service

STAGE = "test"
TOKEN = "orchctl_a-token-of-the-tests"
FUNCTIONS = ("api", "reconcile", "interruption", "prices")
DEPLOY_S = 240
NETWORK = Path(__file__).with_name("network")


class Deployed:
    """The stack in an emulator of its own; people and machines reach it at `url`."""

    def __init__(self, folder: Path, archive: Path) -> None:
        requires.osls()
        self.folder = folder
        self.front = Front()
        self.ministack = Ministack(folder, auth=True)
        self.ministack.start()
        try:
            self._deploy(archive)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return self.front.url

    def client(self, service: str) -> Any:
        """Of whoever deployed it."""
        return botocore.session.get_session().create_client(
            service,
            region_name=REGION,
            endpoint_url=self.ministack.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def outputs(self) -> dict[str, str]:
        """What the stack tells of itself."""
        stacks = self.client("cloudformation").describe_stacks(StackName=f"orchctl-{STAGE}")
        (stack,) = stacks["Stacks"]
        return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}

    def name(self, function: str) -> str:
        return f"orchctl-{STAGE}-{function}"

    def tell(self, variables: Mapping[str, str]) -> None:
        """Add to the environment of each function, which starts anew for it."""
        functions = self.client("lambda")
        for function in FUNCTIONS:
            name = self.name(function)
            has = functions.get_function_configuration(FunctionName=name)["Environment"]
            functions.update_function_configuration(
                FunctionName=name, Environment={"Variables": {**has["Variables"], **variables}}
            )

    def invoke(self, function: str, event: Mapping[str, Any]) -> Any:
        """Call a function and wait for what it returns. Raises `RuntimeError` as it fails."""
        answer = self.client("lambda").invoke(
            FunctionName=self.name(function), Payload=json.dumps(event).encode()
        )
        told = answer["Payload"].read()
        if answer.get("FunctionError"):
            raise RuntimeError(f"{function}: {told.decode()}\n{self.log(function)}")
        return json.loads(told)

    def log(self, function: str) -> str:
        """What a function has written so far."""
        logs, group = self.client("logs"), f"/aws/lambda/{self.name(function)}"
        try:
            events = logs.filter_log_events(logGroupName=group, limit=10_000)["events"]
        except logs.exceptions.ResourceNotFoundException:
            return ""
        return "\n".join(each["message"].rstrip() for each in events)

    def orchctl(
        self, *words: str, within_s: float = 60, folder: Path | None = None, **environment: str
    ) -> str:
        """What the installed command line prints, run in that folder."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / "orchctl"), *words],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "ORCHCTL_SERVER": self.url,
                "ORCHCTL_TOKEN": TOKEN,
                "ORCHCTL_CONFIG_DIR": str(self.folder / "config"),
                **environment,
            },
            cwd=folder or self.folder,
            capture_output=True,
            text=True,
            timeout=within_s,
        )
        if done.returncode:
            said = f"{done.stdout}\n{done.stderr}\n{self.log('api')[-3000:]}"
            raise RuntimeError(f"orchctl {' '.join(words)}: {done.returncode}\n{said}")
        return done.stdout

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Take rows away that are added meanwhile: other tests look at all there ever was."""
        table, name = self.client("dynamodb"), self.outputs()["TableName"]
        before = _keys(table, name)
        yield
        # But what functions have read or written once and for all.
        for pk, sk in _keys(table, name) - before - {DAYS, SECRET}:
            table.delete_item(TableName=name, Key={"pk": {"S": pk}, "sk": {"S": sk}})

    def close(self) -> None:
        self.ministack.kill()
        self.front.close()

    def _deploy(self, archive: Path) -> None:
        command = [str(requires.osls()), "deploy", "--stage", STAGE, "--region", REGION]
        done = subprocess.run(
            command,
            cwd=service(self.folder, archive),
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "CI": "1",
                "AWS_ENDPOINT_URL": self.ministack.endpoint,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "ORCHCTL_ADMIN_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest(),
                "ORCHCTL_ARTIFACT": archive.name,
                "ORCHCTL_RUNTIME": "python{}.{}".format(*sys.version_info),
                "SLS_TELEMETRY_DISABLED": "1",
            },
            capture_output=True,
            text=True,
            timeout=DEPLOY_S,
        )
        if done.returncode:
            raise RuntimeError(f"osls deploy:\n{done.stdout}\n{done.stderr}")
        (api,) = self.client("apigatewayv2").get_apis()["Items"]
        self.front.lead(self.ministack.endpoint, api["ApiId"])
        # The emulator speaks no TLS here, and the bucket refuses whoever comes without.
        self.client("s3").delete_bucket_policy(Bucket=self.outputs()["BucketName"])
        self.tell({"ORCHCTL_PUBLIC_URL": self.url})


def _keys(dynamodb: Any, table: str) -> set[tuple[str, str]]:
    pages = dynamodb.get_paginator("scan").paginate(
        TableName=table, ProjectionExpression="pk, sk", ConsistentRead=True
    )
    return {(item["pk"]["S"], item["sk"]["S"]) for page in pages for item in page["Items"]}
