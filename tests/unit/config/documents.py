"""Documents for the tests of this folder."""

from __future__ import annotations

from decimal import Decimal

from control_plane.config.load import load_text
from control_plane.core.model import Capacity, Market, Offer
from control_plane.core.policy import Autoscaler

HEAD = "apiVersion: orchctl/v1\nkind: Autoscaler\nname: research\n"


def document(pool: str = "", *, queue: str = "", rest: str = "") -> str:
    """One queue on one L4 pool in aws us-east-1, with more lines where a test needs them."""
    return (
        f"{HEAD}queues:\n  default: {{pools: [l4]{queue}}}\n"
        f"pools:\n  l4:\n    gpu: L4:1\n    clouds: {{aws: {{regions: [us-east-1]}}}}\n"
        f"{pool}{rest}"
    )


def policy(pool: str = "", *, queue: str = "", rest: str = "") -> Autoscaler:
    """The same, loaded."""
    return load_text(document(pool, queue=queue, rest=rest))


def offer(
    price: str,
    *,
    provider: str = "aws",
    region: str = "us-east-1",
    gpu: str = "L4",
    gpus: int = 1,
    cpus: int = 4,
    market: Market = Market.ON_DEMAND,
    instance_type: str = "g6.xlarge",
) -> Offer:
    return Offer(
        provider=provider,
        region=region,
        zone="",
        instance_type=instance_type,
        capacity=Capacity(
            gpus=gpus,
            gpu_name=gpu,
            gpu_memory_gib=24 if gpus else 0,
            cpus=cpus,
            memory_mib=16_384,
            market=market,
        ),
        price_usd_hour=Decimal(price),
    )
