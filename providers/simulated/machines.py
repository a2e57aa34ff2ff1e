"""One VM of the simulated cloud: its whole life as times, so its state is only a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from control_plane.core.model import Offer
from control_plane.ports import BootSettings


@dataclass(slots=True, kw_only=True)
class Vm:
    """A VM as the cloud knows it. What has not been decided yet lies at None."""

    provider_id: str
    key: str
    machine_id: str
    fleet: str
    offer: Offer
    """As it was sold: its price holds for the whole life where prices are locked."""
    boot: BootSettings
    deadline: datetime
    created_at: datetime
    listed_at: datetime
    """From when listings show it."""
    running_at: datetime
    booted_at: datetime | None
    """When its start-up text is through; None = never."""
    notice_at: datetime | None = None
    """From when an interruption is announced inside the VM."""
    taken_at: datetime | None = None
    """When the cloud takes it back."""
    stopping_at: datetime | None = None
    """When somebody ended it."""
    stopped_at: datetime | None = None
    """When that end is done."""
    ended_by: str = ""
    """`user` or `self`, for an end that somebody asked for."""
    limit_at: datetime | None = None
    """When the cloud's own life limit ends it."""

    def gone_at(self) -> datetime | None:
        """When it is (or will be) gone, as far as that is decided."""
        ends = [end for end in (self.taken_at, self.stopped_at, self.limit_at) if end is not None]
        return min(ends, default=None)

    def state(self, now: datetime) -> str:
        """`pending`, `running`, `stopping` or `gone`, as a listing says it."""
        gone_at = self.gone_at()
        if gone_at is not None and gone_at <= now:
            return "gone"
        if self.stopping_at is not None and self.stopping_at <= now:
            return "stopping"
        return "pending" if now < self.running_at else "running"

    def alive(self, now: datetime) -> bool:
        """Whether it exists and costs money."""
        return self.created_at <= now and self.state(now) != "gone"

    def up(self, now: datetime) -> bool:
        """Whether an agent would run on it."""
        return self.state(now) == "running" and self.booted_at is not None and self.booted_at <= now

    def end_reason(self) -> str:
        """What the cloud says of its end: `interrupted`, `self`, `user` or empty."""
        gone_at = self.gone_at()
        if gone_at is not None and gone_at == self.taken_at:
            return "interrupted"
        if gone_at is not None and gone_at == self.stopped_at:
            return self.ended_by
        return ""

    def stop(self, now: datetime, *, by: str, takes: timedelta) -> None:
        """Begin to end it; a repeat changes nothing."""
        if self.stopping_at is None:
            self.stopping_at, self.stopped_at, self.ended_by = now, now + takes, by


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptionNotice:
    """What a VM can read of its own end."""

    provider_id: str
    machine_id: str
    taken_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """What one VM has cost so far."""

    provider_id: str
    machine_id: str
    started_at: datetime
    until: datetime
    cost_usd: Decimal
