"""One VM of the fake: a set of times, from which its status at any moment follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from tests.fakes.gcp.discovery import Json
from tests.fakes.gcp.stock import region_of

PACIFIC = timezone(timedelta(hours=-8))
ROOT = "https://www.googleapis.com/compute/v1/"
STAGING_S, RUNNING_S, STOP_S, NOTICE_S = 5, 15, 20, 30
"""After the insert is done: from when it is staging, from when it runs. How long a stop or a delete
takes, and how long a preempted VM is given."""


def stamp(when: datetime) -> str:
    """A time as the API writes it: Pacific, with milliseconds."""
    return when.astimezone(PACIFIC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a VM stops or goes."""

    at: datetime
    done_at: datetime
    deletes: bool
    """Else it stays as `TERMINATED`, and its disk costs money."""


@dataclass(slots=True, kw_only=True)
class Vm:
    """One VM, from the insert on."""

    project: str
    zone: str
    name: str
    number: int
    body: Json
    """As it was asked for."""
    created_at: datetime
    listed_at: datetime
    made_at: datetime
    """When its insert is done."""
    ending: Ending | None = None
    leaves_disk: bool = False
    """Whether its disk outlives it whatever was asked for."""

    @property
    def link(self) -> str:
        return f"{ROOT}projects/{self.project}/zones/{self.zone}/instances/{self.name}"

    @property
    def spot(self) -> bool:
        return bool(self.body.get("scheduling", {}).get("provisioningModel") == "SPOT")

    @property
    def kind(self) -> str:
        return str(self.body["machineType"]).rpartition("/")[2]

    @property
    def region(self) -> str:
        return region_of(self.zone)

    def status(self, now: datetime) -> str:
        """As a listing says it; empty = it does not exist (any more)."""
        if self.ending is not None and self.ending.at <= now:
            if now < self.ending.done_at:
                return "STOPPING"
            return "" if self.ending.deletes else "TERMINATED"
        since_made = (now - self.made_at).total_seconds()
        if since_made < STAGING_S:
            return "PROVISIONING"
        return "STAGING" if since_made < RUNNING_S else "RUNNING"

    def end(self, now: datetime, *, takes_s: float, deletes: bool) -> Ending:
        """Begin to stop or delete it; what comes first stays, but a delete overrules a stop."""
        if self.ending is not None and (self.ending.deletes or not deletes):
            return self.ending
        self.ending = Ending(now, now + timedelta(seconds=takes_s), deletes)
        return self.ending

    def limit_at(self) -> datetime | None:
        """When the cloud itself ends it."""
        scheduling = self.body.get("scheduling", {})
        if text := scheduling.get("terminationTime"):
            return datetime.fromisoformat(text)
        if span := scheduling.get("maxRunDuration"):
            running_at = self.made_at + timedelta(seconds=RUNNING_S)
            return running_at + timedelta(seconds=int(span["seconds"]))
        return None

    def deletes_itself(self) -> bool:
        """Whether a preemption or its time limit removes it."""
        action = self.body.get("scheduling", {}).get("instanceTerminationAction")
        return bool(action == "DELETE")

    def view(self, now: datetime) -> Json:
        """The `Instance` that the API shows."""
        zone = f"{ROOT}projects/{self.project}/zones/{self.zone}"
        return {
            **self.body,
            "kind": "compute#instance",
            "id": str(self.number),
            "creationTimestamp": stamp(self.created_at),
            "selfLink": self.link,
            "zone": zone,
            "status": self.status(now),
            "labelFingerprint": "42WmSpB8rSM=",
            "disks": [self._disk(each, zone) for each in self.body["disks"]],
        }

    def _disk(self, asked: Json, zone: str) -> Json:
        kept = {key: value for key, value in asked.items() if key != "initializeParams"}
        size = str(asked.get("initializeParams", {}).get("diskSizeGb", 10))
        return kept | {"source": f"{zone}/disks/{self.disk_name}", "diskSizeGb": size}

    @property
    def disk_name(self) -> str:
        asked = self.body["disks"][0].get("initializeParams", {})
        return str(asked.get("diskName") or self.name)
