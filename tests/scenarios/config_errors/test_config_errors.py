"""What a person sees for a wrong configuration, word for word.

Each `cases/NAME.yaml` has a golden `NAME.txt`. After a change of words, run once with
ORCHCTL_UPDATE_GOLDEN=1 and read the difference as a user would.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from control_plane.config.errors import ConfigError
from control_plane.config.load import load_file

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))


def seen(case: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(case.parent)
    with pytest.raises(ConfigError) as caught:
        load_file(case.name)
    return caught.value.render() + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_text_is_the_golden_one(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word of every error, and that each problem stands at its line and column."""
    golden = case.with_suffix(".txt")
    text = seen(case, monkeypatch)
    if os.environ.get("ORCHCTL_UPDATE_GOLDEN") == "1":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_golden_text_has_its_case() -> None:
    """A case that was renamed leaves no golden text behind."""
    golden = {path.stem for path in CASES[0].parent.glob("*.txt")}
    assert golden == {case.stem for case in CASES}


def test_no_error_shows_what_may_be_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook address written where a reference belongs is not repeated in the error."""
    case = next(case for case in CASES if case.stem == "secret_written")
    assert "verysecret" in case.read_text(encoding="utf-8")
    assert "verysecret" not in seen(case, monkeypatch)
