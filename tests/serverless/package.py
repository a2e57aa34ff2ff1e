"""The package of all functions, for the Python that runs this."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.requires import ROOT


def build(*words: str | Path, umask: int = 0o022, **environment: str) -> None:
    """Run `infra/lambda/build.py`."""
    beside = str(Path(sys.executable).parent)
    subprocess.run(
        [sys.executable, ROOT / "infra" / "lambda" / "build.py", "--arch=host", *words],
        env={**os.environ, "PATH": f"{beside}:{os.environ['PATH']}", **environment},
        umask=umask,
        check=True,
        stdout=subprocess.DEVNULL,
    )
