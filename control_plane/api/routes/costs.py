"""What was spent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from control_plane.api.fields import DURATION_MAX_S
from control_plane.api.parameters import Deps
from control_plane.api.views import send
from control_plane.config.units import UnitError, parse_duration_s
from control_plane.errors import InvalidInput
from control_plane.reports.costs import CostReport, cost_report

router = APIRouter(prefix="/v1", tags=["costs"])


@router.get("/costs", response_model=CostReport, operation_id="costs")
def costs(
    deps: Deps,
    by: Annotated[str, Query(description="Dimensions, separated by commas.", max_length=100)] = (
        "queue"
    ),
    since: Annotated[str, Query(description="`30d`, or a date.", max_length=40)] = "30d",
    until: Annotated[str, Query(description="The same; empty = now.", max_length=40)] = "",
    step: Literal["hour", "day", "week", "month"] = "day",
) -> Response:
    """Costs by group, in all, and over time; rows, totals and series always agree."""
    now = deps.clock.now()
    start, end = _moment(since, now), _moment(until, now) if until else now
    if not start < end <= now:
        raise InvalidInput("`since` must lie before `until`, and both in the past")
    report = cost_report(
        deps.store,
        by=tuple(dict.fromkeys(each.strip() for each in by.split(",") if each.strip())),
        since=start,
        until=end,
        step=step,
        now=now,
    )
    return send(report)


def _moment(text: str, now: datetime) -> datetime:
    """A date or time, or a duration before now. Raises `InvalidInput`."""
    try:
        ago_s = parse_duration_s(text)
    except UnitError as error:
        try:
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidInput(
                f"{error.what}, nor a date", fix="such as `30d` or `2026-01-31`"
            ) from error
    if ago_s > DURATION_MAX_S:
        raise InvalidInput("costs go back 400 days at most")
    return now - timedelta(seconds=ago_s)
