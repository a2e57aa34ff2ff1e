"""A real Chromium on a real server, for every test of this folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from control_plane.api.changes import Changes
from control_plane.api.server import Server
from tests import requires
from tests.unit.dashboard.world import TOKEN, World, full_world

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass(kw_only=True)
class Site:
    """A served world and the browser that looks at it."""

    world: World
    url: str
    browser: Browser
    faults: list[str] = field(default_factory=list)
    """Console errors, page errors and failed requests of all pages so far."""

    @contextmanager
    def page(
        self, *, theme: str = "light", width: int = 1360, still: bool = False
    ) -> Iterator[Page]:
        """A logged-in page in a fresh context; with `still` its timers wait for `page.clock`."""
        context = self.browser.new_context(
            color_scheme="dark" if theme == "dark" else "light",
            viewport={"width": width, "height": 1000},
            reduced_motion="reduce",
        )
        try:
            if still:
                context.clock.install()
            yield self._logged_in(context)
        finally:
            context.close()

    def _logged_in(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.set_default_timeout(5_000)
        page.on("console", lambda m: m.type == "error" and self.faults.append(m.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("requestfailed", self._failed)
        page.goto(f"{self.url}/login?token={TOKEN}")
        return page

    def _failed(self, request: Request) -> None:
        # A request cut off because the page was left is nobody's fault.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"{request.url}: {request.failure}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module. Not for the session: while it lives, Playwright keeps
    an event loop running in this thread, and tests of other rooms could not run theirs."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=requires.chromium(), args=CHROMIUM_ARGS)
        yield found
        found.close()


@pytest.fixture
def site(browser: Browser) -> Iterator[Site]:
    """A fleet with history on a port of its own. Whatever a browser complained about fails the
    test."""
    world = full_world(days=3)
    with _served(world) as url:
        found = Site(world=world, url=url, browser=browser)
        yield found
    assert found.faults == []


@contextmanager
def _served(world: World) -> Iterator[str]:
    server = Server(world.app, Changes(), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.bound_port}"
    finally:
        server.should_exit = True
        thread.join(10)


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
