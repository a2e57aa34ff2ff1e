"""A look at a cloud: it has a deadline, and whatever goes wrong in it is a check that failed."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import NoReturn

import pytest

from control_plane.core.model import ErrorClass
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Check
from providers import examination
from providers.examination import AGAIN, Wrong, look

NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def _raising(error: Exception) -> NoReturn:
    raise error


def _seen(error: Exception) -> Check:
    (check,) = look("thing", lambda: _raising(error), lambda refused: f"mend {refused.raw_code}")
    return check


def test_what_is_found_is_a_check_and_nothing_is_none() -> None:
    assert list(look("thing", lambda: "there", lambda _: "")) == [
        Check(name="thing", ok=True, detail="there")
    ]
    assert list(look("thing", lambda: "", lambda _: "")) == []


def test_a_refusal_comes_with_its_fix() -> None:
    refused = ProviderError("denied", error_class=ErrorClass.AUTH, raw_code="Denied")
    assert _seen(refused) == Check(name="thing", ok=False, detail="denied", fix="mend Denied")
    assert _seen(Wrong("none", "make one")).fix == "make one"


@pytest.mark.parametrize("error", [OSError("broken pipe"), KeyError("Arn"), TimeoutError()])
def test_what_nobody_thought_of_is_a_failure_too(error: Exception) -> None:
    seen = _seen(error)
    assert (seen.ok, seen.fix) == (False, AGAIN)
    assert type(error).__name__ in seen.detail


def test_pools_that_say_the_same_are_looked_at_once() -> None:
    def cloud(*regions: str, **options: str) -> CloudPolicy:
        return CloudPolicy(provider="aws", regions=regions, options=options)

    pools = [cloud("a"), cloud("a", image="x"), cloud("b", "a")]
    assert examination.merged(pools) == [cloud("a", "b"), cloud("a", image="x")]


def test_what_hangs_is_left_alone() -> None:
    never = threading.Event()
    hanging = look("thing", lambda: str(never.wait()), lambda _: "", deadline_s=0.05)
    assert [(each.ok, each.detail) for each in hanging] == [(False, "no answer within 0.05 s")]
    never.set()


def test_a_missing_sdk_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    found = examination.sdk("aws", "botocore", "json", "botocore")
    assert (found.ok, found.fix) == (False, "pip install 'orchctl[aws]'")


@pytest.mark.parametrize(("skew_s", "good"), [(0, True), (30, True), (-30, True), (31, False)])
def test_clocks_may_differ_by_half_a_minute(skew_s: int, good: bool) -> None:
    date = format_datetime(NOW + timedelta(seconds=skew_s), usegmt=True)
    (check,) = examination.clock(date, NOW)
    assert check.ok is good
    assert bool(check.fix) is not good


def test_a_cloud_that_tells_no_time_is_not_asked() -> None:
    assert list(examination.clock("", NOW)) == []
