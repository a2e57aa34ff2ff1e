"""What is odd about a valid document is said before it is applied, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.config.findings import Finding, findings
from control_plane.config.load import load_file, load_text
from control_plane.core.model import Market, Offer
from providers.catalog.loader import load_offers
from tests.unit.config.documents import document, offer, policy

OFFERS = (
    offer("0.80"),
    offer("0.40", market=Market.SPOT),
    offer("0.70", region="us-west-2", gpu="T4", instance_type="g4dn.xlarge"),
    offer("20", gpus=8, gpu="H100", instance_type="p5"),
    offer("0.10", gpu="", gpus=0, instance_type="m7i.large"),
)


def only(pool: str = "", *, rest: str = "", offers: tuple[Offer, ...] = OFFERS) -> Finding:
    """The one finding of a document."""
    (found,) = findings(policy(pool, rest=rest), offers)
    return found


def test_a_sound_document_has_no_findings() -> None:
    """No noise where nothing is odd."""
    assert findings(policy(), OFFERS) == ()


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (
            "    max_price: 0.10 USD/hour\n",
            "without `max_price: 0.10 USD/hour` 2 offers fit, the cheapest is g6.xlarge (1 x L4) "
            "spot in aws us-east-1 at 0.40 USD/hour",
        ),
        ("    cpu: 64..\n", "without `cpu: 64..` 2 offers fit"),
        ("    memory: 64GB..\n", "without `memory: 64GB..` 2 offers fit"),
        ("    gpu: L4:8\n", "without the count and memory of `gpu: L4:8` 2 offers fit"),
        ("    gpu: T4:1\n", "without the limit to us-east-1 1 offer fits"),
        (
            "    market: spot\n    gpu: H100:8\n",
            "without `market: spot` 1 offer fits, the cheapest is p5 (8 x H100) on-demand",
        ),
        ("    gpu: H1000:1\n", "its clouds sell no GPU `H1000`; did you mean `H100`?"),
        ("    gpu: MX:1\n", "its clouds sell no GPU `MX`; they sell H100, L4, T4"),
        (
            "    cpu: 64..\n    max_price: 0.10 USD\n",
            "more than one of its limits would have to be wider",
        ),
    ],
)
def test_a_dead_pool_says_what_would_bring_it_to_life(pool: str, reason: str) -> None:
    """The nearest misses: one limit lifted at a time, and what that would buy."""
    text = document(pool)
    if "    gpu:" in pool:
        text = text.replace("    gpu: L4:1\n", "", 1)
    (found,) = findings(load_text(text), OFFERS)
    assert (found.severity, found.code, found.path) == ("error", "pool-dead", "pools.l4")
    assert found.sentence.startswith("pool `l4` can buy nothing: no offer fits it; ")
    assert reason in found.sentence


def test_a_pool_in_a_cloud_without_prices_is_not_judged() -> None:
    """Own boxes and local processes have no price list; silence about them is right."""
    rest = "  b: {gpu: L4:1, clouds: {local: }}\n"
    assert [each.code for each in findings(policy(rest=rest), OFFERS)] == ["pool-unused"]


def test_one_useless_cloud_of_several_is_a_warning() -> None:
    """The pool lives, but not there."""
    listed = (*OFFERS, offer("1", provider="azure", region="eastus", gpu="T4"))
    text = "azure: {regions: [eastus], resource_group: r}"
    two = document().replace("[us-east-1]}}", f"[us-east-1]}}, {text}}}")
    (found,) = findings(load_text(two), listed)
    assert (found.severity, found.code) == ("warning", "cloud-dead")
    assert found.path == "pools.l4.clouds.azure"
    assert "they sell T4" in found.sentence


def test_a_pool_no_queue_uses_is_a_warning() -> None:
    """Allowed while somebody moves queues about, seldom meant."""
    found = only(rest="  spare: {clouds: {aws: {regions: [us-east-1]}}}\n")
    assert (found.severity, found.code, found.path) == ("warning", "pool-unused", "pools.spare")


def test_an_unknown_region_names_the_near_one() -> None:
    """A typo in a region leaves the pool dead; both are said."""
    found = findings(load_text(document().replace("us-east-1", "us-eats-1")), OFFERS)
    assert [each.code for each in found] == ["region-unknown", "pool-dead"]
    assert found[0].path == "pools.l4.clouds.aws"
    assert "did you mean `us-east-1`?" in found[0].sentence


def test_a_budget_below_one_machine_is_an_error() -> None:
    """The cap would hold for ever, and nobody would see why nothing starts."""
    found = only(rest="budget: {hour: 0.30 USD}\n")
    assert (found.severity, found.code) == ("error", "budget-below-machine")
    assert "spot in aws us-east-1 at 0.40 USD/hour" in found.sentence
    assert "`budget.hour` is 0.30 USD" in found.sentence
    assert findings(policy(rest="budget: {hour: 0.40 USD}\n"), OFFERS) == ()


def test_a_gpu_limit_below_one_machine_is_an_error() -> None:
    """The same for the limit on GPUs."""
    found = only("    gpus_max: 0\n")
    assert (found.severity, found.code) == ("error", "gpus-max-below-machine")


def windows(warm: str, closed: str) -> str:
    return f"    warm: [{{{warm}, machines: 1}}]\n    closed: [{{{closed}}}]\n"


def test_warm_and_closed_at_once_is_a_warning() -> None:
    """Weekday mornings against Friday evenings: 08:00 for 10 h ends at 18:00, closed from 17:00."""
    found = only(windows('cron: "0 8 * * MON-FRI", for: 10h', 'cron: "0 17 * * FRI", for: 2h'))
    assert (found.severity, found.code) == ("warning", "warm-while-closed")
    assert "on Friday at 17:00 (UTC)" in found.sentence


def test_windows_that_touch_do_not_overlap() -> None:
    """08:00 for 10 h ends exactly when closed begins; another time zone is not compared."""
    touching = windows('cron: "0 8 * * MON-FRI", for: 10h', 'cron: "0 18 * * FRI", for: 62h')
    assert findings(policy(touching), OFFERS) == ()
    apart = windows(
        'cron: "0 8 * * *", for: 10h', 'cron: "0 17 * * *", for: 2h, timezone: Europe/Berlin'
    )
    assert findings(policy(apart), OFFERS) == ()


def test_the_research_example_against_the_shipped_catalogue() -> None:
    """Azure sells no L4: worth knowing, and the only thing to say about the example."""
    loaded = load_file(Path(__file__).parents[3] / "examples" / "research.yaml")
    assert [(each.code, each.path) for each in findings(loaded, load_offers())] == [
        ("cloud-dead", "pools.l4.clouds.azure")
    ]
