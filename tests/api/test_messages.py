"""What agents are told is the JSON of all its fields, whatever is in them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_bootstrap import wire
from control_plane.api.messages import written

WHOLE = st.integers(min_value=0, max_value=2**53)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ADVICE = st.builds(
    wire.Advice,
    beat_s=st.floats(allow_nan=False, allow_infinity=False),
    poll_s=WHOLE,  # a whole number where a fraction may stand
    direct_above_bytes=WHOLE,
)
WORK = st.builds(
    wire.Work,
    job_id=TEXT,
    epoch=WHOLE,
    attempt=WHOLE,
    command=TEXT,
    env=st.dictionaries(TEXT, TEXT, max_size=3),
    source=st.builds(wire.SourceRef, kind=TEXT, remote=TEXT),
    requirements=st.lists(TEXT, max_size=3),
    artifacts=st.lists(TEXT, max_size=3),
)
CLAIMED = st.builds(wire.Claimed, jobs=st.lists(WORK, max_size=3), advice=ADVICE)
BEATEN = st.builds(
    wire.Beaten,
    cancel=st.lists(TEXT, max_size=3),
    lost=st.lists(TEXT, max_size=3),
    drain=st.booleans(),
    advice=ADVICE,
)


@given(answer=st.one_of(CLAIMED, BEATEN))
def test_all_fields_are_told(answer: Any) -> None:
    assert json.loads(written(answer)) == asdict(answer)


def test_a_type_that_no_answer_has_is_refused() -> None:
    with pytest.raises(KeyError):
        written(object())
