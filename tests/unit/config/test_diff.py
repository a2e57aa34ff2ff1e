"""Changes between two documents in people's words, and the worst case they can cost."""

from __future__ import annotations

from decimal import Decimal

import pytest

from control_plane.config.diff import (
    Change,
    changes,
    describe,
    describe_worst_case,
    price_text,
    worst_case_usd_hour,
)
from control_plane.config.load import load_text
from control_plane.core.model import Market
from control_plane.core.policy import Autoscaler
from tests.unit.config.documents import document, offer, policy

BOTH = (
    offer("0.80"),
    offer("0.40", market=Market.SPOT),
    offer("0.21", provider="azure", region="eastus", market=Market.SPOT),
    offer("0.70", provider="azure", region="eastus"),
)


def test_the_same_document_changes_nothing() -> None:
    """Another way to write the same value is no change."""
    assert changes(policy("    max_lifetime: 24h\n"), policy("    max_lifetime: 1d\n")) == ()


def test_a_changed_value_shows_both_sides_in_its_unit() -> None:
    """Durations, money, sizes and ranges are written as in the document."""
    found = changes(
        policy("    idle_timeout: 5m\n    cpu: 4..\n    disk: 100GB\n"),
        policy("    idle_timeout: 90s\n    cpu: 2..8\n    disk: 1TB\n    max_price: 1.5 USD\n"),
    )
    assert found == (
        Change(path="pools.l4.cpu", kind="~", old="4..", new="2..8"),
        Change(path="pools.l4.disk", kind="~", old="100GB", new="1TB"),
        Change(path="pools.l4.max_price", kind="+", old="", new="1.50 USD/hour"),
        Change(path="pools.l4.idle_timeout", kind="~", old="5m", new="90s"),
    )


def test_a_default_is_compared_like_a_written_value() -> None:
    """Deleting a line brings the default back, and the change says which."""
    (found,) = changes(policy("    machines: {max: 8}\n"), policy())
    assert found == Change(path="pools.l4.machines.max", kind="~", old="8", new="4")


def test_a_removed_value_shows_what_it_was() -> None:
    """A minus line still says what is lost."""
    (found,) = changes(policy("    max_price: 1 USD\n"), policy())
    assert found == Change(path="pools.l4.max_price", kind="-", old="1 USD/hour", new="")


def test_every_field_of_the_document_shows_up() -> None:
    """No field can change without a line."""
    lines = {
        "    gpu: L4:2\n": "gpu",
        "    memory: 8GB..\n": "memory",
        "    market: spot\n": "market",
        "    machines: {min: 1}\n": "machines.min",
        "    gpus_max: 8\n": "gpus_max",
        "    boot_timeout: 1h\n": "boot_timeout",
        "    max_lifetime: 2d\n": "max_lifetime",
        '    warm: [{cron: "0 8 * * *", for: 1h, machines: 1}]\n': "warm[0]",
        '    closed: [{cron: "0 8 * * *", for: 1h}]\n': "closed[0]",
    }
    for line, field in lines.items():
        new = policy_with_gpu(line) if "gpu:" in line else policy(line)
        assert [each.path for each in changes(policy(), new)] == [f"pools.l4.{field}"]


def policy_with_gpu(line: str) -> Autoscaler:
    """The usual document with another GPU line."""
    return load_text(document().replace("    gpu: L4:1\n", line))


def test_queue_budget_and_alert_changes_show_up() -> None:
    """The rest of the document, too."""
    found = changes(
        policy(),
        policy(
            queue=", priority: 5, launch_after: 90s, jobs_per_machine: 2, ageing: 2h",
            rest="budget: {day: 9.50 USD, at_limit: drain}\n"
            "alerts: [{webhook: secret://w, on: [budget]}]\n",
        ),
    )
    assert describe(found) == (
        "~ queues.default.priority          0 -> 5",
        "~ queues.default.launch_after      0s -> 90s",
        "+ queues.default.jobs_per_machine  2",
        "~ queues.default.ageing            1h -> 2h",
        "~ budget.day                       200 USD -> 9.50 USD",
        "~ budget.at_limit                  hold -> drain",
        "+ alerts[0]                        webhook secret://w, on budget",
    )


def test_the_lines_are_those_of_the_transcript() -> None:
    """A raised maximum and a new cloud with what it sells, in columns."""
    azure = "{regions: [us-east-1]}, azure: {regions: [eastus], resource_group: r}}"
    base = document("    machines: {max: 8}\n")
    new = document("    machines: {max: 12}\n").replace("{regions: [us-east-1]}}", azure)
    assert describe(changes(load_text(base), load_text(new), BOTH)) == (
        "+ pools.l4.clouds.azure  eastus, resource_group r (2 offers, cheapest spot 0.21 USD/hour)",
        "~ pools.l4.machines.max  8 -> 12",
    )


def test_a_cloud_that_sells_nothing_fitting_says_so() -> None:
    """Known before it is applied; a cloud without a price list says nothing."""
    other = "  b: {gpu: L4:1, clouds: {aws: {regions: [eu-north-1]}}}\n"
    base, new = policy(rest=other), policy(rest=other.replace("eu-north-1", "eu-west-1"))
    assert changes(base, new, BOTH)[0].new == "eu-west-1 (no offer fits)"
    assert changes(base, new)[0].new == "eu-west-1"


def test_a_new_document_is_summed_up_by_its_parts() -> None:
    """One line for each queue and pool, not one for each default."""
    assert describe(changes(None, policy("    max_price: 1 USD\n"))) == (
        "+ queues.default  pools l4",
        "+ pools.l4        L4:1 in aws; spot-first; up to 4 machines of up to 1 USD/hour",
        "+ budget          hour 20 USD, day 200 USD, month 3000 USD, at_limit hold",
    )


def test_a_pool_that_is_gone_is_one_line() -> None:
    """Taken out as a whole, after what is new."""
    more = policy(rest="  b: {clouds: {local: }, machines: {max: 1}}\n")
    assert describe(changes(more, policy())) == (
        "- pools.b  no GPU in local; spot-first; up to 1 machine",
    )


# ------------------------------------------------------------------------------ worst case


@pytest.mark.parametrize(
    ("pool", "usd"),
    [
        ("    machines: {max: 12}\n", "9.60"),  # 12 x 0.80, the dearer of the two markets
        ("    machines: {max: 12}\n    market: spot\n", "4.80"),  # 12 x 0.40
        ("    machines: {max: 12}\n    max_price: 0.50 USD/hour\n", "4.80"),  # only spot is below
        ("    machines: {max: 12}\n    gpus_max: 3\n", "2.40"),  # 3 GPUs x 0.80 a GPU
        ("    max_price: 0.10 USD/hour\n", "0"),  # nothing can be bought
        ("    machines: {max: 0}\n", "0.00"),  # nothing may be bought
    ],
)
def test_the_worst_case_of_a_pool(pool: str, usd: str) -> None:
    """Most machines at the dearest price that is accepted, limited by the GPUs."""
    assert worst_case_usd_hour(policy(pool), BOTH) == Decimal(usd)


def test_the_gpu_limit_counts_cards_not_machines() -> None:
    """16 cards are two machines of 8: 2 x 10, not 4 x 10. One with 32 is never bought."""
    listed = (
        offer("10", gpus=8, instance_type="eight"),
        offer("90", gpus=32, instance_type="huge"),
    )
    many = policy_with_gpu("    gpu: L4:1..\n    gpus_max: 16\n")
    assert worst_case_usd_hour(many, listed) == Decimal(20)


def test_the_worst_case_adds_up_over_pools() -> None:
    """A pool without GPUs counts machines alone."""
    both = policy(rest="  cpu: {clouds: {aws: {regions: [us-east-1]}}, machines: {max: 3}}\n")
    listed = (*BOTH, offer("0.10", gpu="", gpus=0))
    assert worst_case_usd_hour(both, listed) == Decimal("3.50")  # 4 x 0.80 + 3 x 0.10


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("9.66", "14.49", "9.66 -> 14.49 USD/hour (+4.83), within budget 20 USD/hour"),
        ("14.49", "9.66", "14.49 -> 9.66 USD/hour (-4.83), within budget 20 USD/hour"),
        ("9.66", "9.66", "9.66 USD/hour, within budget 20 USD/hour"),  # no step, no arrow
        (None, "9.66", "9.66 USD/hour, within budget 20 USD/hour"),  # nothing before
        (None, "20.01", "20.01 USD/hour, capped by budget 20 USD/hour"),  # a cent above
        (None, "20", "20.00 USD/hour, within budget 20 USD/hour"),  # exactly the budget
    ],
)
def test_the_worst_case_line(old: str | None, new: str, line: str) -> None:
    """What it may cost, what that changes, and whether the budget holds it."""
    before = None if old is None else Decimal(old)
    assert describe_worst_case(before, Decimal(new), Decimal(20)) == f"worst case {line}"


@pytest.mark.parametrize(
    ("usd", "text"),
    [("0.3149", "0.31"), ("0.005", "0.0050"), ("0", "0.00"), ("1E+1", "10.00"), ("0.125", "0.13")],
)
def test_prices_are_rounded_for_people(usd: str, text: str) -> None:
    """Two decimals; four below a cent, so a cheap machine never looks free."""
    assert price_text(Decimal(usd)) == text
