"""The Terraform modules and examples, by the real Terraform with the true schemas of the providers:
they are formatted and valid, their own tests pass, every example can be planned, what is wrong is
refused in clear words, and `enabled = false` makes nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests import requires
from tests.terraform.terraform import SOURCES, Terraform

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
MODULES = sorted(path.name for path in (SOURCES / "modules").iterdir())
TESTED = sorted(path.parent.name for path in SOURCES.glob("modules/*/tests"))
EXAMPLES = sorted(path.name for path in (SOURCES / "examples").iterdir())
pytestmark = pytest.mark.xdist_group("terraform")
FOLDERS = [f"modules/{name}" for name in MODULES] + [f"examples/{name}" for name in EXAMPLES]
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
ROLE = "arn:aws:iam::123456789012:role/orchctl-prod-"
ROLES = {"reconcile": f"{ROLE}reconcile", "prices": f"{ROLE}prices"}
GIVEN: Mapping[str, Mapping[str, Any]] = {
    "control-plane": {
        "package": {"bucket": "artifacts", "key": "orchctl-lambda.zip", "version": "v1"},
        "access": {"admin_token_sha256": SHA256},
    },
    "gcp-access": {
        "project": "acme-ml",
        "aws": {"account_id": "123456789012", "roles": ROLES},
    },
    "azure-access": {
        "subscription_id": SUBSCRIPTION,
        "resource_group": {"location": "westeurope"},
        "aws": {"issuer": "https://0f0f.tokens.sts.global.api.aws", "roles": ROLES},
    },
    "complete": {"notices_token_sha256": SHA256},
    "multi-cloud": {"google_project": "acme-ml", "azure_subscription": SUBSCRIPTION},
}
"""What each module must be told, and examples beyond zip and token."""


def test_formatted() -> None:
    asked = [requires.terraform(), "fmt", "-check", "-recursive", "-diff", "-no-color", SOURCES]
    ended = subprocess.run(asked, env={}, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_valid(terraform: Terraform, folder: str) -> None:
    terraform.ready(folder)

    assert "The configuration is valid" in terraform.run(folder, "validate", "-no-color").ok().text


def test_valid_with_a_provider_that_terraform_starts(terraform: Terraform) -> None:
    """As its users run it: from the mirror, by the handshake of plugins."""
    folder = "modules/package"
    terraform.ready(folder)

    ended = terraform.run(folder, "validate", "-no-color", attached=False)

    assert "The configuration is valid" in ended.ok().text


def test_what_no_schema_has_is_noticed(terraform: Terraform) -> None:
    """A slip of the pen is found by the tests above: the schemas are looked at."""
    folder = terraform.folder("modules/slip")
    folder.mkdir()
    (folder / "main.tf").write_text(
        'resource "aws_dynamodb_table" "this" {\n  name = "t"\n  hash_keyy = "pk"\n}\n'
    )
    terraform.ready("modules/slip")

    ended = terraform.run("modules/slip", "validate", "-no-color")

    assert ended.code == 1
    assert 'Did you mean "hash_key"?' in ended.text


@pytest.mark.parametrize("name", TESTED)
def test_own_tests_pass(terraform: Terraform, name: str) -> None:
    """`tests/*.tftest.hcl` of the module."""
    terraform.ready(f"modules/{name}")

    ended = terraform.run(f"modules/{name}", "test", "-no-color")

    assert "Success!" in ended.ok().text
    assert " 0 failed" in ended.text


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_can_be_planned(terraform: Terraform, name: str) -> None:
    planned = _planned(terraform, f"examples/{name}", _of_example(terraform, name))

    made = [each["type"] for each in planned]
    assert made.count("aws_lambda_function") == 4
    assert made.count("aws_dynamodb_table") == 1
    assert made.count("google_project_iam_custom_role") == (1 if name == "multi-cloud" else 0)
    assert made.count("azurerm_federated_identity_credential") == (
        2 if name == "multi-cloud" else 0
    )


def test_no_key_of_a_cloud_is_made_anywhere(terraform: Terraform) -> None:
    planned = _planned(terraform, "examples/multi-cloud", _of_example(terraform, "multi-cloud"))

    assert not [
        each["type"] for each in planned if "key" in each["type"] or "secret" in each["type"]
    ]


@pytest.mark.parametrize("name", TESTED)
def test_switched_off_it_makes_nothing(terraform: Terraform, name: str) -> None:
    planned = _planned(terraform, f"modules/{name}", GIVEN[name] | {"enabled": False})

    assert planned == []


@pytest.mark.parametrize("name", TESTED)
def test_switched_on_it_makes_something(terraform: Terraform, name: str) -> None:
    """Else the test above would prove nothing."""
    assert len(_planned(terraform, f"modules/{name}", GIVEN[name])) > 5


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        (
            "control-plane",
            {"access": {"admin_token_sha256": "the token itself"}},
            "Never put the token itself here",
        ),
        (
            "control-plane",
            {"package": {"bucket": "b", "key": "k", "version": ""}},
            "the bucket must keep versions",
        ),
        ("control-plane", {"alarms": {"stale_minutes": 1}}, "`alarms.stale_minutes` at least 5"),
        (
            "control-plane",
            {"clouds": {"gcp": {"credentials": '{"type": "service_account"}'}}},
            "A key of a service account is a secret and is not taken",
        ),
        ("gcp-access", {"project": "4711"}, "neither its name nor its number"),
        ("azure-access", {"networks": ["mine"]}, "`networks` are resource ids in the subscription"),
        ("package", {"zip": "no-such-file"}, "Make it with: make lambda"),
    ],
)
def test_what_is_wrong_is_refused_in_clear_words(
    terraform: Terraform, name: str, given: Mapping[str, Any], words: str
) -> None:
    folder = f"modules/{name}"
    terraform.ready(folder)

    ended = terraform.run(
        folder, "plan", "-no-color", "-input=false", *_words({**GIVEN.get(name, {}), **given})
    )

    said = " ".join(ended.text.replace("\u2502", " ").split())
    assert ended.code == 1
    assert words in said


def _of_example(terraform: Terraform, name: str) -> Mapping[str, Any]:
    zipped = terraform.folder("examples") / "orchctl-lambda.zip"
    zipped.write_bytes(b"not looked into by a plan")
    return {"zip": str(zipped), "admin_token_sha256": SHA256, **GIVEN.get(name, {})}


def _words(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        yield f"-var={name}={value if isinstance(value, str) else json.dumps(value)}"


def _planned(
    terraform: Terraform, folder: str, given: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The resources that would be made."""
    plan = terraform.plan(folder, *_words(given))
    changes = [each for each in plan.get("resource_changes", ()) if each["mode"] == "managed"]
    assert all(each["change"]["actions"] == ["create"] for each in changes)
    return changes
