"""What all methods share: one request taken apart, pages, and listings over all places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.fakes.gcp import filters
from tests.fakes.gcp.cloud import Fault, GcpCloud
from tests.fakes.gcp.discovery import ApiError, Json, field_names, invalid
from tests.fakes.gcp.machines import ROOT
from tests.fakes.gcp.stock import region_of

_LARGEST_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, taken apart."""

    name: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Json
    user: str
    fault: Fault | None


Handler = Callable[[GcpCloud, Call], Json]
"""Answers a method."""
Things = Callable[[GcpCloud, Call], list[Json]]
"""All that a listing may show, as the API shows it."""


def zone_of(cloud: GcpCloud, call: Call) -> str:
    """The zone of a request. Raises 400."""
    zone = call.path["zone"]
    if zone not in cloud.stock.kinds:
        raise invalid("zone", zone, "Unknown zone.")
    return zone


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what was found, and the token of the rest."""

    items: list[Json]
    token: Json


def by_name(thing: Json) -> str:
    """The order of listings."""
    return f"{thing.get('zone', '')} {thing['name']}"


def page_of(
    things: Iterable[Json], call: Call, schema: str, order: Callable[[Json], str] | None
) -> Page:
    """What a listing's query asks for. Raises 400."""
    match = filters.parse(call.query.get("filter", ""), field_names(schema))
    found = [thing for thing in things if match(thing)]
    if order is not None:
        found.sort(key=order)
    size = int(call.query.get("maxResults") or _LARGEST_PAGE)
    if not 0 < size <= _LARGEST_PAGE:
        raise invalid("maxResults", size, "Between 1 and 500.")
    at = int(call.query.get("pageToken") or 0)
    token: Json = {"nextPageToken": str(at + size)} if at + size < len(found) else {}
    return Page(found[at : at + size], token)


def aggregated(cloud: GcpCloud, call: Call, things: Iterable[Json], word: str, schema: str) -> Json:
    """One page over all places; each place has things, or says why it has none."""
    heard = [each for each in things if not _silent(cloud, _place(each))]
    page = page_of(heard, call, schema, by_name)
    kept: dict[str, list[Json]] = {}
    for thing in page.items:
        kept.setdefault(_place(thing), []).append(thing)
    places = _regional(cloud) if word == "addresses" else _zonal(cloud)
    items = {place: _scope(cloud, place, kept.get(place, []), word) for place in places}
    unreachable = [place for place in places if _silent(cloud, place)]
    return (
        {"id": f"projects/{call.path['project']}", "items": items}
        | page.token
        | ({"unreachables": unreachable} if unreachable else {})
    )


def _zonal(cloud: GcpCloud) -> list[str]:
    return [f"zones/{zone}" for zone in sorted(cloud.stock.kinds)]


def _regional(cloud: GcpCloud) -> list[str]:
    return [f"regions/{region}" for region in cloud.stock.regions()]


def _place(thing: Json) -> str:
    """`zones/us-central1-a` of a listed thing."""
    return "/".join(thing["selfLink"].removeprefix(ROOT).split("/")[2:4])


def _silent(cloud: GcpCloud, place: str) -> bool:
    name = place.rpartition("/")[2]
    return bool({name, region_of(name)} & cloud.silent)


def _scope(cloud: GcpCloud, place: str, things: list[Json], word: str) -> Json:
    if things:
        return {word: things}
    code = "UNREACHABLE" if _silent(cloud, place) else "NO_RESULTS_ON_PAGE"
    data = [{"key": "scope", "value": place}]
    return {"warning": {"code": code, "message": f"{code} in '{place}'.", "data": data}}


def in_zone(things: Things, schema: str) -> Handler:
    """A listing of one zone."""

    def listed(cloud: GcpCloud, call: Call) -> Json:
        cloud.heard(call.path["zone"])
        page = page_of(things(cloud, call), call, schema, by_name)
        return {"id": call.path["zone"], "items": page.items} | page.token

    return listed


def one(things: Things, word: str) -> Handler:
    """A look-up by name."""

    def got(cloud: GcpCloud, call: Call) -> Json:
        for thing in things(cloud, call):
            if thing["name"] == call.path[word]:
                return thing
        raise ApiError(404, "notFound", f"The resource '{call.path[word]}' was not found")

    return got


def everywhere(things: Things, word: str, schema: str) -> Handler:
    """An aggregated listing."""
    return lambda cloud, call: aggregated(cloud, call, things(cloud, call), word, schema)


def in_project(things: Things, schema: str) -> Handler:
    """A listing of a whole project."""

    def listed(cloud: GcpCloud, call: Call) -> Json:
        page = page_of(things(cloud, call), call, schema, by_name)
        return {"items": page.items} | page.token

    return listed
