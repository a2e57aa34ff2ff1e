"""What a webhook says has happened, read from its body once that is proven."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from control_plane.core.hooks import Occurrence
from control_plane.errors import InvalidInput

PING = "ping"
"""The event with which GitHub tries a hook that was just made."""

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100}){0,20}")
_REF = re.compile(r"[!-~]{1,500}")
"""git allows more in a name; what is not plain ASCII is refused, since commands read it."""
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_NOWHERE = re.compile(r"0+")


def read_json(body: bytes) -> Mapping[str, Any]:
    """The object in a body. Raises `InvalidInput`, however it is made."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "the body is not JSON", fix="let the sender send `application/json`"
        ) from error
    if not isinstance(found, dict):
        raise InvalidInput("the body is no JSON object")
    return found


def of_github(event: str, body: Mapping[str, Any]) -> Occurrence:
    """What a delivery of GitHub is about. Raises `InvalidInput` for what no repository has."""
    ref, sha = _place(event, body)
    return _checked(
        event=event,
        action=_text(body, "action"),
        repository=_text(body, "repository", "full_name"),
        ref=ref,
        sha=sha,
        deleted=event == "push" and body.get("deleted") is True,
    )


def of_standard(body: Mapping[str, Any]) -> Occurrence:
    """What a message in the form of Standard Webhooks is about: its `type`, and of its `data` what
    has the names of ours."""
    return _checked(
        event=_text(body, "type"),
        repository=_text(body, "data", "repository"),
        ref=_text(body, "data", "ref"),
        sha=_text(body, "data", "sha"),
    )


def _place(event: str, body: Mapping[str, Any]) -> tuple[str, str]:
    """The ref and the commit that an event of GitHub is about."""
    if event.startswith("pull_request"):
        number = body.get("number") or _inner(body, "pull_request").get("number")
        ref = f"refs/pull/{number}/head" if isinstance(number, int) else ""
        return ref, _text(body, "pull_request", "head", "sha")
    if event == "release":
        tag = _text(body, "release", "tag_name")
        return f"refs/tags/{tag}" if tag else "", ""
    if event == "workflow_run":
        branch = _text(body, "workflow_run", "head_branch")
        # A fork names its branches as it likes: `main` of a stranger is not `main` of ours.
        home = _text(body, "workflow_run", "head_repository", "full_name")
        if not branch or home != _text(body, "repository", "full_name"):
            return "", ""
        return f"refs/heads/{branch}", _text(body, "workflow_run", "head_sha")
    return _text(body, "ref"), _text(body, "after") or _text(body, "sha")


def _checked(
    *,
    event: str,
    action: str = "",
    repository: str = "",
    ref: str = "",
    sha: str = "",
    deleted: bool = False,
) -> Occurrence:
    for name, text, pattern in (
        ("event", event, _WORD),
        ("action", action, _WORD),
        ("repository", repository, _REPOSITORY),
        ("ref", ref, _REF),
        ("commit", sha, _SHA),
    ):
        if text and not pattern.fullmatch(text):
            raise InvalidInput(f"the {name} in the body is not one that is taken here")
    if not event:
        raise InvalidInput("the message names no event")
    return Occurrence(
        event=event,
        action=action,
        repository=repository,
        ref=ref,
        sha="" if _NOWHERE.fullmatch(sha) else sha,
        deleted=deleted,
    )


def _inner(body: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The object under these names; empty when there is none."""
    for name in names:
        found = body.get(name)
        body = found if isinstance(found, dict) else {}
    return body


def _text(body: Mapping[str, Any], *names: str) -> str:
    """The text under these names; empty when there is none."""
    found = _inner(body, *names[:-1]).get(names[-1])
    return found if isinstance(found, str) else ""
