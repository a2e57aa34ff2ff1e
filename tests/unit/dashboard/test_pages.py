"""Every page answers, agrees with the cost report to the cent, keeps its weight, and its forms do
what they say and no more.
"""

from __future__ import annotations

import gzip
import html
import re
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from control_plane.core.model import Job, JobSpec, JobState, MachineState, Need
from control_plane.dashboard import web
from control_plane.dashboard.figures import month_start
from control_plane.dashboard.format import cents, duration, money
from control_plane.ports import Place
from control_plane.reports.costs import cost_report
from control_plane.reports.quantiles import quantile
from control_plane.service import Submission
from tests.unit.dashboard.world import NOW, TOKEN, World, empty_world, full_world

EVIL = '"><img src=x onerror=alert(1)>'
LISTS = ("/", "/cost", "/queues", "/machines", "/jobs", "/autoscalers", "/offers", "/activity")


@pytest.fixture(scope="module")
def old_world() -> World:
    """A month of a fleet, for tests that only look."""
    return full_world(days=30)


@pytest.fixture(scope="module")
def seen(old_world: World) -> dict[str, Response]:
    """Every page, as it was answered."""
    client = browse(old_world)
    return {path: client.get(path) for path in every_page(old_world)}


@pytest.fixture
def world() -> World:
    """Two days of a fleet, to change."""
    return full_world(days=2)


def browse(world: World) -> TestClient:
    client = TestClient(world.app, base_url="http://127.0.0.1", follow_redirects=False)
    client.headers["authorization"] = f"Bearer {TOKEN}"
    return client


def every_page(world: World) -> list[str]:
    machine = world.store.machine_list()[0]
    ended = next(m for m in world.store.machine_list(open_only=False) if m.ended_at)
    job = world.store.job_list(states=frozenset({JobState.RUNNING})).items[0]
    done = world.store.job_list(states=frozenset({JobState.SUCCEEDED})).items[0]
    return [
        *LISTS,
        "/cost?by=machine&by=queue&since=month",
        "/cost?by=job&since=90d",
        "/cost?by=job&where=queue:eval&since=7d&step=hour",
        "/machines?show=ended",
        "/machines?show=interrupted",
        f"/machines/{machine.id}",
        f"/machines/{ended.id}",
        f"/machines/{machine.id}/terminate",
        "/queues/train-large",
        "/queues/train-large/clear",
        "/jobs?state=running",
        f"/jobs/{job.id}",
        f"/jobs/{job.id}/cancel",
        f"/jobs/{done.id}",
        "/autoscalers/research",
        "/activity?kind=machine",
    ]


# ------------------------------------------------------------------------------ every page


def test_every_page_answers_within_its_weight(seen: dict[str, Response]) -> None:
    for path, answer in seen.items():
        assert answer.status_code == 200, path
        assert len(gzip.compress(answer.content)) <= 30_000, path


def test_no_page_needs_what_the_policy_forbids(seen: dict[str, Response]) -> None:
    forbidden = r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*src=)|javascript:"
    for path, answer in seen.items():
        assert not re.findall(forbidden, answer.text), path
        assert "default-src 'self'" in answer.headers["content-security-policy"]


class _Outline(HTMLParser):
    """Checks that tags nest, and collects what must be unique or named."""

    VOID = frozenset({"meta", "link", "input", "br", "rect", "path", "line", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.headings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.headings += tag == "h1"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_page_is_well_formed_with_one_heading_and_no_id_twice(
    seen: dict[str, Response],
) -> None:
    for path, answer in seen.items():
        outline = _Outline()
        outline.feed(answer.text)
        assert outline.open == [], path
        assert outline.headings == 1, path
        assert len(outline.ids) == len(set(outline.ids)), path


def test_every_link_of_the_overview_leads_somewhere(world: World) -> None:
    client = browse(world)
    links = set(re.findall(r'href="([^"]+)"', client.get("/").text))
    assert len(links) > 40
    for link in links:
        assert client.get(html.unescape(link)).status_code == 200, link


def test_an_empty_control_plane_says_what_to_do() -> None:
    client = browse(empty_world())
    for path in LISTS:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert re.search(r"<code>orchctl [a-z]", answer.text), path


def test_unknown_things_are_pages_too_with_the_status_of_the_api(world: World) -> None:
    client = browse(world)
    for noun in ("jobs", "machines", "queues", "autoscalers"):
        answer = client.get(f"/{noun}/nope")
        assert answer.status_code == 404
        assert "There is no such thing" in answer.text
    refused = client.get("/cost?by=colour")
    assert refused.status_code == 422
    assert "cannot be grouped by" in refused.text
    assert client.get("/cost?since=later").status_code == 422


def test_a_stranger_sees_nothing(world: World) -> None:
    stranger = TestClient(world.app, base_url="http://127.0.0.1")
    for path in every_page(world):
        answer = stranger.get(path, headers={"accept": "text/html"})
        assert answer.status_code == 401, path
        assert "train" not in answer.text


def test_names_from_users_never_become_markup(world: World) -> None:
    job, _ = world.store.job_enqueue(
        Job(
            id="j-evil",
            queue="train-large",
            spec=JobSpec(command=EVIL, env={EVIL: "s3cret-value"}),
            name=EVIL,
            owner=EVIL,
            submitted_at=NOW - timedelta(hours=3),
            queued_at=NOW - timedelta(hours=3),
        )
    )
    world.store.job_move(
        job.id, queue="train-large", place=Place(where="top"), expected_version=None, now=NOW
    )
    client = browse(world)
    for path in ("/", "/jobs", "/jobs/j-evil", "/queues/train-large", "/queues/train-large/clear"):
        text = client.get(path).text
        assert "<img" not in text, path
        assert "&lt;img" in text, path
        assert "s3cret-value" not in text, "a value of the environment may be a secret"


# ------------------------------------------------------------------------------ money


def column(text: str, index: int) -> list[Decimal]:
    """The amounts of one column of the cost table, the foot's last."""
    text = text[text.index('id="rows"') :]
    table = text[text.index("<table") : text.index("</table")]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in table.split("<tr")[2:]]
    cells = [re.sub(r"<[^>]+>", "", row[index]).strip() for row in rows]
    return [Decimal(each.replace("$", "").replace(",", "").replace("—", "0")) for each in cells]


@pytest.mark.parametrize("by", ["queue", "cloud", "machine", "job", "owner"])
def test_the_cost_table_adds_up_to_the_cent_and_is_the_report(old_world: World, by: str) -> None:
    text = browse(old_world).get(f"/cost?by={by}&since=month").text
    report = cost_report(
        old_world.store, by=(by,), since=month_start(NOW), until=NOW, step="day", now=NOW
    )
    costs, work, idle, boot, saved = (column(text, i) for i in (1, 3, 4, 5, 6))
    for amounts in (costs, work, idle, boot, saved):
        *rows, total = amounts
        assert sum(rows) == total
    assert [w + i + b for w, i, b in zip(work, idle, boot, strict=True)] == costs
    assert cents(report.totals.cost_usd) == cents(costs[-1])
    assert cents(report.totals.saved_usd) == cents(saved[-1])
    assert abs(report.totals.idle_usd - idle[-1]) < Decimal("0.01")


def test_the_cards_show_the_report_s_totals(old_world: World) -> None:
    text = browse(old_world).get("/").text
    totals = cost_report(
        old_world.store, by=("queue",), since=month_start(NOW), until=NOW, step="day", now=NOW
    ).totals
    cards = dict(
        re.findall(r'kpi" href="[^"]*"><span>([^<]+)</span><b class="[^"]*">([^<]+)</b>', text)
    )
    assert cards["Month to date"] == money(totals.cost_usd)
    assert cards["Saved by spot"] == money(totals.saved_usd)
    assert cards["Idle waste"] == money(totals.idle_usd)
    assert cards["Machines"] == "15"


def test_each_card_links_to_rows_that_sum_to_its_figure(old_world: World) -> None:
    client = browse(old_world)
    cards = re.findall(
        r'kpi" href="([^"]*)"><span>([^<]+)</span><b class="[^"]*">([^<]+)</b>',
        client.get("/").text,
    )
    shown = {name: (html.unescape(href), value) for href, name, value in cards}
    for name, index in {
        "Spend today": 1,
        "Month to date": 1,
        "Saved by spot": 6,
        "Idle waste": 1,
    }.items():
        href, value = shown[name]
        assert money(column(client.get(href).text, index)[-1]) == value, name


def test_a_row_links_to_what_it_is_made_of(old_world: World) -> None:
    client = browse(old_world)
    text = client.get("/cost?by=cloud&since=7d").text
    *rows, _ = column(text, 1)
    hrefs = re.findall(r'<td class="num strong"><a href="([^"]+)"', text)
    assert len(hrefs) == len(rows) == 3
    for href, amount in zip(hrefs, rows, strict=True):
        inner = column(client.get(html.unescape(href)).text, 1)[-1]
        assert abs(inner - amount) <= Decimal("0.01")


def test_a_long_table_is_cut_and_still_adds_up(old_world: World) -> None:
    text = browse(old_world).get("/cost?by=job&since=90d").text
    *rows, total = column(text, 1)
    assert len(rows) == 100
    assert "all others" in text
    assert sum(rows) == total


def test_csv_is_the_same_report_in_full(old_world: World) -> None:
    answer = browse(old_world).get("/cost.csv?by=queue&since=month")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "cost-by-queue-month.csv" in answer.headers["content-disposition"]
    report = cost_report(
        old_world.store, by=("queue",), since=month_start(NOW), until=NOW, step="day", now=NOW
    )
    assert answer.text.splitlines()[-1].split(",")[1] == str(report.totals.cost_usd)


# ------------------------------------------------------------------------------ delivery


def test_static_files_keep_their_budget_and_are_kept_for_ever(world: World) -> None:
    client = browse(world)
    text = client.get("/").text
    for name, limit in {"orch.css": 10_240, "orch.js": 8_192, "favicon.svg": 500}.items():
        path = re.search(rf'"(/assets/[0-9a-f]+/{name})"', text)
        assert path, name
        answer = client.get(path[1])
        assert len(answer.content) <= limit
        assert "immutable" in answer.headers["cache-control"]
    other = client.get("/assets/0123/orch.css")
    assert "immutable" not in other.headers["cache-control"]
    assert client.get(f"/assets/{web.assets_digest()}/views.py").status_code == 404


def test_an_unchanged_page_is_not_sent_again(world: World) -> None:
    client = browse(world)
    first = client.get("/queues")
    again = client.get("/queues", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    world.service.queue_create("new")
    changed = client.get("/queues", headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


def test_pages_are_compressed_only_for_those_who_can_read_it(world: World) -> None:
    client = browse(world)
    packed = client.get("/", headers={"accept-encoding": "gzip"})
    plain = client.get("/", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text


def test_the_theme_of_the_cookie_is_in_the_first_byte(world: World) -> None:
    client = browse(world)
    dark = client.get("/queues", headers={"cookie": "theme=dark"}).text
    odd = client.get("/queues", headers={"cookie": "theme=x%22onload"}).text
    assert '<html lang="en" data-theme="dark">' in dark
    assert '<html lang="en">' in odd


# ------------------------------------------------------------------------------ forms


def waiting(world: World) -> list[Job]:
    states = frozenset({JobState.QUEUED})
    return list(world.store.job_list(queue="train-large", states=states).items)


def test_moving_a_job_changes_the_order_and_leads_back(world: World) -> None:
    first, *_, last = waiting(world)
    answer = browse(world).post(
        f"/jobs/{last.id}/move",
        data={"place": "before", "of": first.id, "version": str(last.version), "back": "/?a=b"},
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/?a=b")
    assert [each.id for each in waiting(world)][:2] == [last.id, first.id]


def test_a_move_from_an_old_page_changes_nothing_and_says_so(world: World) -> None:
    *_, last = waiting(world)
    world.service.move(last.id, place=Place(where="top"))
    order = [each.id for each in waiting(world)]
    answer = browse(world).post(
        f"/jobs/{last.id}/move", data={"place": "bottom", "version": str(last.version)}
    )
    assert answer.status_code == 409
    assert "Not as things are now" in answer.text
    assert [each.id for each in waiting(world)] == order


def test_a_move_without_a_version_is_refused(world: World) -> None:
    first, *_ = waiting(world)
    answer = browse(world).post(f"/jobs/{first.id}/move", data={"place": "bottom"})
    assert answer.status_code == 422
    assert waiting(world)[0].id == first.id


def test_the_forms_in_the_page_do_what_their_buttons_say(world: World) -> None:
    client = browse(world)
    before = [each.id for each in waiting(world)]
    text = client.get("/queues/train-large").text
    forms = re.findall(r'<form method="post" action="([^"]+/move)">(.*?)</form>', text, re.S)
    down = next(f for f in forms if f'"move {waiting(world)[0].name} down"' in f[1])
    fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', down[1]))
    answer = client.post(down[0], data=fields)
    assert answer.headers["location"] == "/queues/train-large"
    after = [each.id for each in waiting(world)]
    assert after == [before[1], before[0], *before[2:]]


def test_cancel_retry_and_clone(world: World) -> None:
    client = browse(world)
    job = waiting(world)[0]
    client.post(f"/jobs/{job.id}/cancel", data={"back": "/"})
    assert world.store.job_get(job.id).state is JobState.CANCELLED
    assert world.store.event_list(subject=job.id).items[0].actor == "admin"
    for verb in ("retry", "clone"):
        answer = client.post(f"/jobs/{job.id}/{verb}")
        assert answer.status_code == 303
        copy = world.store.job_get(answer.headers["location"].rpartition("/")[2])
        assert (copy.cloned_from, copy.state) == (job.id, JobState.QUEUED)
    assert client.post(f"/jobs/{waiting(world)[0].id}/retry").status_code == 409


def test_pages_that_ask_first_change_nothing(world: World) -> None:
    client = browse(world)
    machine = next(m for m in world.store.machine_list() if m.state is MachineState.READY)
    asked = client.get("/queues/train-large/clear").text
    assert "Cancel 6 jobs" in asked
    assert "Terminate now" in client.get(f"/machines/{machine.id}/terminate").text
    assert len(waiting(world)) == 6
    assert world.store.machine_get(machine.id).state is MachineState.READY
    client.post("/queues/train-large/clear", data={})
    client.post(f"/machines/{machine.id}/terminate", data={})
    assert waiting(world) == []
    assert world.store.machine_get(machine.id).state is MachineState.TERMINATING


def test_machines_queues_and_autoscalers_can_be_held(world: World) -> None:
    client = browse(world)
    machine = next(m for m in world.store.machine_list() if m.state is MachineState.READY)
    client.post(f"/machines/{machine.id}/protect")
    assert world.store.machine_get(machine.id).protected
    client.post(f"/machines/{machine.id}/unprotect")
    assert not world.store.machine_get(machine.id).protected
    client.post(f"/machines/{machine.id}/drain")
    assert world.store.machine_get(machine.id).state is MachineState.DRAINING
    for noun, name, look in (
        ("queues", "eval", world.store.queue_get),
        ("autoscalers", "research", world.store.autoscaler_get),
    ):
        client.post(f"/{noun}/{name}/pause")
        assert look(name).paused
        assert "resume" in client.get(f"/{noun}/{name}").text
        client.post(f"/{noun}/{name}/resume")
        assert not look(name).paused


def test_a_queue_is_made_from_its_form_and_bad_names_are_refused(world: World) -> None:
    client = browse(world)
    assert client.post("/queues", data={"name": "night"}).headers["location"] == "/queues/night"
    assert world.store.queue_get("night").autoscaler == ""
    for bad in ("", "a/b", "x" * 64, "<b>"):
        assert client.post("/queues", data={"name": bad}).status_code == 422


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", ""]
)
def test_a_form_leads_back_to_our_own_pages_only(world: World, target: str) -> None:
    answer = browse(world).post("/queues/eval/pause", data={"back": target})
    assert answer.headers["location"] == "/queues/eval"


def test_another_site_s_form_is_refused_although_the_cookie_is_ours(world: World) -> None:
    visitor = TestClient(world.app, base_url="http://127.0.0.1", follow_redirects=False)
    visitor.get(f"/login?token={TOKEN}")
    foreign = {"sec-fetch-site": "cross-site"}
    assert visitor.post("/queues/eval/pause", headers=foreign).status_code == 403
    assert not world.store.queue_get("eval").paused
    ours = {"sec-fetch-site": "same-origin"}
    assert visitor.post("/queues/eval/pause", headers=ours).status_code == 303
    assert world.store.queue_get("eval").paused


def test_an_oversized_form_is_refused(world: World) -> None:
    answer = browse(world).post("/queues", data={"name": "x" * (web.FORM_BYTES_MAX + 1)})
    assert answer.status_code == 422
    assert "too large" in answer.text


# ------------------------------------------------------------------------------ single things


def test_a_job_page_holds_the_end_of_a_long_log(world: World) -> None:
    job = world.store.job_list(states=frozenset({JobState.RUNNING})).items[0]
    key = f"jobs/{job.id}/{job.epoch}/log"
    size = world.blobs.size(key)
    world.blobs.append(key, size, "ä".encode() * 40_000 + b"the end\n")
    text = browse(world).get(f"/jobs/{job.id}").text
    assert "the end" in text
    assert "\ufffd" not in text, "half a character is not shown"
    assert "The whole log" in text
    assert f'data-offset="{world.blobs.size(key)}"' in text


def test_a_queue_page_tells_the_last_decision_about_it(world: World) -> None:
    text = browse(world).get("/queues/train-large").text
    assert "would cost 90.12 USD/hour" in text
    assert "6 jobs wait in train-large" in text
    other = browse(world).get("/queues/eval").text
    assert "would cost 90.12" not in other


def test_a_machine_page_tells_its_story(world: World) -> None:
    machine = next(m for m in world.store.machine_list(open_only=False) if m.ended_at)
    text = browse(world).get(f"/machines/{machine.id}").text
    for word in ("planned", "launched", "ready", "stopping", "gone", "boot", "3 jobs waited"):
        assert word in text, word
    report = cost_report(
        world.store,
        by=(),
        since=machine.planned_at,
        until=NOW,
        step="month",
        now=NOW,
        where={"machine": machine.id},
    )
    assert cents(report.totals.cost_usd) in text


def test_a_resting_offer_says_why_and_how_long(world: World) -> None:
    text = browse(world).get("/offers?pool=a100").text
    assert "InsufficientInstanceCapacity, 7 min left" in text
    assert "g6.xlarge" not in text


# ------------------------------------------------------------------- limits, delays, dependencies


def facts_of(text: str) -> dict[str, str]:
    """What the descriptions of a page say, by name."""
    rows = re.findall(r"<dt>(.*?)</dt>\s*<dd[^>]*>(.*?)</dd>", text, re.S)
    plain = ((name, re.sub(r"<[^>]+>", " ", value)) for name, value in rows)
    return {name: " ".join(html.unescape(value).split()) for name, value in plain}


def submitted(world: World, **more: Any) -> Job:
    spec = JobSpec(command="python train.py", need=Need(cpus=1))
    job, _ = world.service.submit(Submission(spec=spec, queue="own", **more))
    return job


def test_a_queue_page_tells_limits_delays_and_waits() -> None:
    world = empty_world()
    world.service.queue_create("own", max_running=4, max_running_per_owner=2)
    client = browse(world)
    nothing = facts_of(client.get("/queues/own").text)
    assert nothing["Running"] == "0 of at most 4 at most 2 of one owner"
    assert nothing["Wait, median"] == "—"
    first = submitted(world)
    submitted(world, depends_on=(first.id,))
    submitted(world, not_before=NOW + timedelta(hours=1))
    text = client.get("/queues/own").text
    told = facts_of(text)
    assert told["Delayed"].split()[0] == told["Blocked"].split()[0] == "1"
    assert "not before 2026-11-21 15:05" in text
    assert client.get("/jobs?queue=own&state=blocked").text.count('class="badge plain"') == 1
    assert "Cancel 3 jobs" in client.get("/queues/own/clear").text


def test_a_queue_page_tells_how_long_jobs_waited(world: World) -> None:
    told = facts_of(browse(world).get("/queues/train-large").text)
    waits = world.store.queue_waits("train-large")
    assert told["Wait, median"] == f"{duration(quantile(waits, 0.5))} of the last {len(waits)} jobs"
    assert told["Wait, p90"].startswith(duration(quantile(waits, 0.9)))


def test_a_job_page_tells_what_it_waits_for_and_its_whole_life() -> None:
    world = empty_world()
    world.service.queue_create("own")
    first, second = submitted(world), submitted(world)
    waits = submitted(
        world, depends_on=(first.id, second.id), not_before=NOW + timedelta(hours=1), owner="mia"
    )
    client = browse(world)
    text = client.get(f"/jobs/{waits.id}").text
    for other in (first, second):
        assert f'<a href="/jobs/{other.id}">{other.id}</a>' in text
    told = facts_of(text)
    assert told["After"] == f"{first.id} , {second.id}"
    assert told["Not before"] == "2026-11-21 15:05"
    events = text[text.index('id="events"') :]
    assert f"waits for {first.id}, {second.id} to succeed" in events
    assert "queued in own" in events
    world.clock.sleep(60)
    sent = client.post(f"/jobs/{waits.id}/cancel", headers={"sec-fetch-site": "same-origin"})
    assert sent.status_code == 303
    assert world.store.job_get(waits.id).state is JobState.CANCELLED
    plain = client.get(f"/jobs/{first.id}").text
    assert not {"After", "Not before"} & facts_of(plain).keys()
