"""A machine without a browser skips these tests with a reason, or fails where all must run."""

from __future__ import annotations

import pytest

from tests import requires


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)


def test_without_a_browser_it_skips_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ORCHCTL_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install --yes chromium"):
        requires.chromium()


def test_where_everything_is_required_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHCTL_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        requires.chromium()
