"""Reference pages are complete and true: every set on a page is the set in the program."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from io import StringIO
from json import loads
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML
from starlette.exceptions import HTTPException

import control_plane.api.app
import control_plane.wiring
from agent_bootstrap import shutdown, wire
from control_plane.api import problems
from control_plane.api.routes import agent
from control_plane.config import findings
from control_plane.config.load import load_text
from control_plane.config.schema import PLACES
from control_plane.core import cooldowns, reasons
from control_plane.core.lifecycle import JOB_EDGES, MACHINE_EDGES
from control_plane.core.model import ErrorClass
from control_plane.errors import OrchctlError
from control_plane.reports.metrics import metrics_text
from control_plane.stores.memory import MemoryStore
from docs import generate, generate_cli
from orchctl.errors import BY_CODE
from tests.docs.pages import README, REFERENCE, ROOT, anchors, rows

ERRORS = REFERENCE / "errors.md"
HOW_TO = ROOT / "docs" / "how-to"

assert control_plane.api.app
assert control_plane.wiring  # with both, every error class of the server exists


# -------------------------------------------------------------------------- the document


def test_the_tables_of_the_configuration_are_the_generated_ones() -> None:
    page = generate.CONFIGURATION.read_text(encoding="utf-8")
    assert page == generate.configuration(page), "run: make docs"
    for place in PLACES:
        assert f"<!-- generated: {generate.path_of(place)} -->" in page


@pytest.mark.parametrize("path", list(generate.paths()))
def test_the_example_of_a_field_loads(path: str) -> None:
    yaml = YAML(typ="safe", pure=True)
    document = _document()
    _put(document, path.split("."), yaml.load(generate.EXAMPLES[path]))
    text = StringIO()
    yaml.dump(document, text)
    assert load_text(text.getvalue())


def _document() -> dict[str, Any]:
    window = {"cron": "0 8 * * *", "for": "1h"}
    pool = {
        "clouds": {
            "local": {},
            "simulated": {},
            "aws": {"regions": ["us-east-1"]},
            "gcp": {"regions": ["us-central1"], "project": "p"},
            "azure": {"regions": ["eastus"], "resource_group": "g"},
        },
        "machines": {},
        "warm": [{**window, "machines": 1}],
        "closed": [dict(window)],
    }
    return {
        "apiVersion": "orchctl/v1",
        "kind": "Autoscaler",
        "name": "research",
        "queues": {"default": {"pools": ["l4"]}},
        "pools": {"l4": pool},
        "budget": {},
        "alerts": [{"on": ["budget"], "slack": "secret://s"}],
    }


def _put(document: Any, path: list[str], value: Any) -> None:
    """Set a field; `*` is the only name or item there."""
    *steps, last = path
    for step in steps:
        keys = document if isinstance(document, Mapping) else range(len(document))
        document = document[next(iter(keys)) if step == "*" else step]
    if last in ("slack", "webhook"):
        document.pop("slack")
    document[last] = value


# -------------------------------------------------------------------------------- errors


def _kinds(kind: type[OrchctlError]) -> Iterator[type[OrchctlError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


def _problem_types() -> set[str]:
    """Every `type` that the API can answer with."""
    refused = [problems.of_http(HTTPException(status)) for status in (400, 404, 405, 413)]
    found = {loads(bytes(each.body))["type"] for each in [*refused, problems.unexpected("id")]}
    server_side = (k for k in _kinds(OrchctlError) if k.__module__.startswith("control_plane"))
    return found | {problems.TYPES + kind.code for kind in server_side}


def test_every_type_of_problem_has_its_heading_and_no_other_has() -> None:
    documented = {problems.TYPES + each for each in anchors(ERRORS) if each != "errors"}
    assert documented == _problem_types()


def test_every_code_that_the_client_knows_is_documented() -> None:
    assert set(BY_CODE) <= anchors(ERRORS)


def test_every_problem_says_its_status_and_what_to_do() -> None:
    for section in ERRORS.read_text(encoding="utf-8").split("\n## ")[1:]:
        assert re.search(r"\bstatus \d{3}\b", section, re.IGNORECASE), section
        assert "What to do: " in section, section
        HTTPStatus(int(re.findall(r"status (\d{3})", section, re.IGNORECASE)[0]))


def test_every_status_of_a_problem_is_the_one_on_the_page() -> None:
    text = ERRORS.read_text(encoding="utf-8")
    for kind, status in problems._STATUS:
        section = text.partition(f"\n## {kind.code}\n")[2].partition("\n## ")[0]  # type: ignore[attr-defined]
        assert str(status) in section.partition("What to do")[0], kind


# ----------------------------------------------------------------------- metrics, exit codes


def test_every_metric_is_documented_with_its_type_and_its_labels() -> None:
    text = metrics_text(MemoryStore(), datetime.now(UTC)).decode()
    there = {
        each.name + ("_total" if each.type == "counter" else ""): each.type
        for each in text_string_to_metric_families(text)
    }
    table = {row[0]: row[1] for row in rows(REFERENCE / "metrics.md")[1:]}
    assert table == there


def test_every_exit_code_is_documented() -> None:
    page = rows(REFERENCE / "exit-codes.md")
    agents = page.index(["exit code", "the machine"])
    assert {row[0] for row in page[1:agents]} == {str(code) for code in generate_cli.EXIT_CODES}
    constants = {str(v) for k, v in vars(shutdown).items() if k.isupper() and isinstance(v, int)}
    # 7 and 128 + N are the start-up text's own.
    assert {row[0] for row in page[agents + 1 :]} == constants | {"7", "128 + N"}


# ------------------------------------------------------------------------------- lifecycles


@pytest.mark.parametrize(("title", "edges"), [("Machines", MACHINE_EDGES), ("Jobs", JOB_EDGES)])
def test_the_lifecycle_page_has_the_edges_that_the_stores_allow(
    title: str, edges: Mapping[Any, Iterable[Any]]
) -> None:
    page = REFERENCE / "lifecycle.md"
    allowed = {(old.value, new.value) for old, news in edges.items() for new in news}
    assert {(row[0], row[1]) for row in rows(page, under=title)[1:]} == allowed
    section = page.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^    (\w+) --> (\w+)$", section, re.MULTILINE)) == allowed


# ---------------------------------------------------------------------------------- agents


def test_every_route_of_agents_is_documented() -> None:
    there = {
        f"{method} {route.path.removeprefix('/v1/agent/').replace(':path', '')}"
        for route in agent.ROUTES
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {row[0] for row in rows(REFERENCE / "agent-protocol.md") if " " in row[0]} >= there


def test_every_message_and_field_of_agents_is_documented() -> None:
    text = (REFERENCE / "agent-protocol.md").read_text(encoding="utf-8")
    messages = [each for each in vars(wire).values() if is_dataclass(each)]
    assert len(messages) > 10
    for message in messages:
        part = text.partition(f"\n`{message.__name__}`")[2]  # type: ignore[union-attr]
        section = re.split(r"\n`[A-Z]", part, maxsplit=1)[0]
        for each in fields(message):
            assert f"`{each.name}`" in section, f"{message}: {each.name}"


# ----------------------------------------------------------------------------------- words


def _source(module: Any) -> str:
    with open(module.__file__, encoding="utf-8") as file:
        return file.read()


def test_every_reason_is_explained() -> None:
    found = re.findall(r"_reason\(\s*f?\"([a-z{}-]+)\"", _source(reasons))
    found += re.findall(r"code, what = \"([a-z-]+)\"", _source(reasons))
    for path in (ROOT / "control_plane").glob("*.py"):
        found += re.findall(r"\bReason\(\s*code=\"([a-z-]+)\"", path.read_text(encoding="utf-8"))
    codes = {code.replace("{period}", p) for code in found for p in ("day", "month")}
    page = rows(HOW_TO / "read-explain.md")
    explained = {code for row in page for code in re.split(r"[`, ]+", row[0])} - {"code"}
    assert len(codes) > 25
    assert explained == codes


def test_every_finding_of_a_document_is_explained() -> None:
    found = re.findall(r"(?:code=|_pool_finding\(\w+, )\"([a-z-]+)\"", _source(findings))
    assert len(found) > 5
    page = rows(HOW_TO / "write-an-autoscaler.md")
    assert {row[0] for row in page} - {"code"} == set(found)


def test_the_cool_downs_on_the_page_are_those_of_the_planner() -> None:
    page = rows(ROOT / "docs" / "explanation" / "planning.md", under="Cool-downs")[1:]
    told = {row[0].replace("`", ""): (row[2], row[3]) for row in page}
    assert told == {
        words: (_short(rest.first_s), _short(rest.cap_s)) for words, rest in _rests().items()
    }
    assert {words.split(",")[0] for words in told} == {each.value for each in ErrorClass}


def _rests() -> dict[str, cooldowns.Rest]:
    return {
        "capacity-zone, spot": cooldowns._SPOT_CAPACITY,
        "capacity-zone, on-demand": cooldowns._ON_DEMAND_CAPACITY,
        **{kind.value: rest for kind, rest in cooldowns._RESTS.items()},
    }


def _short(seconds: float) -> str:
    return reasons.span(seconds).removesuffix(" 00m").removesuffix(" 0h")


def test_every_command_group_is_in_the_readme() -> None:
    from orchctl.main import COMMANDS

    text = README.read_text(encoding="utf-8")
    assert {name for name in COMMANDS if f"`orchctl {name}" not in text} == set()
