"""How pages leave the server: whole, compressed, with an ETag; and how their errors look. Who may
see them, and what a page may load, is decided by the layer before the app (`api.edge`).
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from control_plane.api import problems
from control_plane.core.lifecycle import IllegalTransition
from control_plane.dashboard import format as fmt
from control_plane.errors import InvalidInput, NotFound, OrchctlError, Refused

FORM_BYTES_MAX = 65_536
"""Our largest form is a few hundred bytes."""

_MEDIA = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_THEMES = ("dark", "light")
_NAV = ("Cost", "Machines", "Queues", "Jobs", "Autoscalers", "Offers", "Activity")


@dataclass(frozen=True, slots=True)
class Asset:
    """One static file, read once."""

    body: bytes
    media_type: str


@cache
def assets() -> Mapping[str, Asset]:
    """Our own CSS, script and icon."""
    folder = resources.files("control_plane.dashboard").joinpath("static")
    return {
        each.name: Asset(each.read_bytes(), _MEDIA[each.name.rpartition(".")[2]])
        for each in folder.iterdir()
        if each.name.rpartition(".")[2] in _MEDIA
    }


@cache
def assets_digest() -> str:
    """Names the static files by what is in them, so browsers may keep them for ever."""
    digest = hashlib.sha256()
    for name, asset in sorted(assets().items()):
        digest.update(name.encode() + b"\0" + asset.body)
    return digest.hexdigest()[:16]


def asset(digest: str, name: str, request: Request) -> Response:
    """One static file. Raises `NotFound`."""
    found = assets().get(name)
    if found is None:
        raise NotFound(f"no file {name}")
    # Another digest is another release's page during a roll-out: right enough, but not for ever.
    lasting = digest == assets_digest()
    keep = "public, max-age=31536000, immutable" if lasting else "no-cache"
    headers = {"Cache-Control": keep, "X-Content-Type-Options": "nosniff"}
    return _sent(request, found.body, found.media_type, 200, headers)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("control_plane.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        asset=lambda name: f"/assets/{assets_digest()}/{name}",
        nav=[("Overview", "/"), *((name, f"/{name.lower()}") for name in _NAV)],
    )
    environment.filters["plural"] = fmt.plural
    return environment


def page(request: Request, template: str, status: int = 200, **values: object) -> Response:
    """A rendered page; 304 when the browser has exactly this one."""
    theme = request.cookies.get("theme", "")
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    text = (
        _templates()
        .get_template(f"{template}.html")
        .render(
            theme=theme if theme in _THEMES else "",
            section=request.url.path.split("/")[1].partition(".")[0],
            here=here,
            **values,
        )
    )
    body = text.encode()
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache, private", "Vary": "Accept-Encoding, Cookie"}
    if status == 200 and tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return _sent(request, body, "text/html", status, headers)


def back_to(form: Mapping[str, str], fallback: str) -> Response:
    """After an action: the page it was asked from, which shows what it did."""
    target = form.get("back", "")
    # Only a path of ours: a foreign address would make us a stepping stone.
    ours = target.startswith("/") and not target.startswith(("//", "/\\"))
    return RedirectResponse(target if ours else fallback, status_code=303)


async def form(request: Request) -> Mapping[str, str]:
    """The fields of a posted form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            raise InvalidInput("this form is too large")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


class PageRoute(APIRoute):
    """A route whose refusals are pages too, with the same status and sentence as in the API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with its errors caught."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except OrchctlError as error:
                return _refusal(request, error)
            except IllegalTransition as error:
                return _refusal(request, Refused(str(error)))
            except RequestValidationError:
                return _refusal(
                    request, InvalidInput("this address has a value that makes no sense")
                )

        return guarded


def _refusal(request: Request, error: OrchctlError) -> Response:
    status = problems.of_error(error).status_code
    return page(
        request,
        "error",
        status,
        title=_HEADINGS.get(status, "That did not work"),
        message=error.message,
        fix=error.fix,
        code=error.code,
    )


_HEADINGS = {
    401: "Please sign in",
    403: "Not allowed",
    404: "There is no such thing",
    409: "Not as things are now",
    412: "It changed meanwhile",
    503: "Not available now",
}


def _sent(
    request: Request, body: bytes, media_type: str, status: int, headers: Mapping[str, str]
) -> Response:
    extra = dict(headers)
    if "gzip" in request.headers.get("accept-encoding", "") and len(body) > 500:
        body = gzip.compress(body, 6, mtime=0)
        extra["Content-Encoding"] = "gzip"
    return Response(body, status, extra, media_type)
