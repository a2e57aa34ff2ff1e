"""Programs that some tests drive and that pip cannot bring.

Without one, those tests skip and say what to install; with ORCHCTL_REQUIRE_ALL=1 they fail, so that
a machine meant to run everything cannot silently run less.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

MINISTACK = Path(__file__).parents[1] / ".emulators" / "ministack-1.5.33"
"""Its own environment: what it needs would clash with ours."""
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


def no_containers(reason: str) -> str:
    """As `missing`, for what only containers can show; required where they are known to run."""
    if os.environ.get("ORCHCTL_REQUIRE_CONTAINERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def missing(reason: str) -> str:
    """Skip the test for this reason, or fail it where everything is required."""
    if os.environ.get("ORCHCTL_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
