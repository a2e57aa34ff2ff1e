"""Whatever three clouds do at once, for an hour: no machine without a record, no cap exceeded, no
job lost or given up without a word, and the books say what the clouds say.

Each seed is one history. Play one again with `pytest tests/endurance -k seed-7`; `ORCHCTL_LONG=1`
plays a whole hour of several.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import LONG
from tests.endurance.hour import Hour

SEEDS = range(1, 6) if LONG else (1,)
MINUTES = 60 if LONG else 8


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed-{seed}")
def test_three_clouds_in_trouble(seed: int, tmp_path: Path) -> None:
    hour = Hour(seed, tmp_path, minutes=MINUTES)
    try:
        hour.play()
        print(hour.figures())  # noqa: T201 - shown with `-s`, and when it fails
    except AssertionError as error:
        story = "\n".join(hour.world.story())
        pytest.fail(f"seed {seed}: {error}\n\n{story}", pytrace=False)
    finally:
        hour.world.close()
