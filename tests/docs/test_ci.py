"""What the page on CI tells people to write is taken by server, action and component."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ruamel.yaml import YAML

from control_plane.api.requests import FederationRequest
from control_plane.core.access import Federation, Role, faults
from tests.ci.test_scripts import ACTION, COMPONENT
from tests.docs.pages import ROOT, blocks_of, rows

PAGE = ROOT / "docs" / "how-to" / "ci.md"


def documents() -> list[Any]:
    yaml = YAML(typ="safe", pure=True)
    return [yaml.load(each.text) for each in blocks_of(PAGE) if each.language == "text"]


def federations() -> dict[str, Federation]:
    found = {}
    for each in documents():
        if "issuer" in each:
            name = each.pop("name")
            at = datetime(2026, 1, 1, tzinfo=UTC)
            found[name] = FederationRequest(**each).federation(name, now=at, actor="admin")
    return found


def test_the_federations_are_taken_and_let_no_stranger_in() -> None:
    assert set(federations()) == {"github", "gitlab"}
    assert not any(faults(each) for each in federations().values())


def test_they_admit_whom_the_page_says() -> None:
    main = {"repository": "acme/train", "ref": "refs/heads/main"}
    grant = federations()["github"].grant(main)
    assert grant is not None
    assert grant.role is Role.SUBMITTER
    assert federations()["github"].grant({**main, "ref": "refs/pull/1/merge"}) is None
    assert federations()["gitlab"].grant({"project_path": "acme/eval", "ref_protected": "true"})


def test_the_workflows_name_inputs_that_there_are() -> None:
    yaml = YAML(typ="safe", pure=True)
    action = yaml.load((ACTION / "action.yml").read_text(encoding="utf-8"))
    header = next(iter(yaml.load_all(COMPONENT.read_text(encoding="utf-8"))))
    steps, includes = [], []
    for each in documents():
        steps += [s for job in each.get("jobs", {}).values() for s in job["steps"] if "with" in s]
        includes += each.get("include", [])
    (step,), (include,) = steps, includes
    assert ".github/actions/orchctl-run@" in step["uses"]
    assert COMPONENT.stem in include["component"]
    for given, known in (
        (step["with"], action["inputs"]),
        (include["inputs"], header["spec"]["inputs"]),
    ):
        assert set(given) <= set(known)
        assert {n for n, each in known.items() if "default" not in each} <= set(given)


def test_the_page_on_people_has_every_role() -> None:
    page = ROOT / "docs" / "how-to" / "give-people-access.md"
    assert [row[0] for row in rows(page)[1:]] == [role.value for role in Role]
