"""The tables of `docs/serverless-permissions.md` and `docs/serverless-cost.md`.

Rights are from `infra/iam/permissions.py`. Costs are computed: from `serverless.yml`, from what
`serverless-figures.json` says that each thing consumes, and from `list_prices.py`. A test measures
and compares the figures (`tests/unit/infra/test_cost.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from control_plane.serverless.wiring import IDLE_LOOK_S, LEASE_S
from docs import list_prices as usd
from infra.iam.permissions import TRUST, Permission, of
from infra.iam.render import role_id
from providers.catalog.loader import load_offers

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PERMISSIONS = DOCS / "serverless-permissions.md"
COST = DOCS / "serverless-cost.md"
FIGURES = DOCS / "serverless-figures.json"
ALARMS = ROOT / "infra" / "lambda" / "alarms-all.yml"

SAFETY = 2
"""Times are measured on emulators. A function of 1,024 MB has 0.58 of a core, and AWS's own parts
are a network away: it is billed as if all took twice as long."""
CLOUD_ANSWERS_IN_S = Decimal("0.15")
"""How long AWS is taken to think about the list of a region's machines."""
COLD_STARTS_A_DAY, COLD_START_S = 12, 3
"""A function that is called each minute is kept; AWS replaces it now and then."""
MONTH_S, HOUR_S = 30 * 24 * 3600, 3600
JOB = ("submit", "claim", "start", "lines of a log", "finish")
"""The requests of a job whose command writes once and that has no files."""

Figure = Mapping[str, float]


def permission_tables() -> Mapping[str, str]:
    """The generated parts of the page on permissions, by name."""
    return {role: "\n".join(_rights(role)) for role in TRUST}


def cost_tables() -> Mapping[str, str]:
    """The generated parts of the page on costs, by name."""
    return {
        "idle-costs": "\n".join(_idle_table()),
        "job-costs": "\n".join(_job_table()),
        "machine-costs": "\n".join(_machine_table()),
        "figures": "\n".join(_figure_table()),
    }


PAGES = {PERMISSIONS: permission_tables, COST: cost_tables}


# --------------------------------------------------------------------------------- permissions


def _rights(role: str) -> Iterator[str]:
    yield f"Role `{role_id(role)}`, taken up by `{TRUST[role]}`."
    yield ""
    yield "| action | resource | only where | why |"
    yield "| --- | --- | --- | --- |"
    for each in of(role):
        resources = "<br>".join(f"`{_shown(one, role)}`" for one in each.resources)
        why = each.why + (f" ({each.by})" if each.by else "")
        wide = f"; {each.wide}" if each.wide else ""
        actions = "<br>".join(f"`{one}`" for one in each.actions)
        yield f"| {actions} | {resources} | {_conditions(each)} | {why}{wide} |"


def _shown(resource: str, role: str) -> str:
    return resource.replace("{role}", role)


def _conditions(permission: Permission) -> str:
    return "<br>".join(
        f"`{key}` is {' or '.join(f'`{one}`' for one in _several(value))}"
        for tests in permission.condition.values()
        for key, value in tests.items()
    )


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


# --------------------------------------------------------------------------------------- costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What `serverless.yml` says of what costs money."""

    memory_gb: Decimal
    architecture: str
    traced: bool
    looks_a_month: int
    prices_a_month: int


@cache
def deployment() -> Deployment:
    """As it is deployed when nothing else is said."""
    told: Any = YAML(typ="safe", pure=True).load((ROOT / "serverless.yml").read_text("utf-8"))
    defaults, custom = told["params"]["default"], told["custom"]
    architecture = re.sub(r".*'(\w+)'.*", r"\1", defaults["architecture"])
    return Deployment(
        memory_gb=Decimal(told["provider"]["memorySize"]) / 1024,
        architecture=architecture,
        traced=defaults["tracing"] == "Active",
        looks_a_month=MONTH_S // _seconds(custom["tick"]),
        prices_a_month=MONTH_S // _seconds(custom["prices"]),
    )


def _seconds(rate: str) -> int:
    found = re.fullmatch(r"rate\((\d+) minutes?\)", rate)
    assert found, rate
    return int(found[1]) * 60


@cache
def alarms() -> Sequence[str]:
    """Those that are deployed when nothing else is said."""
    told: Any = YAML(typ="safe", pure=True).load(ALARMS.read_text("utf-8"))
    found = told["Resources"].items()
    return [name for name, each in found if each["Type"] == "AWS::CloudWatch::Alarm"]


@cache
def figures() -> Mapping[str, Figure]:
    """What each thing consumes."""
    found: Mapping[str, Figure] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def idle_usd() -> Mapping[str, Decimal]:
    """A month in which nothing is to be done, part by part."""
    stack = deployment()
    runs = {
        "look, nothing to do": stack.looks_a_month,
        "prices, nothing to do": stack.prices_a_month,
    }
    every = sum(runs.values())
    cold = 30 * COLD_STARTS_A_DAY * COLD_START_S * stack.memory_gb * _gb_second()
    return {
        "EventBridge: scheduled rules": every * usd.SCHEDULED_RULE,
        "Lambda: invocations": every * usd.INVOCATION,
        "Lambda: looks": runs["look, nothing to do"] * _time("look, nothing to do"),
        "Lambda: asking for prices": runs["prices, nothing to do"] * _time("prices, nothing to do"),
        "Lambda: cold starts": cold,
        "Lambda: waiting for the list of one region of AWS": cloud_wait_usd(),
        "DynamoDB: reads and writes": _sum(runs, _store),
        "S3: requests": _sum(runs, _objects),
        "CloudWatch: lines of logs": _sum(runs, _log),
        "X-Ray: traces": every * usd.TRACE * stack.traced,
    }


def cloud_wait_usd() -> Decimal:
    """A month of waiting for one region's list, as often as it is asked while nothing runs."""
    stack = deployment()
    lists = MONTH_S // IDLE_LOOK_S
    return lists * CLOUD_ANSWERS_IN_S * stack.memory_gb * _gb_second()


def request_usd(name: str) -> Decimal:
    """One request to the API."""
    return _edge(name) + _store(name) + _objects(name)


def idle_agent_usd_hour() -> Decimal:
    """What the agent of a machine that has been idle for an hour has sent in it."""
    return idle_polls() * request_usd("poll that brings nothing") + beats() * request_usd("beat")


def idle_polls() -> int:
    """In the first hour without a job."""
    # Here, since the module is a function's: it connects when it is imported.
    shortest, longest = poll_s()
    asked, idle_s = 0, 0.0
    while idle_s < HOUR_S:
        idle_s += max(shortest, min(idle_s / 4, longest))
        asked += 1
    return asked


def poll_s() -> tuple[float, float]:
    """The shortest and the longest pause between two questions."""
    text = (ROOT / "control_plane" / "serverless" / "api.py").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(POLL_S|POLL_LONGEST_S) = ([\d.]+)$", text, re.MULTILINE))
    return float(found["POLL_S"]), float(found["POLL_LONGEST_S"])


def beats() -> int:
    """In an hour."""
    return HOUR_S // (LEASE_S // 3)


@cache
def cheapest_gpu_usd_hour() -> Decimal:
    """Of the shipped catalogue."""
    offers = load_offers(("aws", "azure", "gcp"))
    return min(offer.price_usd_hour for offer in offers if offer.capacity.gpus)


def _gb_second() -> Decimal:
    return usd.GB_SECOND[deployment().architecture]


def _time(name: str) -> Decimal:
    seconds = Decimal(str(figures()[name]["ms"])) * SAFETY / 1000
    return seconds * deployment().memory_gb * _gb_second()


def _store(name: str) -> Decimal:
    each = figures()[name]
    return Decimal(str(each["reads"])) * usd.READ + Decimal(str(each["writes"])) * usd.WRITE


def _objects(name: str) -> Decimal:
    each = figures()[name]
    written, read = Decimal(each["objects_written"]), Decimal(each["objects_read"])
    return written * usd.OBJECT_WRITTEN + read * usd.OBJECT_READ


def _log(name: str) -> Decimal:
    each = figures()[name]
    events = Decimal(each["log_events"]) + usd.PLATFORM_LINES
    size = Decimal(each["log_bytes"]) + usd.PLATFORM_BYTES + events * usd.EVENT_OVERHEAD_BYTES
    return size / 10**9 * usd.LOG_GB


def _edge(name: str) -> Decimal:
    traced = usd.TRACE * deployment().traced
    return usd.API_REQUEST + usd.INVOCATION + _time(name) + _log(name) + traced


def _sum(runs: Mapping[str, int], price: Any) -> Decimal:
    return sum((times * price(name) for name, times in runs.items()), Decimal(0))


# -------------------------------------------------------------------------------------- tables


def _idle_table() -> Iterator[str]:
    parts = idle_usd()
    yield "| a month with nothing to do | USD |"
    yield "| --- | ---: |"
    for name, price in parts.items():
        yield f"| {name} | {price:.3f} |"
    yield f"| **together** | **{sum(parts.values()):.3f}** |"
    every = deployment().looks_a_month + deployment().prices_a_month
    beyond = {
        "for each further region of AWS that a document names": cloud_wait_usd(),
        f"its {len(alarms())} alarms (`alarms: none` leaves them out)": usd.ALARM_MONTH
        * len(alarms()),
        "for each figure that is sent all month": usd.METRIC_MONTH,
        "for a gigabyte in the table, with its backup": usd.STORED_GB_MONTH + usd.BACKUP_GB_MONTH,
        "with `tracing: Active`": every * usd.TRACE,
    }
    for name, price in beyond.items():
        yield f"| and {name} | {price:.3f} |"


def _job_table() -> Iterator[str]:
    yield "| a million jobs | USD |"
    yield "| --- | ---: |"
    for name, price in (
        ("at the edge: HTTP API, Lambda, logs", _edge),
        ("in the store: DynamoDB", _store),
        ("lines of their logs: S3", _objects),
    ):
        yield f"| {name} | {1_000_000 * sum(map(price, JOB)):.2f} |"
    yield f"| **together** | **{1_000_000 * sum(map(request_usd, JOB)):.2f}** |"


def _machine_table() -> Iterator[str]:
    shortest, _ = poll_s()
    polls = int(HOUR_S / shortest)
    busy = polls * request_usd("poll that brings nothing") + beats() * request_usd("beat")
    idle, cheapest = idle_agent_usd_hour(), cheapest_gpu_usd_hour()
    yield "| an hour of a machine | requests | USD |"
    yield "| --- | ---: | ---: |"
    hours = (
        (f"that works and could take more, a question each {shortest:.0f} s", polls, busy),
        ("that is idle", idle_polls(), idle),
    )
    for what, asked, price in hours:
        requests = f"{asked} questions, {beats()} beats"
        yield f"| {what} | {requests} | {price:.6f} |"
    yield f"| the cheapest GPU hour of the catalogue | | {cheapest:.4f} |"
    yield f"| an idle agent is of that | | {idle / cheapest:.2%} |"


def _figure_table() -> Iterator[str]:
    yield "| | read units | write units | S3 written | S3 read | bytes of log | ms |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, each in figures().items():
        yield (
            f"| {name} | {each['reads']:g} | {each['writes']:g} | {each['objects_written']} | "
            f"{each['objects_read']} | {each['log_bytes']} | {each['ms']} |"
        )
