"""Who may come in: tokens of people, federations of CI systems, and the session of a CI job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from control_plane.access.oidc import is_safe_url
from control_plane.access.who import Identity
from control_plane.api.auth import sender_of
from control_plane.api.deps import ApiDeps
from control_plane.api.etags import check, expected
from control_plane.api.idempotency import HEADER, KEY_MAX
from control_plane.api.parameters import Actor, Deps, IfMatch, IfNoneMatch, PathId, PathName, Who
from control_plane.api.problems import Unauthenticated
from control_plane.api.requests import FederationRequest, SessionRequest, TokenRequest
from control_plane.api.views import (
    FederationView,
    Listing,
    NewSession,
    NewToken,
    TokenView,
    WhoView,
    send,
    send_all,
    token_view,
)
from control_plane.core.access import Federation, faults
from control_plane.errors import Denied, InvalidInput, NotFound

router = APIRouter(prefix="/v1", tags=["access"])

SessionKey = Annotated[
    str,
    Header(
        alias=HEADER,
        max_length=KEY_MAX,
        pattern="^[ -~]*$",
        description="A secret of the sender: a repeat with the same one is given the same session. "
        "With another one the token was used before.",
    ),
]


@router.get("/whoami", response_model=WhoView, operation_id="whoami")
async def whoami(who: Who) -> Response:
    """Who you are here, and what you may do."""
    return send(_who(who))


@router.post(
    "/sessions",
    response_model=NewSession,
    status_code=201,
    operation_id="create_session",
    openapi_extra={"security": []},
)
def create_session(
    body: SessionRequest, request: Request, deps: Deps, key: SessionKey = ""
) -> Response:
    """Exchange the token that a CI system's issuer has signed for a session, once."""
    sender = sender_of(request)
    deps.failures.check(sender, body.token)
    try:
        session = deps.access.exchange(body.token, key)
    except Denied as error:
        deps.failures.failed(sender)
        raise Unauthenticated(error.message, fix=_HOW) from error
    return send(NewSession(token=session.token, who=_who(session.identity)), 201)


_HOW = "compare the claims of the token with the rules: `orchctl federation list`"


@router.get("/tokens", response_model=Listing[TokenView], operation_id="list_tokens")
def list_tokens(deps: Deps) -> Response:
    """All tokens, oldest first; none is shown itself."""
    now = deps.clock.now()
    return send_all(token_view(each, now) for each in deps.store.token_list())


@router.post("/tokens", response_model=NewToken, status_code=201, operation_id="create_token")
def create_token(body: TokenRequest, deps: Deps, actor: Actor) -> Response:
    """Make a token. This answer is the only one that shows it."""
    record, token = deps.access.create(
        body.name, body.grant(), expires_at=body.expires_at, actor=actor
    )
    view = token_view(record, deps.clock.now())
    return send(NewToken(token=token, record=view), 201)


@router.delete("/tokens/{token_id}", status_code=204, operation_id="revoke_token")
def revoke_token(token_id: PathId, deps: Deps, actor: Actor) -> Response:
    """End a token, and the sessions made from it, now."""
    deps.access.revoke(token_id, actor=actor)
    return Response(status_code=204)


@router.get("/federations", response_model=Listing[FederationView], operation_id="list_federations")
def list_federations(deps: Deps) -> Response:
    """All federations, by name."""
    return send_all(deps.store.federation_list())


@router.get("/federations/{name}", response_model=FederationView, operation_id="get_federation")
def get_federation(name: PathName, deps: Deps) -> Response:
    """One federation."""
    record = deps.store.federation_get(name)
    return send(record, version=record.version)


@router.put("/federations/{name}", response_model=FederationView, operation_id="apply_federation")
def apply_federation(
    name: PathName,
    body: FederationRequest,
    deps: Deps,
    actor: Actor,
    if_match: IfMatch = "",
    if_none_match: IfNoneMatch = "",
) -> Response:
    """Say whose word is taken, and what it admits to. It holds at once, for open sessions too."""
    wanted = body.federation(name, now=deps.clock.now(), actor=actor)
    _check(wanted)
    version = _version(deps, name)
    seen = expected(if_match, if_none_match)
    check(seen, version)
    record = deps.access.apply(wanted, expected_version=seen.version if seen else None, actor=actor)
    return send(record, 200 if version else 201, version=record.version)


@router.delete("/federations/{name}", status_code=204, operation_id="delete_federation")
def delete_federation(name: PathName, deps: Deps, actor: Actor, if_match: IfMatch = "") -> Response:
    """Take its word no more; its sessions end."""
    check(expected(if_match), deps.store.federation_get(name).version)
    deps.access.remove(name, actor=actor)
    return Response(status_code=204)


def _who(identity: Identity) -> WhoView:
    return WhoView(
        actor=identity.actor,
        role=identity.grant.role,
        queues=identity.grant.queues,
        expires_at=identity.expires_at,
    )


def _check(wanted: Federation) -> None:
    for what, url in (("issuer", wanted.issuer), ("jwks_uri", wanted.jwks_uri or wanted.issuer)):
        if not is_safe_url(url):
            raise InvalidInput(f"/{what}: {url} is not an https address")
    found = faults(wanted)
    if found:
        where, why = found[0]
        raise InvalidInput(f"{where}: {why}")


def _version(deps: ApiDeps, name: str) -> int:
    try:
        return deps.store.federation_get(name).version
    except NotFound:
        return 0
