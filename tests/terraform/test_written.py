"""What is written into the modules by `make docs` is what its sources say, and nobody may do more
than they say. No Terraform is needed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from control_plane.config.load import load_text
from docs import generate, generate_terraform
from infra.iam import terraform
from infra.iam.permissions import TRUST
from providers.azure import examine as azure
from providers.gcp import examine as gcp
from tests.docs.test_pages import LINK
from tests.terraform.terraform import SOURCES

WRITTEN = terraform.files()
CONTROL_PLANE = SOURCES / "modules" / "control-plane"


@pytest.mark.parametrize("path", list(WRITTEN), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_rights_are_those_of_the_tables(path: Path) -> None:
    assert json.loads(path.read_text("utf-8")) == WRITTEN[path], "run: make docs"


def test_every_role_has_its_policy_and_no_other_file_is_there() -> None:
    found = {path.name for path in (CONTROL_PLANE / "policies").iterdir()}

    assert found == {f"{role}.json.tftpl" for role in TRUST}


def test_every_word_of_a_policy_is_one_that_the_module_fills_in() -> None:
    roles = (CONTROL_PLANE / "roles.tf").read_text("utf-8")
    filled = re.search(r"words = var\.enabled \? \{\n(.*?)\n  \}", roles, re.DOTALL)
    assert filled
    known = set(re.findall(r"^    (\w+) +=", filled[1], re.MULTILINE))
    used = {
        word
        for path in (CONTROL_PLANE / "policies").iterdir()
        for word in re.findall(r"\$\{(\w+)\}", path.read_text("utf-8"))
    }

    assert used == known == set(terraform.WORDS)


def test_what_is_allowed_at_google_is_what_doctor_looks_for() -> None:
    """But for lending machines their account, which is a right on that account."""
    allowed = set(json.loads((SOURCES / "modules/gcp-access/permissions.json").read_text("utf-8")))

    assert allowed == {*gcp.READS, *gcp.GETS, *gcp.WRITES} - {"iam.serviceAccounts.actAs"}


def test_what_is_allowed_at_azure_is_what_doctor_looks_for() -> None:
    allowed = json.loads((SOURCES / "modules/azure-access/permissions.json").read_text("utf-8"))

    assert set(allowed["group"]) == {*(f"{kind}/read" for kind in azure.READS), *azure.CHANGES}
    assert set(allowed["subscription"]) == set(azure.OF_REGIONS)
    assert set(allowed["networks"]) < set(allowed["group"])


@pytest.mark.parametrize(
    "page", list(generate_terraform.readmes()), ids=lambda page: page.parent.name
)
def test_inputs_and_outputs_in_a_readme_are_those_of_the_module(page: Path) -> None:
    text = page.read_text("utf-8")
    tables = generate_terraform.tables(page)

    assert text == generate.with_tables(text, tables), "run: make docs"
    assert all(f"<!-- generated: {name} -->" in text for name in tables)


@pytest.mark.parametrize(
    "page", list(generate_terraform.readmes()), ids=lambda page: page.parent.name
)
def test_links_of_a_readme_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text("utf-8"))

    assert links
    assert [each for each in links if not (page.parent / each).exists()] == []


def test_the_generator_sees_every_input_and_output() -> None:
    """However Terraform lets one write it: counted by another pattern."""
    for page in generate_terraform.readmes():
        text = "".join(path.read_text("utf-8") for path in page.parent.glob("*.tf"))
        named = re.findall(r'^(?:variable|output) +"(\w+)"', text, re.MULTILINE)

        assert sorted(each.name for each in generate_terraform.parts(page.parent)) == sorted(named)


def test_an_input_without_a_description_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('variable "silent" {\n  type = string\n}\n')

    with pytest.raises(ValueError, match="silent"):
        list(generate_terraform.parts(tmp_path))


def test_the_document_of_an_example_is_one() -> None:
    load_text((SOURCES / "examples/complete/config.yaml").read_text("utf-8"))
