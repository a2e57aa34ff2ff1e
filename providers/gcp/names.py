"""How machines of ours are named and labelled, and read back.

A label value holds lower-case letters, digits, `_` and `-` only, 63 at most, so other text is
encoded: each other byte becomes `_` and two hex digits. Text that is too long even so ends in a
hash of the whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from control_plane.ports import LaunchRequest

FLEET, MACHINE, KEY = "orchctl-fleet", "orchctl-machine", "orchctl-key"
POOL, DEADLINE, VERSION = "orchctl-pool", "orchctl-deadline", "orchctl-version"

PREFIX = "orchctl-"
"""Of every instance and disk of ours; conditions of IAM can match it, but not labels."""

_LONGEST = 63
_ZONES: Mapping[str, str] = {"us-central1": "abcf", "us-east1": "bcd", "europe-west1": "bcd"}
"""Regions whose zones are not a, b and c: "Regions and zones", cloud.google.com/compute/docs. Zones
made for AI alone are not among them."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_NAME_PART = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,38}[a-z0-9])?")
_PROVIDER_ID = re.compile(r"projects/([^/]+)/zones/([^/]+)/instances/([^/]+)")


def label(text: str) -> str:
    """Any text as a label value; the same for the same text, and another for any other."""
    encoded = "".join(map(_encoded, text))
    if len(encoded) <= _LONGEST:
        return encoded
    return f"{encoded[:39]}__{_hash(text, 22)}"


def _encoded(sign: str) -> str:
    return sign if sign in _PLAIN else "".join(f"_{byte:02x}" for byte in sign.encode())


def text_of(value: str) -> str:
    """The text of a label value of ours; as it stands where it was too long to be kept whole."""
    if "__" in value:
        return value
    raw = re.sub(r"_([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), value)
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:
        return value


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def instance_name(machine_id: str, key: str) -> str:
    """The name of the instance of one launch key: the name, not a request id, is what keeps a key
    from making two. It tells the machine's id where that has only letters and digits."""
    attempt = key.removeprefix(f"{machine_id}.")
    tail = attempt if attempt.isdecimal() and len(attempt) < 7 else _hash(key, 12)
    return f"{_stem(machine_id)}-{tail}"


def name_pattern(machine_id: str) -> str:
    """A regular expression for the instances of all attempts of one machine."""
    return f"{_stem(machine_id)}-[0-9a-f]+"


def _stem(machine_id: str) -> str:
    plain = _NAME_PART.fullmatch(machine_id) is not None
    return PREFIX + (machine_id if plain else f"x{_hash(machine_id, 24)}")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One instance, existing or not."""

    project: str
    zone: str
    name: str

    @property
    def provider_id(self) -> str:
        """Complete in itself."""
        return f"projects/{self.project}/zones/{self.zone}/instances/{self.name}"

    @classmethod
    def parse(cls, provider_id: str) -> Place | None:
        """The instance of a provider id or a link; None for what cannot be one."""
        found = _PROVIDER_ID.search(provider_id)
        return cls(found[1], found[2], found[3]) if found else None


def labels(request: LaunchRequest, version: str) -> Mapping[str, str]:
    """What every resource of a machine carries."""
    return {
        FLEET: label(request.boot.fleet),
        MACHINE: label(request.machine_id),
        KEY: label(request.key),
        POOL: label(request.boot.pool),
        DEADLINE: str(int(request.deadline.timestamp())),
        VERSION: label(version),
    }


def region_of(zone: str) -> str:
    """`us-central1` for `us-central1-a`."""
    return zone.rpartition("-")[0]


def zones_of(region: str) -> Sequence[str]:
    """The zones of a region, asking nobody."""
    return [f"{region}-{letter}" for letter in _ZONES.get(region, "abc")]


def moment(text: str) -> datetime:
    """A time of the API, which is written in Pacific time, as UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)
