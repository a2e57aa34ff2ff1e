"""Pages hold together: links lead somewhere, nothing stale or private stands in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import README, ROOT, SHELL, anchors, blocks_of, pages, prose

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PRIVATE = re.compile(r"(?<![\w.~$])/(home|root|work|tmp|Users|mnt|workspace)/")
UNFINISHED = re.compile(r"\b(TODO|FIXME|TBD|XXX)\b|lorem ipsum", re.IGNORECASE)
OUTSIDE = re.compile(r"https?://([a-z0-9.-]+)")
HOSTS = {"127.0.0.1", "example.com", "orchctl.dev", "orchctl.example.com", "localhost"}
HOSTS |= {"token.actions.githubusercontent.com", "gitlab.com"}
"""Hosts that pages may name: this computer, names that lead nowhere, and the issuers of CI systems.
No registry, no mirror."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        target, _, fragment = link.partition("#")
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{_name(page)} links to {link}"
        assert not fragment or fragment in anchors(path), f"{_name(page)}: no heading {link}"


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_nothing_private_or_unfinished_stands_in_a_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not PRIVATE.search(text)
    assert not UNFINISHED.search(text)
    assert set(OUTSIDE.findall(text)) <= HOSTS


def test_the_index_leads_to_every_page_of_the_documentation() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {
        (index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(index))
    }
    assert {page for page in pages() if index.parent in page.parents} - {index} <= linked


def test_the_first_commands_of_the_readme_are_the_demo_and_the_tests() -> None:
    first = next(each for each in blocks_of(README) if each.language in SHELL)
    assert [line.split("#")[0].strip() for line in first.commands()] == ["make demo", "make test"]


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 180


def test_every_path_that_the_architecture_names_exists() -> None:
    text = prose(ROOT / "ARCHITECTURE.md")
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_{},]+(?:\.py|/))`", text)
    assert len(named) > 30
    for path in (each for name in named for each in _braces(name)):
        places = (ROOT, ROOT / "control_plane", ROOT / "agent_bootstrap")
        assert any((place / path).exists() for place in places), path


def _braces(path: str) -> list[str]:
    head, _, rest = path.partition("{")
    if not rest:
        return [path]
    inner, _, tail = rest.partition("}")
    return [head + each + tail for each in inner.split(",")]
