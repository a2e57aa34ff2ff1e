"""osls, always in a folder of its own: it writes beside the `serverless.yml` that it reads, and two
would undo each other's work."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests import requires
from tests.requires import ROOT

REGION = "eu-central-1"


def service(folder: Path, archive: Path) -> Path:
    """What it works on: `serverless.yml`, what that includes, and the zip of the functions."""
    place = folder / "service"
    place.mkdir()
    shutil.copy(ROOT / "serverless.yml", place)
    shutil.copytree(ROOT / "infra", place / "infra")
    (place / archive.name).symlink_to(archive)
    return place


def packaged(folder: Path, archive: Path, **environment: str) -> Path:
    """The template that it makes of `serverless.yml`; nothing is deployed."""
    done = subprocess.run(
        [
            *(str(requires.osls()), "package", "--stage", "prod"),
            *("--region", REGION, "--package", str(folder / "out")),
        ],
        cwd=service(folder, archive),
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CI": "1",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "ORCHCTL_ADMIN_TOKEN_SHA256": "0" * 64,
            "ORCHCTL_ARTIFACT": archive.name,
            "SLS_TELEMETRY_DISABLED": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out" / "cloudformation-template-update-stack.json"
