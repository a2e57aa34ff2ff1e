"""What people do on the pages reaches the store, survives a reload, and tells when it came late."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from control_plane.agents import log_key
from control_plane.core.model import JobState, Reason
from control_plane.ports import Ending, Place
from tests.browser.conftest import Site
from tests.unit.dashboard.world import NOW

LOG_MS = 1_500
NAMES = ["llama-ft", "vit-sweep", "resnet-ablate", "eval-mmlu", "clip-pretrain", "sd-lora"]


def order(page: Page) -> list[str]:
    return page.locator(".line li b").all_inner_texts()


def stored(site: Site) -> list[str]:
    waiting = frozenset({JobState.QUEUED})
    return [
        job.name for job in site.world.store.job_list(queue="train-large", states=waiting).items
    ]


def see(page: Page, names: list[str]) -> None:
    """The order on the page becomes this, and stays through a reload."""
    expect(page.locator(".line li b")).to_have_text(names)
    page.reload()
    assert order(page) == names


def test_a_job_dragged_to_the_top_stays_there(site: Site) -> None:
    with site.page() as page:
        page.goto(f"{site.url}/queues/train-large")
        assert order(page) == NAMES
        page.locator(".line li", has_text="clip-pretrain").locator(".grip").drag_to(
            page.locator(".line li", has_text="llama-ft"), target_position={"x": 200, "y": 3}
        )
        moved = ["clip-pretrain", *NAMES[:4], "sd-lora"]
        see(page, moved)
        assert stored(site) == moved


def test_a_job_dragged_onto_the_lower_half_of_another_comes_after_it(site: Site) -> None:
    with site.page() as page:
        page.locator(".line li", has_text="llama-ft").locator(".grip").drag_to(
            page.locator(".line li", has_text="resnet-ablate"), target_position={"x": 200, "y": 28}
        )
        see(page, ["vit-sweep", "resnet-ablate", "llama-ft", *NAMES[3:]])


def test_arrow_keys_move_a_job_and_keep_its_handle_in_hand(site: Site) -> None:
    with site.page() as page:
        page.goto(f"{site.url}/queues/train-large")
        page.locator(".line li", has_text="llama-ft").locator(".grip").focus()
        page.keyboard.press("ArrowDown")
        expect(page.locator(".line li b").nth(1)).to_have_text("llama-ft")
        expect(page.locator(".line li", has_text="llama-ft").locator(".grip")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(page.locator(".line li b").nth(2)).to_have_text("llama-ft")
        page.keyboard.press("ArrowUp")
        see(page, ["vit-sweep", "llama-ft", *NAMES[2:]])


def test_the_buttons_move_to_the_ends(site: Site) -> None:
    with site.page() as page:
        page.goto(f"{site.url}/queues/train-large")
        page.get_by_role("button", name="move sd-lora to the top").click()
        expect(page.locator(".line li b").first).to_have_text("sd-lora")
        page.get_by_role("button", name="move llama-ft to the bottom").click()
        see(page, ["sd-lora", *NAMES[1:5], "llama-ft"])


def test_a_late_move_shows_the_order_of_the_server_and_why(site: Site) -> None:
    with site.page() as page:
        page.goto(f"{site.url}/queues/train-large")
        last = site.world.store.job_list(
            queue="train-large", states=frozenset({JobState.QUEUED})
        ).items[-1]
        site.world.service.move(last.id, place=Place(where="top"))
        page.get_by_role("button", name="move sd-lora up", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("changed this queue meanwhile")
        see(page, ["sd-lora", *NAMES[:5]])
    # The refusal is what this test is about; the browser logs it as a failed load.
    assert [fault for fault in site.faults if "412" not in fault] == []
    site.faults.clear()


def test_nothing_is_refreshed_while_a_job_is_dragged(site: Site) -> None:
    with site.page(still=True) as page:
        page.goto(f"{site.url}/queues/train-large")
        page.locator(".line li", has_text="llama-ft").locator(".grip").hover()
        page.mouse.down()
        page.locator(".line li", has_text="vit-sweep").hover()
        expect(page.locator("#live-text")).to_have_text("paused while dragging")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.clock.run_for(20_000)
        assert asked == []
        page.mouse.up()
        page.clock.run_for(5_000)
        expect(page.locator("#live-text")).to_have_text("live")
        assert asked != []


def test_a_waiting_job_is_cancelled_where_it_stands(site: Site) -> None:
    with site.page() as page:
        page.get_by_role("button", name="cancel vit-sweep").click()
        expect(page.locator(".line li b")).to_have_text([NAMES[0], *NAMES[2:]])
        assert "vit-sweep" not in stored(site)


def test_a_running_job_is_cancelled_after_a_question(site: Site) -> None:
    job = site.world.store.job_list(states=frozenset({JobState.RUNNING})).items[0]
    with site.page() as page:
        page.goto(f"{site.url}/jobs/{job.id}")
        page.get_by_role("link", name="cancel…").click()
        expect(page.get_by_role("heading", name="Cancel job")).to_be_visible()
        assert not site.world.store.job_get(job.id).cancel_requested
        page.get_by_role("button", name="Cancel this job").click()
        expect(page.locator("#head .badge")).to_have_text("cancelling")
        assert site.world.store.job_get(job.id).cancel_requested


def test_a_log_grows_on_the_page_until_the_job_has_ended(site: Site) -> None:
    job = site.world.store.job_list(states=frozenset({JobState.RUNNING})).items[0]
    key = log_key(job.id, job.epoch)
    done = Ending(
        outcome="succeeded", exit_code=0, reason=Reason(code="ok", sentence="exit code 0")
    )

    def say(data: bytes) -> None:
        site.world.blobs.append(key, site.world.blobs.size(key), data)
        page.clock.run_for(LOG_MS)

    with site.page(still=True) as page:
        page.goto(f"{site.url}/jobs/{job.id}")
        log = page.locator("pre.log")
        expect(log).to_contain_text("epoch 11 loss")
        # A character of two bytes that arrives in two pieces must not break.
        letter = "ä".encode()
        say(b"\nhalf " + letter[:1])
        expect(log).to_contain_text("half")
        say(letter[1:] + b" whole\n")
        expect(log).to_contain_text("half ä whole")
        site.world.store.job_finish(job.id, job.epoch, done, state=JobState.SUCCEEDED, now=NOW)
        page.clock.run_for(LOG_MS)
        expect(page.locator("#log-note")).to_have_text("complete")
        assert log.inner_text().count("epoch 11 loss") == 1, "nothing is shown twice"


def test_clearing_a_queue_asks_first_and_leads_back(site: Site) -> None:
    with site.page() as page:
        page.goto(f"{site.url}/queues/train-large")
        page.get_by_role("link", name="clear…").click()
        page.get_by_role("button", name="Cancel 6 jobs").click()
        expect(page).to_have_url(f"{site.url}/queues/train-large")
        expect(page.locator("#line")).to_contain_text("Nothing waits")
        assert stored(site) == []
