"""One `terraform apply` of the whole control plane into the AWS emulator: the second plan is empty,
the API answers where the output says, and of another zip nothing but its version is changed.

What runs is a stand-in of a few lines; `tests/serverless` runs the real zip."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from tests import requires
from tests.emulators.ministack import Ministack
from tests.terraform.terraform import Terraform
from tests.terraform.test_modules import SHA256

pytestmark = pytest.mark.xdist_group("terraform")
FOLDER = "modules/control-plane"
COMMON = ("-no-color", "-input=false")
PROGRAM = """
import json, os

def handler(event, context):
    print("asked")
    told = {name: value for name, value in os.environ.items() if name.startswith("ORCHCTL_")}
    path = event.get("rawPath", "")
    return {"statusCode": 200, "body": json.dumps({"version": VERSION, "path": path, **told})}
"""


class Applied:
    """A control plane that Terraform has made in an account of its own."""

    def __init__(self, terraform: Terraform) -> None:
        self.terraform = terraform
        told = terraform.environment
        self._session = boto3.Session(
            aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
            region_name=told["AWS_REGION"],
        )
        self.endpoint = told["AWS_ENDPOINT_URL"]
        s3 = self.client("s3")
        s3.create_bucket(
            Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": told["AWS_REGION"]}
        )
        s3.put_bucket_versioning(Bucket="artifacts", VersioningConfiguration={"Status": "Enabled"})

    def client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self.endpoint)

    def deploy(self, version: str) -> str:
        """Upload a zip and apply it; what Terraform says."""
        self.uploaded(version)
        return self.terraform.run(FOLDER, "apply", "-auto-approve", *COMMON).ok().text

    def uploaded(self, version: str) -> None:
        """A zip as Terraform is told of it: by the version of the object."""
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as archive:
            for name in ("control_plane", "control_plane/serverless"):
                archive.writestr(f"{name}/__init__.py", "")
            for name in ("api", "reconcile", "interruption", "prices"):
                text = f"VERSION = {version!r}\n{PROGRAM}"
                archive.writestr(f"control_plane/serverless/{name}.py", text)
        put = self.client("s3").put_object(
            Bucket="artifacts", Key="orchctl.zip", Body=zipped.getvalue()
        )
        given = {
            "package": {"bucket": "artifacts", "key": "orchctl.zip", "version": put["VersionId"]},
            "access": {"admin_token_sha256": SHA256},
            "functions": {"runtime": "python3.11"},
        }
        path = self.terraform.folder(FOLDER) / "terraform.tfvars.json"
        path.write_text(json.dumps(given))

    def plan(self) -> tuple[int, str]:
        """Its exit code (2 = changes) and text."""
        ended = self.terraform.run(FOLDER, "plan", "-detailed-exitcode", *COMMON)
        return ended.code, ended.text

    def outputs(self) -> Mapping[str, Any]:
        told = json.loads(self.terraform.run(FOLDER, "output", "-json").ok().text)
        return {name: each["value"] for name, each in told.items()}

    def get(self, path: str) -> Mapping[str, str]:
        """Ask the API for something, by the name that the output tells."""
        host = urlsplit(self.outputs()["api"]["url"]).hostname or ""
        number = host.partition(".")[0]
        port = urlsplit(self.endpoint).port
        asked = urllib.request.Request(
            f"{self.endpoint}{path}", headers={"Host": f"{number}.execute-api.localhost:{port}"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as answer:
            told: Mapping[str, str] = json.loads(answer.read())
        return told


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    """In an emulator of its own: what asks an API names no account, and is sent to the first."""
    requires.terraform()
    aws = Ministack(tmp_path_factory.mktemp("aws"))
    aws.start()
    terraform = Terraform(
        tmp_path_factory.mktemp("stack"),
        AWS_ENDPOINT_URL=aws.endpoint,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_REGION="eu-central-1",
    )
    terraform.ready(FOLDER)
    made = Applied(terraform)
    made.deploy("one")
    yield made
    terraform.close()
    aws.kill()


def test_second_plan_of_everything_is_empty(applied: Applied) -> None:
    code, text = applied.plan()

    assert code == 0, text
    assert "No changes" in text


def test_the_api_answers_where_the_output_says(applied: Applied) -> None:
    told, outputs = applied.get("/v1/health"), applied.outputs()

    assert told["path"] == "/v1/health"
    assert told["ORCHCTL_PUBLIC_URL"] == outputs["api"]["url"]
    assert told["ORCHCTL_TABLE"] == outputs["table"]["name"]
    assert told["ORCHCTL_BUCKET"] == outputs["bucket"]["name"]
    assert told["ORCHCTL_RECONCILE_FUNCTION"] == outputs["functions"]["reconcile"]["name"]
    assert "ORCHCTL_GCP_CREDENTIALS" not in told


def test_another_version_of_the_zip_is_one_change_of_four_functions(applied: Applied) -> None:
    applied.uploaded("two")
    _, text = applied.plan()
    applied.deploy("three")

    assert "Plan: 0 to add, 4 to change, 0 to destroy." in text
    assert applied.get("/")["version"] == "three"
    assert applied.plan()[0] == 0


def test_functions_have_the_roles_of_the_table(applied: Applied) -> None:
    """Asked of AWS: each has one policy, with every word filled in."""
    functions, iam = applied.client("lambda"), applied.client("iam")
    for name in ("api", "interruption", "prices", "reconcile"):
        role = functions.get_function_configuration(FunctionName=f"orchctl-prod-{name}")["Role"]
        policy = iam.get_role_policy(RoleName=role.rpartition("/")[2], PolicyName=name)
        text = json.dumps(policy["PolicyDocument"])

        assert role.endswith(f":role/orchctl-prod-{name}")
        assert iam.list_role_policies(RoleName=f"orchctl-prod-{name}")["PolicyNames"] == [name]
        assert "${" not in text
        assert "table/orchctl-prod" in text


def test_who_has_no_schema_of_calls_is_refused(applied: Applied) -> None:
    """The stub makes nothing up: what it cannot make it does not say it has made."""
    folder = applied.terraform.folder("modules/topic")
    folder.mkdir()
    (folder / "main.tf").write_text('resource "aws_sns_topic" "this" {\n  name = "t"\n}\n')
    applied.terraform.ready("modules/topic")

    ended = applied.terraform.run("modules/topic", "apply", "-auto-approve", *COMMON)

    assert ended.code == 1
    assert "can be planned here and not applied" in ended.text
