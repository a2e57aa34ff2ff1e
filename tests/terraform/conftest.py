"""Terraform for all tests of one process: providers take a second to start."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulators.ministack import Ministack
from tests.serverless.osls import packaged
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
    folder = tmp_path_factory.mktemp("packaged")
    with zipfile.ZipFile(folder / "any.zip", "w") as archive:
        archive.writestr("any.py", "")
    return packaged(folder, folder / "any.zip")
