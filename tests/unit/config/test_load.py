"""A document becomes the policy it says, defaults included; all else is a `ConfigError`."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control_plane.config.errors import ConfigError
from control_plane.config.load import load_file, load_text
from control_plane.config.template import template
from control_plane.core.codec import from_json, to_json
from control_plane.core.policy import (
    Alert,
    AtLimit,
    Autoscaler,
    Budget,
    CloudPolicy,
    GpuRange,
    MarketPolicy,
    PoolPolicy,
    QueuePolicy,
    Range,
    Window,
)
from control_plane.errors import InvalidInput
from tests.unit.config.documents import HEAD, document, policy

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
RESEARCH = next(path for path in EXAMPLES if path.stem == "research")


def problems(text: str) -> list[str]:
    """Paths of all problems of a text."""
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    return [problem.path for problem in caught.value.problems]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    """What we show people is valid, and survives the way through the store."""
    loaded = load_file(path)
    assert from_json(Autoscaler, to_json(loaded)) == loaded


def test_the_research_example_says_what_it_says() -> None:
    """Every kind of field, once, from text to value."""
    loaded = load_file(RESEARCH)
    assert loaded.queues["default"] == QueuePolicy(name="default", pools=("l4",), launch_after_s=90)
    assert loaded.queues["urgent"].pools == ("a100", "l4")
    assert loaded.queues["services"].jobs_per_machine == 8
    assert loaded.pools["l4"] == PoolPolicy(
        name="l4",
        gpu=GpuRange(name="L4"),
        cpus=Range(low=4),
        memory_mib=Range(low=16_384),
        disk_gib=100,
        clouds=(
            CloudPolicy(provider="aws", regions=("us-east-1", "us-west-2")),
            CloudPolicy(
                provider="gcp",
                regions=("us-central1", "europe-west4"),
                options={"project": "acme-ml"},
            ),
            CloudPolicy(
                provider="azure", regions=("eastus",), options={"resource_group": "orchctl"}
            ),
        ),
        market=MarketPolicy.SPOT_FIRST,
        max_price_usd_hour=Decimal("1.50"),
        machines=Range(low=0, high=12),
        idle_timeout_s=300,
        boot_timeout_s=600,
        max_lifetime_s=86_400,
        warm=(
            Window(
                cron="0 8 * * MON-FRI",
                duration_s=36_000,
                timezone="Europe/Berlin",
                machines=1,
            ),
        ),
        closed=(Window(cron="0 20 * * FRI", duration_s=216_000, timezone="Europe/Berlin"),),
    )
    assert loaded.pools["cpu"].gpu is None
    assert loaded.budget == Budget(
        hour_usd=Decimal(20), day_usd=Decimal(200), month_usd=Decimal(3000), at_limit=AtLimit.HOLD
    )
    assert loaded.alerts == (
        Alert(
            channel="slack",
            target="secret://slack-webhook",
            on=("budget", "no-capacity", "interruption-storm", "job-failed"),
        ),
    )


def test_what_is_not_written_has_the_defaults_of_the_core() -> None:
    """Defaults live in one place only."""
    text = f"{HEAD}queues: {{q: {{pools: [p]}}}}\npools: {{p: {{clouds: {{local: }}}}}}\n"
    loaded = load_text(text)
    assert loaded.queues["q"] == QueuePolicy(name="q", pools=("p",))
    assert loaded.pools["p"] == PoolPolicy(name="p", clouds=(CloudPolicy(provider="local"),))
    assert loaded.budget == Budget()
    assert loaded.alerts == ()


def test_one_bound_of_machines_leaves_the_other_at_its_default() -> None:
    """`min` alone keeps the usual maximum, `max` alone keeps no machine."""
    assert policy("    machines: {min: 2}\n").pools["l4"].machines == Range(low=2, high=4)
    assert policy("    machines: {max: 9}\n").pools["l4"].machines == Range(low=0, high=9)


def test_the_order_of_pools_is_kept_and_that_of_clouds_says_nothing() -> None:
    """Pools are shown as they were written; clouds compete by price, however they are listed."""
    text = document(rest="  b: {clouds: {simulated: {regions: [north]}, local: {}}}\n")
    loaded = load_text(text)
    assert list(loaded.pools) == ["l4", "b"]
    assert loaded == load_text(
        document(rest="  b: {clouds: {local: {}, simulated: {regions: [north]}}}\n")
    )


@pytest.mark.parametrize("word", ["no", "on", "off", "yes", "y", "n"])
def test_yaml_1_2_words_stay_text(word: str) -> None:
    """The words that YAML 1.1 takes for booleans are ordinary names."""
    loaded = load_text(document().replace("research", word))
    assert loaded.name == word


def test_an_alias_repeats_a_value() -> None:
    """Anchors are the way not to repeat oneself."""
    other = "  b: {clouds: {local: }, machines: *few}\n"
    text = document("    machines: &few {max: 2}\n", rest=other)
    loaded = load_text(text)
    assert loaded.pools["b"].machines == loaded.pools["l4"].machines == Range(low=0, high=2)


def test_all_problems_come_at_once_in_the_order_of_the_text() -> None:
    """A wrong field, a wrong word, a dangling name and a wrong bound need one run to be seen."""
    text = document(
        "    markt: spot\n    machines: {min: 9, max: 2}\n",
        queue=", launch_after: soon",
        rest="budget: {hour: 20}\n",
    ).replace("pools: [l4]", "pools: [l5]")
    assert problems(text) == [
        "queues.default.pools[0]",
        "queues.default.launch_after",
        "pools.l4.markt",
        "pools.l4.machines.min",
        "budget.hour",
    ]


def test_the_error_is_invalid_input_with_places() -> None:
    """Callers that know nothing of configuration still get one sentence and the next step."""
    with pytest.raises(InvalidInput) as caught:
        load_text(document("    markt: spot\n"), name="mine.yaml")
    error = caught.value
    assert error.code == "config-error"
    assert error.message == "mine.yaml:10:5 pools.l4.markt: unknown field `markt`"
    assert error.fix == "did you mean `market`?"
    assert isinstance(error, ConfigError)
    assert (error.problems[0].line, error.problems[0].col) == (10, 5)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    """A missing file and a folder are said so in words."""
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_file(tmp_path / "none.yaml")
    assert "orchctl autoscaler init" in caught.value.render()
    with pytest.raises(ConfigError, match="directory"):
        load_file(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file("a\0b")


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    """Some editors write one; it is not the person's fault."""
    path = tmp_path / "config.yaml"
    path.write_text(document(), encoding="utf-8-sig")
    assert load_file(path) == load_text(document())


def test_windows_line_ends_are_no_error() -> None:
    """Neither are these."""
    assert load_text(document().replace("\n", "\r\n")) == load_text(document())


def test_more_than_a_megabyte_is_refused_unread() -> None:
    """The limit counts bytes, not letters."""
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        load_text("#" + "é" * 500_000)


def test_deep_brackets_are_refused() -> None:
    """Brackets that would exhaust the parser's stack are an error like any other."""
    with pytest.raises(ConfigError, match="nested more than 20 levels"):
        load_text("[" * 400)


def test_a_long_list_is_given_up_early() -> None:
    """A hostile text is refused after the first 10,000 values, not after all of them."""
    with pytest.raises(ConfigError, match="more than 10000 values"):
        load_text("- a\n" * 20_000)


def test_a_number_too_large_to_read_is_refused() -> None:
    """Python refuses to turn very long digits into a number; a person sees a sentence."""
    assert problems(document(f"    gpus_max: {'9' * 5000}\n")) == ["pools.l4.gpus_max"]


TEXTS = [path.read_text(encoding="utf-8") for path in EXAMPLES] + [document(), template()]
PIECES = st.sampled_from(
    # Signs that mean something in YAML, values of every type, and what breaks its parser.
    [
        *"-:{}[]*&!|>?#@%'\"=,\t\n\r\0\x85\ud800é",
        *("  ", "- ", ": ", "*a", "&a ", "!!x ", "%YAML 1.1\n", "---\n", "...", "<<: ", "? "),
        *("null", "~", "true", "1e9", "0x", "-1", ".inf", "2001-01-01", "${X}", '"\\UFFFFFFFF"'),
    ]
)


@settings(max_examples=150, deadline=timedelta(seconds=5))
@given(st.sampled_from(TEXTS), st.data())
def test_a_damaged_document_loads_or_is_a_config_error(text: str, data: st.DataObject) -> None:
    """Up to three cuts and insertions at any place: never a traceback, always a rendered text."""
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 12))
        text = text[:start] + data.draw(PIECES) + text[end:]
    load_or_config_error(text)


@settings(max_examples=150, deadline=timedelta(seconds=5))
@given(st.text() | st.lists(PIECES, max_size=12).map("".join))
@example('a: "\\UFFFFFFFF"')
@example("%YAML 1.1\n---\na: 1:30:00\n")
@example("&a [*a]")
@example("!!x \n  :")
@example("*'")
def test_any_text_is_a_config_error(text: str) -> None:
    """The parser's own slips are caught too."""
    load_or_config_error(text)


def load_or_config_error(text: str) -> None:
    with suppress(ConfigError):
        assert load_text(text).pools
        return
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    assert caught.value.render()
    assert all(problem.what for problem in caught.value.problems)


def test_the_template_loads_under_the_name_asked_for() -> None:
    """`init` writes a document that works as it is."""
    loaded = load_text(template("vision"))
    assert loaded.name == "vision"
    assert loaded.queues["default"].pools == ("local",)


def test_the_template_loads_with_everything_switched_on() -> None:
    """The commented lines are right, too: taking the `# ` away leaves a valid document."""
    lines = template().splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("queues:"))
    switched = [
        line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line
        for line in lines[begin:]
    ]
    loaded = load_text("\n".join([HEAD, *switched]))
    assert loaded.pools["l4"].warm
    assert loaded.queues["default"].jobs_per_machine == 8
    assert loaded.alerts


def test_nothing_here_imports_the_web_framework() -> None:
    """`validate` runs on a laptop and has to start fast."""
    code = (
        "import sys; import control_plane.config.load, control_plane.config.diff; "
        "import control_plane.config.findings, control_plane.config.json_schema; "
        "sys.exit(any(name in sys.modules for name in ('fastapi', 'starlette', 'boto3')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
