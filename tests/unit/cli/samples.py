"""Nouns as the API would send them, made from the model itself so that fields cannot drift."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from control_plane.core.codec import to_json
from control_plane.core.model import (
    Capacity,
    Event,
    JobSpec,
    JobState,
    MachineState,
    Market,
    Need,
    Offer,
    Reason,
)
from orchctl.views import AutoscalerView, JobView, MachineView, QueueView

AT = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)


def job(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "id": "j-7k2m9",
        "queue": "default",
        "spec": JobSpec(command="python train.py", need=Need(gpus=1, gpu_name="L4", cpus=4)),
        "submitted_at": AT,
        "queued_at": AT,
        "position_in_queue": 3,
        "estimated_start_s": 100.0,
    }
    return to_json(JobView(**(values | changes)))


def ended(exit_code: int | None, state: JobState = JobState.FAILED, **changes: Any) -> Any:
    return job(
        state=state,
        exit_code=exit_code,
        started_at=AT,
        finished_at=AT,
        position_in_queue=None,
        **changes,
    )


def offer() -> Offer:
    return Offer(
        provider="aws",
        region="us-east-1",
        zone="us-east-1d",
        instance_type="g6.xlarge",
        capacity=Capacity(gpus=1, gpu_name="L4", gpu_memory_gib=24, market=Market.SPOT),
        price_usd_hour=Decimal("0.31"),
    )


def machine(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "id": "m-4d1xq",
        "autoscaler": "research",
        "pool": "l4",
        "state": MachineState.READY,
        "offers": (offer(),),
        "planned_at": AT,
        "busy": True,
        "jobs": ("j-7k2m9",),
        "price_usd_hour": Decimal("0.31"),
        "cost_usd": Decimal("1.2345"),
        "age_s": 3900.0,
        "launch_reason": Reason(code="demand", sentence="7 jobs wait in default"),
    }
    return to_json(MachineView(**(values | changes)))


def queue(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "name": "default",
        "autoscaler": "research",
        "pools": ("l4",),
        "waiting": 7,
        "running": 2,
        "oldest_wait_s": 240.0,
        "created_at": AT,
    }
    return to_json(QueueView(**(values | changes)))


def autoscaler(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "name": "example",
        "version": 4,
        "document": "kind: Autoscaler  # ours\n",
        "applied_at": AT,
        "applied_by": "ada",
    }
    return to_json(AutoscalerView(**(values | changes)))


def event(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "at": AT,
        "kind": "machine",
        "subject": "m-4d1xq",
        "text": "launched in us-east-1d",
        "seq": 7,
    }
    return to_json(Event(**(values | changes)))


def page(*items: Any, cursor: str = "") -> Any:
    return {"items": list(items), "cursor": cursor}


PREVIEW = {
    "changes": [
        {"path": "pools.l4.machines.max", "kind": "~", "old": "8", "new": "12"},
        {"path": "pools.l4.clouds.azure", "kind": "+", "old": "", "new": "eastus (3 offers)"},
    ],
    "worst_case_usd_hour": {"old": "9.66", "new": "14.49"},
    "budget_usd_hour": "20",
    "within_budget": True,
    "right_now": "7 jobs wait 4m in default -> would launch 3 machines",
    "findings": [
        {
            "severity": "warning",
            "code": "wide",
            "path": "pools.l4",
            "sentence": "3 regions are many",
        }
    ],
}

COSTS = {
    "rows": [
        {
            "group": {"queue": "default", "cloud": "aws"},
            "cost_usd": "12.50",
            "work_usd": "10.00",
            "idle_usd": "1.50",
            "boot_usd": "1.00",
            "on_demand_usd": "40.00",
            "saved_usd": "27.50",
            "machine_hours": "40.3",
            "job_count": 12,
        }
    ],
    "totals": {"group": {}, "cost_usd": "12.50", "saved_usd": "27.50", "job_count": 12},
    "series": [{"at": AT.isoformat(), "group": {}, "cost_usd": "12.50", "on_demand_usd": "40"}],
    "since": AT.isoformat(),
    "until": AT.isoformat(),
}
