"""Rules for all tests: each has a name of its own that can be read, long ones run on request only,
where everything is required a skip is a failure, and what fails is named at once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator, Iterator

import pytest

from tests import jumpy

pytest_plugins = ["tests.emulators.fixtures"]

LONG = os.environ.get("ORCHCTL_LONG") == "1"
REQUIRE_ALL = os.environ.get("ORCHCTL_REQUIRE_ALL") == "1"
_WHY_CHARS = 1_000
_NAME_CHARS = 100


class _Named:
    """Names a failed test as it fails: a run takes half an hour, and it tells the rest at its
    end."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message if crash else report.longreprtext
            self._terminal.write(f"\nFAILED {report.nodeid} ({report.when}): {why[:_WHY_CHARS]}\n")


@pytest.hookimpl(trylast=True)  # pytest makes its terminal in this hook, too
def pytest_configure(config: pytest.Config) -> None:
    """What a shell starts in the background ignores interrupts, and so would every program that a
    test starts to interrupt it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if terminal := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(_Named(terminal))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A name is no place for a megabyte, nor for what is drawn anew in each worker."""
    return argname if isinstance(val, str | bytes) and len(val) > _NAME_CHARS else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse two tests of one name, of which workers run only one. Leave the long searches to
    `make test-long`."""
    names = Counter(item.nodeid for item in items)
    if twice := [name for name, times in names.items() if times > 1]:
        raise pytest.UsageError(f"several tests of one name: {', '.join(twice)}")
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
