"""Programs that some tests drive and that pip cannot bring.

Without one, those tests skip and say what to install; with ORCHCTL_REQUIRE_ALL=1 they fail, so that
a machine meant to run everything cannot silently run less.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MINISTACK = ROOT / ".emulators" / "ministack-1.5.33"
"""Its own environment: what it needs would clash with ours."""
TERRAFORM_PROVIDERS = MINISTACK.with_name("tf-1.2.0")
INFRA_LINTERS = MINISTACK.with_name("checkov-3.3.30")
TERRAFORM = (1, 11)
"""What the tests of its modules ask for; the modules themselves need less."""
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def chromium() -> str:
    """The path of a Chromium, or a skip."""
    for name in _CHROMIUM:
        if found := shutil.which(name):
            return found
    return missing(
        f"no Chromium on the path (looked for {', '.join(_CHROMIUM)}); "
        "install it with: sudo apt-get install --yes chromium"
    )


def ministack() -> Path:
    """The Python that has ministack (the AWS emulator) installed, or a skip."""
    python = MINISTACK / "bin" / "python"
    if (MINISTACK / ".installed").exists():
        return python
    missing(f"no {MINISTACK.name}, which stands for AWS in tests; install it with: make emulators")
    return python


def osls() -> Path:
    """The program that deploys serverless.yml, or a skip."""
    program = ROOT / "node_modules" / ".bin" / "osls"
    if shutil.which("node") is None:
        return Path(missing("no Node.js; install it with: sudo apt-get install --yes nodejs npm"))
    if not program.exists():
        return Path(missing("no osls, which deploys serverless.yml; install it with: npm ci"))
    return program


def terraform() -> str:
    """The path of Terraform, or a skip."""
    found = shutil.which("terraform")
    if found is None or _terraform_version(found) < TERRAFORM:
        missing(
            f"no terraform of version {TERRAFORM[0]}.{TERRAFORM[1]} or newer on the path; install "
            "it from https://developer.hashicorp.com/terraform/install"
        )
    return str(found)


@cache
def _terraform_version(program: str) -> tuple[int, int]:
    asked = [program, "version", "-json"]
    told = json.loads(subprocess.run(asked, env={}, capture_output=True, check=True).stdout)
    major, minor, *_ = told["terraform_version"].split(".")
    return int(major), int(minor)


def terraform_providers() -> Path:
    """The Python that runs providers of Terraform made for tests, or a skip."""
    return _environment(TERRAFORM_PROVIDERS, "serves providers of Terraform in tests")


def infra_linters() -> Path:
    """The Python that has checkov and cfn-lint installed, or a skip."""
    return _environment(INFRA_LINTERS, "looks at templates in tests")


def _environment(folder: Path, what: str) -> Path:
    if not (folder / ".installed").exists():
        missing(f"no {folder.name}, which {what}; install it with: make emulators")
    return folder / "bin" / "python"


def missing(reason: str) -> str:
    """Skip the test for this reason, or fail it where everything is required."""
    if os.environ.get("ORCHCTL_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
