"""Charts draw what they are given, say it in words, and let nothing of it become markup."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.dashboard.charts import (
    Bars,
    Burn,
    Series,
    Span,
    Timeline,
    bars,
    burn_down,
    meter,
    scale,
    sparkline,
    timeline,
)

EVIL = '<script>alert("x")</script>'


def rects(svg: str, css: str) -> list[dict[str, str]]:
    return [
        dict(each.attrib) for each in ET.fromstring(svg).iter("rect") if each.get("class") == css
    ]


def stacked(**more: object) -> Bars:
    series = (
        Series(name="aws", css="s0", values=[1.0, 3.0]),
        Series(name="gcp", css="s1", values=[1.0, 0.0]),
    )
    return Bars(
        title="Spend",
        finding="mostly aws",
        labels=["11-01", "11-02"],
        series=series,
        **more,  # type: ignore[arg-type]
    )


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_an_axis_reaches_above_its_data_in_round_steps(highest: float) -> None:
    top, count = scale(highest)
    assert highest <= top * (1 + 1e-9) <= highest * 10
    step = f"{top / count:.3e}"
    assert re.fullmatch(r"(1|1\.5|2|2\.5|5)\d*?(\.?0*)e.*", step.replace("0e", "e")), step


def test_an_empty_axis_is_an_axis_still() -> None:
    assert scale(0) == (1.0, 4)


def test_columns_are_as_high_as_their_values_and_stand_on_each_other() -> None:
    svg = bars(stacked())
    aws, gcp = rects(svg, "s0"), rects(svg, "s1")
    first, second = (float(each["height"]) for each in aws)
    assert second == pytest.approx(3 * first, abs=0.3)
    assert len(gcp) == 1, "a day without cost draws nothing"
    assert float(gcp[0]["y"]) + float(gcp[0]["height"]) == pytest.approx(
        float(aws[0]["y"]), abs=0.2
    )


def test_each_column_tells_its_figures_and_the_chart_its_finding() -> None:
    root = ET.fromstring(bars(stacked(ghost=(4.0, 9.0), ghost_name="on demand")))
    tips = [each.get("data-tip") for each in root.iter("g")]
    assert tips == [
        "11-01 aws $1.00 gcp $1.00 on demand $4.00",
        "11-02 aws $3.00 on demand $9.00",
    ]
    assert root.get("role") == "img"
    assert "mostly aws" in str(root.get("aria-label"))


def test_a_chart_of_nothing_is_nothing() -> None:
    assert bars(Bars(title="", finding="", labels=[], series=[])) == ""
    assert "polyline" not in sparkline([None, None], title="waits")


def test_a_budget_is_drawn_where_it_is_and_left_out_where_there_is_none() -> None:
    chart = Burn(
        title="Budget",
        finding="f",
        spent=[(1, 10.0), (1.5, 12.0)],
        days=30,
        projected=200,
        budget=100,
    )
    assert "budget $100" in burn_down(chart)
    unlimited = Burn(
        title="Budget", finding="f", spent=[(1, 10.0)], days=30, projected=200, budget=0
    )
    assert "limit" not in burn_down(unlimited)


def test_a_line_of_many_points_is_reduced_and_keeps_its_peak() -> None:
    values = [1.0] * 5000
    values[1234] = 9.0
    points = ET.fromstring(sparkline(values, title="t")).find("polyline")
    assert points is not None
    drawn = str(points.get("points")).split()
    assert len(drawn) <= 400
    assert min(float(p.split(",")[1]) for p in drawn) == 3.0


@given(st.floats(min_value=-2, max_value=5))
def test_a_meter_stays_within_its_rail(fraction: float) -> None:
    (fill,) = rects(meter(fraction, title="t", css="good"), "fill good")
    assert 0 <= float(fill["width"]) <= 80


def test_a_timeline_places_spans_by_fraction_and_lane() -> None:
    svg = timeline(
        Timeline(
            title="m",
            finding="f",
            spans=[Span(start=0.5, end=1.0, css="s1", tip="work", lane=1)],
            marks=[(0.0, "planned"), (0.001, "launched"), (1.0, "gone")],
            lanes=2,
        )
    )
    (span,) = rects(svg, "s1")
    assert (span["x"], span["width"], span["y"]) == ("620.0", "620.0", "22")
    assert "planned" in svg
    assert "launched" not in svg, "a name on top of another is not drawn"


def test_text_never_becomes_markup() -> None:
    drawings = (
        bars(
            Bars(
                title=EVIL,
                finding=EVIL,
                labels=[EVIL],
                series=[Series(name=EVIL, css="s0", values=[1])],
            )
        ),
        sparkline([1.0], title=EVIL),
        meter(0.5, title=EVIL),
        timeline(
            Timeline(
                title=EVIL,
                finding=EVIL,
                spans=[Span(start=0, end=1, css="s0", tip=EVIL)],
                marks=[(0, EVIL)],
            )
        ),
    )
    for each in drawings:
        assert "<script" not in each
        assert "&lt;script" in each
