"""How many histories are tried, and from which seed."""

from __future__ import annotations

import os
import random
import sys

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.conftest import LONG

HISTORIES = (pytest.param(100, id="100"), pytest.param(2000, id="2000", marks=pytest.mark.long))
"""How many histories a test tries: few in every build, many on request."""

STEPS = 30
STEPS_REMOTE = 12
"""Calls per history."""


def new_seed() -> int:
    """The same in every build, a fresh one for a long search, or the one to replay."""
    given = os.environ.get("ORCHCTL_MODEL_SEED")
    if given is not None:
        return int(given)
    return random.SystemRandom().randrange(1 << 32) if LONG else 1


def announce(what: str, seed: int) -> None:
    """Say how to see the same again; on the real output, where no capturing hides it."""
    print(f"\nmodel: {what}: ORCHCTL_MODEL_SEED={seed}", file=sys.__stdout__, flush=True)


def search(
    machine: type[RuleBasedStateMachine],
    what: str,
    histories: int,
    *,
    steps: int = STEPS,
    shrink: bool = True,
) -> None:
    """Try this many histories of a state machine. Raises what the machine raises, for the shortest
    history found."""
    seed = new_seed()
    announce(f"{what}, {histories} histories", seed)
    limits = settings(
        max_examples=histories,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        print_blob=False,
    )
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=limits)
