"""Stories a person can read: each script of `scripts/` plays out exactly as its transcript says.

`ORCHCTL_UPDATE_GOLDEN=1 pytest tests/scenarios` writes the transcripts anew; read the difference
before you commit it, because it is what users will see.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios.interpreter import transcript

SCRIPTS = Path(__file__).parent / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.txt") if not path.stem.endswith(".out"))


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_plays_out_as_its_transcript_says(name: str) -> None:
    seen = transcript((SCRIPTS / f"{name}.txt").read_text())
    golden = SCRIPTS / f"{name}.out.txt"
    if os.environ.get("ORCHCTL_UPDATE_GOLDEN") == "1":
        golden.write_text(seen)
    assert seen == golden.read_text()


def test_every_transcript_has_its_script() -> None:
    transcripts = {path.name.removesuffix(".out.txt") for path in SCRIPTS.glob("*.out.txt")}
    assert transcripts == set(NAMES)
