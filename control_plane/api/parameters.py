"""What people's routes ask of a request by name, for the framework to find, check and describe."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Path, Query
from starlette.requests import Request

from control_plane.access.who import Identity
from control_plane.api.cursors import LIMIT_DEFAULT, LIMIT_MAX, Paging
from control_plane.api.deps import ApiDeps, deps_of
from control_plane.api.idempotency import HEADER, KEY_MAX
from control_plane.api.names import ID, NAME

PathName = Annotated[str, Path(pattern=NAME)]
PathId = Annotated[str, Path(pattern=ID)]
QueryName = Annotated[str, Query(pattern=f"{NAME}|^$")]
QueryId = Annotated[str, Query(pattern=f"{ID}|^$")]

IfMatch = Annotated[str, Header(alias="If-Match", max_length=200)]
IfNoneMatch = Annotated[str, Header(alias="If-None-Match", max_length=2000)]

IdempotencyKey = Annotated[
    str,
    Header(
        alias=HEADER,
        max_length=KEY_MAX,
        pattern="^[ -~]*$",
        description="A name for this request: repeating it with the same name changes nothing.",
    ),
]


async def _deps(request: Request) -> ApiDeps:
    return deps_of(request)


async def _actor(request: Request) -> str:
    return str(request.state.actor)


async def _who(request: Request) -> Identity:
    identity: Identity = request.state.identity
    return identity


async def _paging(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT,
    cursor: Annotated[str, Query(max_length=4096)] = "",
) -> Paging:
    return Paging(request, limit, cursor)


Deps = Annotated[ApiDeps, Depends(_deps)]
Actor = Annotated[str, Depends(_actor)]
"""Who sent the request, for the event log."""
Who = Annotated[Identity, Depends(_who)]
"""The same with what they may do, for what the table of roles leaves to the route."""
Paged = Annotated[Paging, Depends(_paging)]
"""Which page of a listing is wanted."""
