"""One instance as the fake knows it: its life, what DescribeInstances shows of it, its filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from moto.core.serialize import EC2Serializer
from moto.core.utils import get_service_model

from tests.fakes.ec2.checks import answer_problems

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopped": 80}
_INSIDE = re.compile(r"<reservationSet>(.*)</reservationSet>", re.DOTALL)


@dataclass(slots=True, kw_only=True)
class Vm:
    """One instance."""

    id: str
    region: str
    zone: str
    """The id of its zone."""
    instance_type: str
    spot: bool
    cpus: int
    token: str
    tags: Mapping[str, str]
    asked: Mapping[str, Any]
    """The RunInstances call that has made it."""
    user_data: str
    """As the machine would read it."""
    ends_on_shutdown: bool
    visible_at: datetime
    shown: dict[str, Any]
    """As EC2 describes it."""
    release: Callable[[], None]
    """Gives disk, network interface and address back."""
    forgotten_at: datetime | None = None
    _rendered: str = field(default="")

    @property
    def state(self) -> str:
        name: str = self.shown["State"]["Name"]
        return name

    @property
    def alive(self) -> bool:
        """Whether it exists and holds capacity."""
        return self.state != "terminated"

    @property
    def shows_tags(self) -> bool:
        """Whether its metadata service tells its tags."""
        told = self.asked.get("MetadataOptions", {}).get("InstanceMetadataTags")
        return bool(told == "enabled")

    @property
    def ending(self) -> bool:
        return self.state in ("shutting-down", "terminated")

    def move(self, state: str, reason: str = "", text: str = "") -> None:
        """Go on to another state, for a reason that stays."""
        self.shown["State"] = {"Code": CODES[state], "Name": state}
        if reason:
            self.shown["StateReason"] = {"Code": reason, "Message": f"{reason}: {text}"}
        if state == "terminated":
            for name in ("PublicIpAddress", "PrivateIpAddress"):
                self.shown.pop(name, None)
            self.shown["BlockDeviceMappings"] = self.shown["NetworkInterfaces"] = []
        self._rendered = ""

    def visible(self, now: datetime) -> bool:
        """Whether listings know it."""
        return self.visible_at <= now and (self.forgotten_at is None or now < self.forgotten_at)

    def matches(self, name: str, values: list[str]) -> bool:
        """Whether a filter of DescribeInstances lets it through."""
        found = self._of(name)
        return any(_wildcards(value).fullmatch(found) for value in values)

    def _of(self, name: str) -> str:
        if name.startswith("tag:"):
            return self.tags.get(name.removeprefix("tag:"), "\0")
        return _FILTERS[name](self)

    def xml(self, owner: str) -> str:
        """It as an item of DescribeInstances."""
        if not self._rendered:
            # moto takes milliseconds for each, so a listing of thousands lives on what was
            # rendered before.
            body = _describe(self.shown, owner)
            problems = answer_problems("ec2", "DescribeInstances", body.encode())
            assert not problems, problems
            found = _INSIDE.search(body)
            assert found
            self._rendered = found[1]
        return self._rendered


_FILTERS: Mapping[str, Callable[[Vm], str]] = {
    "availability-zone": lambda vm: str(vm.shown["Placement"]["AvailabilityZone"]),
    "client-token": lambda vm: vm.token,
    "instance-id": lambda vm: vm.id,
    "instance-lifecycle": lambda vm: "spot" if vm.spot else "\0",
    "instance-state-name": lambda vm: vm.state,
    "instance-type": lambda vm: vm.instance_type,
    "spot-instance-request-id": lambda vm: str(vm.shown.get("SpotInstanceRequestId", "\0")),
}


def is_filter(name: str) -> bool:
    """Whether DescribeInstances has a filter of that name, as far as the fake knows them."""
    return name in _FILTERS or name.startswith("tag:")


def _describe(shown: Mapping[str, Any], owner: str) -> str:
    reservation = {
        "ReservationId": "r-" + shown["InstanceId"].removeprefix("i-"),
        "OwnerId": owner,
        "Groups": [],
        "Instances": [shown],
    }
    operation = get_service_model("ec2").operation_model("DescribeInstances")
    return str(EC2Serializer(operation).serialize({"Reservations": [reservation]})["body"])


@lru_cache
def _wildcards(value: str) -> re.Pattern[str]:
    """`*` and `?` as in EC2's filters, a backslash before one that is meant."""
    parts = re.findall(r"\\.|.", value, re.DOTALL)
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)
