"""Every page in a real browser: light, dark and on a phone, without a complaint of the console and
without a page that is wider than the screen.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from control_plane.core.model import JobState, MachineState
from tests.browser.conftest import Site

REFRESH_MS = 5_000


def paths(site: Site) -> list[str]:
    store = site.world.store
    machine = store.machine_list()[0].id
    job = store.job_list(states=frozenset({JobState.RUNNING})).items[0].id
    return [
        "/",
        "/cost?by=queue&since=7d",
        "/queues",
        "/queues/train-large",
        "/machines",
        f"/machines/{machine}",
        f"/machines/{machine}/terminate",
        "/jobs",
        f"/jobs/{job}",
        "/autoscalers",
        "/autoscalers/research",
        "/offers",
        "/activity",
    ]


def too_wide(page: Page) -> int:
    wide: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return wide


@pytest.mark.parametrize(("theme", "width"), [("light", 1360), ("dark", 1360), ("light", 360)])
def test_every_page_fits_and_no_console_complains(site: Site, theme: str, width: int) -> None:
    with site.page(theme=theme, width=width) as page:
        for path in paths(site):
            answer = page.goto(site.url + path)
            assert answer is not None
            assert answer.status == 200, path
            expect(page.locator("#live-text")).to_have_text("live")
            assert too_wide(page) <= 0, path
            lit = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert lit == ("rgb(15, 18, 23)" if theme == "dark" else "rgb(245, 246, 248)")


def test_the_theme_button_holds_across_pages_without_a_flash(site: Site) -> None:
    with site.page(theme="light") as page:
        page.get_by_role("button", name="Switch between dark and light").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        answer = page.goto(f"{site.url}/queues")
        assert answer is not None
        assert 'data-theme="dark"' in answer.text(), "the server knows it before any script runs"


def test_everything_is_there_without_script(site: Site) -> None:
    with site.page() as page:
        cookies = page.context.cookies()
        bare = site.browser.new_context(java_script_enabled=False)
        bare.add_cookies(cookies)  # type: ignore[arg-type]
        plain = bare.new_page()
        plain.goto(site.url)
        assert plain.locator("svg.chart").count() == 2
        assert plain.locator("#machines tbody tr").count() == 15
        first = plain.locator(".line li").first.inner_text()
        plain.get_by_role("button", name="move llama-ft down", exact=True).click()
        assert plain.url == f"{site.url}/"
        assert plain.locator(".line li").first.inner_text() != first
        bare.close()


def test_a_tip_tells_a_column_s_figures(site: Site) -> None:
    with site.page() as page:
        page.locator("#spend g[data-tip]").last.hover()
        expect(page.locator(".tip")).to_contain_text("on demand $")


def test_a_chart_can_be_read_as_a_table_that_stays_open(site: Site) -> None:
    with site.page(still=True) as page:
        page.locator("#spend summary").click()
        expect(page.locator("#spend tbody tr")).to_have_count(30)
        today = page.locator("#spend tbody tr").last
        before = today.inner_text()
        site.world.clock.sleep(3600)
        page.clock.run_for(REFRESH_MS)
        expect(today).not_to_have_text(before)
        expect(today).to_be_visible()


def test_the_cost_form_shows_at_once_what_is_chosen(site: Site) -> None:
    with site.page() as page:
        page.goto(f"{site.url}/cost")
        page.get_by_label("Group by").select_option("machine")
        expect(page.locator("#rows thead th").first).to_have_text("Machine")
        assert "by=machine" in page.url


def test_a_page_shows_what_changed_behind_its_back_and_keeps_the_focus(site: Site) -> None:
    machine = next(m for m in site.world.store.machine_list() if m.state is MachineState.READY)
    with site.page(still=True) as page:
        page.goto(f"{site.url}/machines/{machine.id}")
        button = page.get_by_role("button", name="protect", exact=True)
        button.focus()
        site.world.app.state.deps.fleet.drain(machine.id, actor="tom")
        page.clock.run_for(REFRESH_MS)
        expect(page.locator("#head .badge")).to_have_text("draining")
        expect(button).to_be_focused()
        # Nothing changes any more: the next look costs no body.
        with page.expect_response(lambda r: r.url == page.url) as looked:
            page.clock.run_for(REFRESH_MS)
        assert looked.value.status == 304


def test_a_server_that_is_gone_is_said_so_at_the_top(site: Site) -> None:
    with site.page(still=True) as page:
        page.route("**/*", lambda route: route.abort("connectionrefused"))
        page.clock.run_for(REFRESH_MS)
        expect(page.locator("#live-text")).to_have_text("no answer")
        page.unroute("**/*")
        page.clock.run_for(REFRESH_MS)
        expect(page.locator("#live-text")).to_have_text("live")
    site.faults.clear()
