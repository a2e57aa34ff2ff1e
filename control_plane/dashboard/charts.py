"""Charts as pure functions: numbers in, SVG out.

Colours come by CSS class only (the pages forbid inline styles), so one drawing serves both themes.
Each chart says its finding in words for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

POINTS_MAX = 400
"""More marks than pixels show nothing; longer series are reduced to this many."""

_CEILINGS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
# Labels must be round as well as their top: 1.5 in four steps would give 0.375.
_STEPS = {1.0: 4, 1.5: 3, 2.0: 4, 2.5: 5, 3.0: 3, 4.0: 4, 5.0: 5, 6.0: 3, 8.0: 4, 10.0: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One named row of values and the colour class it is drawn in."""

    name: str
    css: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Stacked columns over time, with a line to compare them against."""

    title: str
    finding: str
    labels: Sequence[str]
    series: Sequence[Series]
    ghost: Sequence[float] = ()
    ghost_name: str = ""
    width: int = 760
    height: int = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """What was spent so far, where it leads, and what it may reach."""

    title: str
    finding: str
    spent: Sequence[tuple[float, float]]
    """Days since the start and the running total then; the last one is now."""
    days: int
    projected: float
    budget: float
    width: int = 460
    height: int = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of a timeline, in fractions of the whole."""

    start: float
    end: float
    css: str
    tip: str
    lane: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What something did with its time."""

    title: str
    finding: str
    spans: Sequence[Span]
    marks: Sequence[tuple[float, str]] = field(default_factory=tuple)
    lanes: int = 1
    width: int = 1240


def scale(highest: float) -> tuple[float, int]:
    """A round axis top at or above `highest`, and into how many round steps it divides."""
    if highest <= 0:
        return 1.0, 4
    power = 10.0 ** math.floor(math.log10(highest))
    factor = next(each for each in _CEILINGS if each * power >= highest * (1 - 1e-12))
    return factor * power, _STEPS[factor]


def dollars(value: float, top: float) -> str:
    """An axis label, as fine as the axis needs."""
    return f"${value:,.0f}" if top >= 5 or value == 0 else f"${value:,.2f}"


def bars(chart: Bars) -> Markup:
    """Stacked columns; each carries its figures as text in `data-tip`."""
    count = len(chart.labels)
    if not count:
        return Markup("")
    totals = [sum(each.values[i] for each in chart.series) for i in range(count)]
    top, steps = scale(max([*totals, *chart.ghost, 0.0]))
    plot = _Plot(chart.width, chart.height, top, count)
    body = [_grid(plot, steps)]
    body += [_column(chart, plot, i) for i in range(count)]
    if chart.ghost:
        points = " ".join(f"{plot.middle(i)},{plot.y(v)}" for i, v in enumerate(chart.ghost))
        body.append(Markup('<polyline class="ghost" points="{}"/>').format(points))
    body.append(_days(plot, chart.labels))
    css = "chart broad" if chart.width > 1000 else "chart"
    return _svg(chart.width, chart.height, chart.title, chart.finding, body, css)


def burn_down(chart: Burn) -> Markup:
    """Spent as an area, its projection dashed, the budget as a line across."""
    highest = max([*(usd for _, usd in chart.spent), chart.projected, chart.budget])
    top, steps = scale(highest * 1.02)
    plot = _Plot(chart.width, chart.height, top, chart.days)
    walk = ((0.0, 0.0), *chart.spent)
    points = [f"{plot.x(day, chart.days)},{plot.y(usd)}" for day, usd in walk]
    last = points[-1]
    floor = plot.y(0)
    body = [
        _grid(plot, steps),
        Markup('<polygon class="area" points="{},{} {} {},{}"/>').format(
            plot.left, floor, " ".join(points), last.split(",")[0], floor
        ),
        Markup('<polyline class="line" points="{}"/>').format(" ".join(points)),
        Markup('<polyline class="ahead" points="{} {},{}"/>').format(
            last, plot.x(chart.days, chart.days), plot.y(chart.projected)
        ),
    ]
    if chart.budget:
        body.append(_limit(plot, chart.budget))
    body += [
        _text(plot.x(day - 0.5, chart.days), chart.height - 4, str(day), "mid")
        for day in (1, 10, 20, chart.days)
    ]
    return _svg(chart.width, chart.height, chart.title, chart.finding, body, css="chart burn")


def sparkline(values: Sequence[float | None], *, title: str) -> Markup:
    """A small line without axes; where nothing was measured it goes straight on."""
    values = _reduced(values)
    present = [(i, value) for i, value in enumerate(values) if value is not None]
    if not present:
        return Markup('<svg class="spark" viewBox="0 0 110 24" aria-hidden="true"></svg>')
    top = max(max(value for _, value in present), 1e-9)
    step = 106 / max(1, len(values) - 1)
    points = [(round(2 + i * step, 1), round(21 - v / top * 18, 1)) for i, v in present]
    line = Markup('<polyline class="line" points="{}"/>').format(
        " ".join(f"{x},{y}" for x, y in points)
    )
    # A line of one point is invisible; the last value is worth a dot anyway.
    end = Markup('<circle class="dot" cx="{}" cy="{}" r="1.8"/>').format(*points[-1])
    return Markup(
        '<svg class="spark" viewBox="0 0 110 24" role="img"><title>{}</title>{}{}</svg>'
    ).format(title, line, end)


def meter(fraction: float, *, title: str, css: str = "") -> Markup:
    """A filled bar from 0 to 1; above that it stays full."""
    filled = max(0.0, min(1.0, fraction))
    return Markup(
        '<svg class="meter" viewBox="0 0 80 8" role="img"><title>{}</title>'
        '<rect class="rail" x=".5" y=".5" width="79" height="7" rx="3.5"/>'
        '<rect class="fill {}" y="0" width="{:.1f}" height="8" rx="4"/></svg>'
    ).format(title, css, filled * 80)


def timeline(chart: Timeline) -> Markup:
    """Coloured stretches on one or more lanes, with named moments under them."""
    lane = 22
    height = chart.lanes * lane + 26
    body = [
        Markup(
            '<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}" data-tip="{}"/>'
        ).format(
            each.css,
            each.start * chart.width,
            each.lane * lane,
            max(1.0, (each.end - each.start) * chart.width),
            lane - 3,
            each.tip,
        )
        for each in chart.spans
    ]
    taken = -math.inf
    for at, label in chart.marks:
        x = at * chart.width
        body.append(
            Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>').format(
                x, height - 20
            )
        )
        # Two names on one spot would hide each other: the list under the chart has them all.
        if x - taken > 74:
            end = "end" if at > 0.94 else "" if at < 0.03 else "mid"
            body.append(_text(round(x, 1), height - 6, label, end))
            taken = x
    return _svg(chart.width, height, chart.title, chart.finding, body, css="timeline")


# ------------------------------------------------------------------------------------ pieces


@dataclass(frozen=True, slots=True)
class _Plot:
    width: int
    height: int
    top: float
    count: int

    left = 52
    bottom = 22

    def y(self, value: float) -> float:
        room = self.height - self.bottom - 8
        return round(8 + room * (1 - value / self.top), 1)

    def x(self, i: float, of: float) -> float:
        return round(self.left + (self.width - self.left - 8) * i / of, 1)

    def middle(self, i: int) -> float:
        return self.x(i + 0.5, self.count)


def _grid(plot: _Plot, steps: int) -> Markup:
    lines = []
    for i in range(steps + 1):
        value = plot.top * i / steps
        y = plot.y(value)
        lines.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                plot.left, plot.width - 8, y, y
            )
        )
        lines.append(_text(plot.left - 6, y + 4, dollars(value, plot.top), "end"))
    return Markup("").join(lines)


def _column(chart: Bars, plot: _Plot, i: int) -> Markup:
    room = (plot.width - plot.left - 8) / plot.count
    width = round(max(1.0, min(room * 0.7, 34.0)), 1)
    x = round(plot.middle(i) - width / 2, 1)
    base, rects, lines = 0.0, [], [str(chart.labels[i])]
    for each in chart.series:
        value = each.values[i]
        if value <= 0:
            continue
        y, under = plot.y(base + value), plot.y(base)
        rects.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{:.1f}"/>').format(
                each.css, x, y, width, under - y
            )
        )
        lines.append(f"{each.name} {dollars(value, 1)}")
        base += value
    if chart.ghost:
        lines.append(f"{chart.ghost_name} {dollars(chart.ghost[i], 1)}")
    hit = Markup('<rect class="hit" x="{:.1f}" y="8" width="{:.1f}" height="{}"/>').format(
        plot.x(i, plot.count), room, plot.height - plot.bottom - 8
    )
    return Markup('<g data-tip="{}">{}{}</g>').format("\n".join(lines), hit, Markup("").join(rects))


def _days(plot: _Plot, labels: Sequence[str]) -> Markup:
    every = max(1, math.ceil(len(labels) / 7))
    return Markup("").join(
        _text(plot.middle(i), plot.height - 4, label, "mid")
        for i, label in enumerate(labels)
        # Counted from the end: the latest one is what people look for.
        if (len(labels) - 1 - i) % every == 0
    )


def _limit(plot: _Plot, budget: float) -> Markup:
    y = plot.y(budget)
    line = Markup('<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        plot.left, plot.width - 8, y, y
    )
    return line + _text(plot.left + 4, y - 5, f"budget {dollars(budget, budget)}", "limit-text")


def _text(x: float, y: float, text: str, css: str) -> Markup:
    return Markup('<text x="{}" y="{}" class="{}">{}</text>').format(x, y, css, text)


def _reduced(values: Sequence[float | None]) -> Sequence[float | None]:
    if len(values) <= POINTS_MAX:
        return values
    width = math.ceil(len(values) / POINTS_MAX)
    groups = (values[i : i + width] for i in range(0, len(values), width))
    return [max((v for v in group if v is not None), default=None) for group in groups]


def _svg(
    width: int, height: int, title: str, finding: str, body: Iterable[Markup], css: str = "chart"
) -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"><desc>{}</desc>{}</svg>'
    ).format(css, width, height, f"{title}. {finding}", finding, Markup("").join(body))
