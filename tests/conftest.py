"""Rules for all tests: long ones run on request only, and where everything is required, a skip is a
failure."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest

from tests import jumpy

pytest_plugins = ["tests.emulators.fixtures"]

LONG = os.environ.get("ORCHCTL_LONG") == "1"
REQUIRE_ALL = os.environ.get("ORCHCTL_REQUIRE_ALL") == "1"


def pytest_configure() -> None:
    """What a shell starts in the background ignores interrupts, and so would every program that a
    test starts to interrupt it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long searches to `make test-long`."""
    if LONG:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if not item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where everything is required."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but everything is required here: {report.longrepr}"
    return report


@pytest.fixture
def jumpy_threads() -> Iterator[None]:
    """A test in which a missing lock shows."""
    with jumpy.jumpy_threads():
        yield
