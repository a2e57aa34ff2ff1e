"""`orchctl demo`, as a newcomer runs it: the main job for real, with a job that fails and a machine
that is killed. Builds the jobs' environment with the package installer, as `make demo` does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from providers.local.provider import LocalProvider


def test_the_demo_does_the_main_job_and_leaves_nothing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from orchctl.main import run; run()", "demo", "--json", "--keep"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["jobs_submitted"] == 9
    assert (result["jobs_succeeded"], result["jobs_failed_expected"]) == (8, 1)
    assert result["requeued"] == 1
    assert result["attempts"] == 10
    assert result["machines_launched"] >= 3, "the killed machine is replaced"
    assert result["machines_max"] == 2, "the cap of the document"
    assert result["machines_left"] == 0
    assert Decimal(result["cost_usd"]) > 0
    assert result["charges_add_up"]
    (state,) = tmp_path.glob("orchctl-demo-*")
    assert LocalProvider(state / "machines").alive() == {}, "no process is left"
    for words in ("on purpose", "accuracy", "killed machine", "total"):
        assert words in ran.stderr
