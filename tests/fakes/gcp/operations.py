"""Operations: what the API answers to everything that changes something."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.fakes.gcp.discovery import Json
from tests.fakes.gcp.machines import ROOT, stamp

_HTTP: dict[str, tuple[int, str]] = {
    "ZONE_RESOURCE_POOL_EXHAUSTED": (503, "SERVICE UNAVAILABLE"),
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": (503, "SERVICE UNAVAILABLE"),
    "QUOTA_EXCEEDED": (403, "FORBIDDEN"),
    "PERMISSION_DENIED": (403, "FORBIDDEN"),
    "IAM_PERMISSION_DENIED": (403, "FORBIDDEN"),
    "RESOURCE_NOT_FOUND": (404, "NOT FOUND"),
    "VPC_NOT_FOUND": (404, "NOT FOUND"),
    "RESOURCE_OPERATION_RATE_EXCEEDED": (429, "TOO MANY REQUESTS"),
    "INTERNAL_ERROR": (500, "INTERNAL SERVER ERROR"),
}
_OTHERWISE = (400, "BAD REQUEST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an operation came to nothing."""

    code: str
    message: str
    quota_limit: float | None = None
    """For a quota: the limit that was met."""

    def view(self) -> Json:
        found: Json = {"code": self.code, "message": self.message}
        if self.code.startswith("ZONE_RESOURCE_POOL_EXHAUSTED"):
            info = {
                "reason": "resource_availability",
                "domain": "compute.googleapis.com",
                "metadatas": {"zonesAvailable": ""},
            }
            found["errorDetails"] = [{"errorInfo": info}]
        if self.quota_limit is not None:
            quota = {"metricName": "compute.googleapis.com/gpus", "limit": self.quota_limit}
            found["errorDetails"] = [{"quotaInfo": quota}]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One change, from the request to its end."""

    number: int
    project: str
    place: str
    """`zones/us-central1-a` or `regions/us-central1`."""
    kind: str
    """`insert`, `delete`, `compute.instances.preempted` …"""
    target: str
    user: str
    inserted_at: datetime
    done_at: datetime
    refusal: Refusal | None = None

    @property
    def name(self) -> str:
        return f"operation-{self.number}"

    @property
    def zone(self) -> str:
        return self.place.rpartition("/")[2]

    def view(self, now: datetime) -> Json:
        """The `Operation` that the API shows."""
        place = f"{ROOT}projects/{self.project}/{self.place}"
        done = self.done_at <= now
        found: Json = {
            "kind": "compute#operation",
            "id": str(self.number),
            "name": self.name,
            self.place.partition("/")[0].removesuffix("s"): place,
            "selfLink": f"{place}/operations/{self.name}",
            "operationType": self.kind,
            "targetLink": self.target,
            "user": self.user,
            "insertTime": stamp(self.inserted_at),
            "startTime": stamp(self.inserted_at),
            "status": self._status(now),
            "progress": 100 if done else 0,
        }
        return found | (self._end() if done else {})

    def _status(self, now: datetime) -> str:
        if self.done_at <= now:
            return "DONE"
        return "PENDING" if now - self.inserted_at < timedelta(seconds=1) else "RUNNING"

    def _end(self) -> Json:
        found: Json = {"endTime": stamp(self.done_at)}
        if self.refusal is not None:
            status, text = _HTTP.get(self.refusal.code, _OTHERWISE)
            found["httpErrorStatusCode"] = status
            found["httpErrorMessage"] = text
            found["error"] = {"errors": [self.refusal.view()]}
        return found
