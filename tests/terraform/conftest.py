"""Terraform for all tests of one process: providers take a second to start."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import requires
from tests.emulators.ministack import Ministack
from tests.requires import ROOT
from tests.terraform.terraform import Terraform


@pytest.fixture(scope="session")
def terraform(
    tmp_path_factory: pytest.TempPathFactory, ministack: Ministack
) -> Iterator[Terraform]:
    """One whose AWS is the emulator, in an account of its own."""
    made = Terraform(
        tmp_path_factory.mktemp("terraform"),
        AWS_ENDPOINT_URL=ministack.endpoint,
        AWS_ACCESS_KEY_ID=ministack.new_account(),
        AWS_SECRET_ACCESS_KEY="any",
        AWS_REGION="eu-central-1",
    )
    yield made
    made.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """serverless.yml, packaged."""
    program, folder = requires.osls(), tmp_path_factory.mktemp("packaged")
    with zipfile.ZipFile(folder / "any.zip", "w") as archive:
        archive.writestr("any.py", "")
    told = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CI": "1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "ORCHCTL_ARTIFACT": str(folder / "any.zip"),
        "ORCHCTL_ADMIN_TOKEN_SHA256": "0" * 64,
    }
    asked = [program, "package", "--stage", "prod", "--package", folder / "out"]
    ended = subprocess.run(asked, env=told, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "out" / "cloudformation-template-update-stack.json"
