"""checkov and cfn-lint have nothing to say of the Terraform modules and of the packaged
`serverless.yml`, beyond what is skipped with a reason."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests import requires
from tests.requires import ROOT
from tests.terraform.terraform import SOURCES

SETTINGS = ROOT / "infra" / "lambda"
SKIP = re.compile(r"#checkov:skip=(\w+)(.*)")

pytestmark = pytest.mark.xdist_group("terraform")


def test_checkov_passes_the_modules(tmp_path: Path) -> None:
    """Tests of modules are left out: its parser does not know them."""
    requires.infra_linters()
    shutil.copytree(SOURCES, tmp_path / "terraform", ignore=shutil.ignore_patterns("tests", ".*"))

    summary = _checkov("--framework=terraform", f"--directory={tmp_path}")

    assert summary["failed"] == 0, summary
    assert summary["parsing_errors"] == 0
    assert summary["passed"] > 100


def test_checkov_passes_the_template(template: Path) -> None:
    settings = SETTINGS / "checkov.yaml"

    summary = _checkov(f"--config-file={settings}", f"--file={template}")

    assert summary["failed"] == 0, summary
    assert summary["parsing_errors"] == 0
    assert summary["passed"] > 50


def test_cfn_lint_passes_the_template(template: Path) -> None:
    program = requires.infra_linters().with_name("cfn-lint")
    asked = [program, f"--config-file={SETTINGS / 'cfnlint.yaml'}", "--template", template]

    ended = subprocess.run(asked, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout


def test_each_skip_has_a_reason() -> None:
    found = [
        (path.name, *each)
        for path in SOURCES.rglob("*.tf")
        for each in SKIP.findall(path.read_text())
    ]

    assert found
    assert [each for each in found if not re.fullmatch(r":.{20,}", each[2])] == []


@pytest.mark.parametrize("name", ["checkov.yaml", "cfnlint.yaml"])
def test_each_skip_of_the_template_stands_below_a_comment(name: str) -> None:
    lines = (SETTINGS / name).read_text().splitlines()
    first = [
        above
        for above, line in pairwise(lines)
        if line.startswith("  - ") and not above.startswith("  - ")
    ]

    assert first
    assert all(line.startswith("  # ") for line in first)


def _checkov(*words: str) -> dict[str, int]:
    program = requires.infra_linters().with_name("checkov")
    asked = [program, "--skip-download", "--quiet", "--compact", "--output=json", *words]
    ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    told = json.loads(ended.stdout)
    failed = [each["check_id"] for each in told.get("results", {}).get("failed_checks", ())]
    return {**told["summary"], "failed_checks": failed} if "summary" in told else told
