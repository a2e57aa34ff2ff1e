"""What can go wrong between a client and the fake, on purpose."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

STATUSES = {
    "AuthFailure": 401,
    "Blocked": 403,
    "DryRunOperation": 412,
    "ExpiredToken": 403,
    "InsufficientHostCapacity": 500,
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "InternalFailure": 500,
    "InvalidClientTokenId": 403,
    "OptInRequired": 403,
    "PendingVerification": 403,
    "RequestLimitExceeded": 503,
    "ServerInternal": 500,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "Unavailable": 503,
    "UnauthorizedOperation": 403,
}
"""The HTTP status of a code ("Error codes for the Amazon EC2 API"); all others are 400."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """One planned fault: of the next calls that match."""

    operation: str = ""
    """Empty = of any EC2 operation."""
    region: str = ""
    code: str = ""
    message: str = ""
    status: int = 0
    retry_after_s: int = 0
    answer_lost: bool = False
    """It is carried out, and then nobody hears of it."""
    call_lost: bool = False
    """It never arrives."""
    garbled: str = ""
    """It never arrives, and this is the answer."""
    times: int = 1
    skip: int = 0
    """So many calls that match go through first."""

    def fits(self, service: str, operation: str, region: str) -> bool:
        return (
            (self.operation == operation or (not self.operation and service == "ec2"))
            and self.region in ("", region)
            and self.times > 0
        )


@dataclass(slots=True, kw_only=True)
class Faults:
    """All planned faults, and what was called."""

    planned: list[Fault] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    """Regions that close every connection."""
    latency_s: dict[str, float] = field(default_factory=dict)
    """By region; `*` = all."""
    calls: Counter[str] = field(default_factory=Counter)
    """By operation."""

    def next(self, service: str, operation: str, region: str) -> Fault | None:
        """The fault of this call, which uses it up."""
        for fault in self.planned:
            if fault.fits(service, operation, region):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def delay_s(self, region: str) -> float:
        """How long an answer waits."""
        return self.latency_s.get(region, self.latency_s.get("*", 0.0))
