"""One deployment for all tests of it: making it takes half a minute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import requires
from tests.serverless import image
from tests.serverless.deployed import Deployed
from tests.serverless.image import Image
from tests.serverless.package import build


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip of all functions, for the Python that runs the tests."""
    requires.osls()
    requires.ministack()
    made = tmp_path_factory.mktemp("lambda") / "orchctl.zip"
    build("--output", made)
    return made


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the zip holds, as a directory made by somebody else: elsewhere, later, with other
    rights and in another time zone."""
    made = tmp_path_factory.mktemp("image") / "task"
    build("--directory", made, umask=0o077, TZ="Asia/Kathmandu", PYTHONHASHSEED="1")
    return made


@pytest.fixture(scope="session")
def functions(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image of all functions, from that directory."""
    made = Image(task, image.base(tmp_path_factory.mktemp("base")))
    yield made
    made.remove()


@pytest.fixture(scope="session")
def deployed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The stack in the AWS emulator."""
    made = Deployed(tmp_path_factory.mktemp("deployed"), archive)
    yield made
    made.close()
