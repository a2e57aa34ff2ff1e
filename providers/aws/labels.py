"""The tags of everything we make, and how any text fits into them.

A tag value has 256 characters of letters, digits, spaces and `+ - = . _ : / @` ("Tag your Amazon
EC2 resources"), and a filter reads `*`, `?` and `\\` in it as wildcards. So all else becomes `=`
and two hexadecimal digits for each byte of its UTF-8, and `=` itself too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from control_plane.ports import LaunchRequest

FLEET = "orchctl-fleet"
MACHINE = "orchctl-machine"
KEY = "orchctl-key"
POOL = "orchctl-pool"
DEADLINE = "orchctl-deadline"
VERSION = "orchctl-version"

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 +\-._:/@]")
_ESCAPED = re.compile(r"(?:=[0-9A-F]{2})+")


def encode(text: str) -> str:
    """A text as a tag value."""
    return _NOT_PLAIN.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), text)


def decode(value: str) -> str:
    """The text of a tag value; what `encode` did not make is shown as well as it can be."""
    return _ESCAPED.sub(lambda found: _text(found[0]), value)


def _text(escaped: str) -> str:
    return bytes.fromhex(escaped.replace("=", "")).decode(errors="replace")


def tags(request: LaunchRequest) -> Sequence[Mapping[str, str]]:
    """The tags of a machine and all that belongs to it."""
    texts = {
        FLEET: request.boot.fleet,
        MACHINE: request.machine_id,
        KEY: request.key,
        POOL: request.boot.pool,
        DEADLINE: str(int(request.deadline.timestamp())),
        VERSION: version("orchctl"),
    }
    return _as_tags(texts)


def shared_tags(fleet: str) -> Sequence[Mapping[str, str]]:
    """The tags of what many machines of a fleet use."""
    return _as_tags({FLEET: fleet, VERSION: version("orchctl")})


def _as_tags(texts: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    return [{"Key": name, "Value": encode(text)} for name, text in texts.items()]


def read(resource: Mapping[str, Any]) -> Mapping[str, str]:
    """Our texts on a resource, by tag name."""
    found = {tag["Key"]: tag["Value"] for tag in resource.get("Tags", ())}
    return {name: decode(value) for name, value in found.items() if name.startswith("orchctl-")}


def key_filters(request: LaunchRequest) -> Sequence[Mapping[str, Any]]:
    """The filters that find the machine of a launch key."""
    return (
        fleet_filter(request.boot.fleet),
        {"Name": f"tag:{KEY}", "Values": [encode(request.key)]},
    )


def fleet_filter(fleet: str) -> Mapping[str, Any]:
    """The filter that finds what belongs to a fleet."""
    return {"Name": f"tag:{FLEET}", "Values": [encode(fleet)]}
