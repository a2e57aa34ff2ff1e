"""The document as people write it: its maps and their fields, and how it becomes policy.

Defaults live in `core.policy` alone: a field that is not written is not passed on. Everything here
forbids unknown fields. What needs two places of the document at once is checked in `cross.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from control_plane.config.fields import (
    AlertOn,
    AwsImage,
    AzureId,
    AzureImage,
    Count,
    CountRange,
    Cron,
    Day,
    Disk,
    Duration,
    GcpAccount,
    GcpPath,
    Gpu,
    Hour,
    Limit,
    Market,
    MemoryRange,
    Month,
    Name,
    Option,
    PriceHour,
    Priority,
    Region,
    Secret,
    Some,
    TimeZone,
    one_of,
)
from control_plane.core.policy import (
    Alert,
    AtLimit,
    Autoscaler,
    Budget,
    CloudPolicy,
    MarketPolicy,
    PoolPolicy,
    QueuePolicy,
    Range,
    Window,
)

API_VERSION = "orchctl/v1"


def optional(description: str, **more: Any) -> Any:
    """A field that may be left out. Its None only says so: written as nothing, it is refused."""
    return Field(default=None, description=description, **more)


def _nothing_is_empty(value: object) -> object:
    """`local:` with nothing behind it says the same as `local: {}`."""
    return {} if value is None else value


_ONE_PLACE = BeforeValidator(_nothing_is_empty)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def given(
        self, names: Mapping[str, str], values: Mapping[str, Callable[[Any], Any]] | None = None
    ) -> dict[str, Any]:
        """The fields the document has, under the policy's `names` and as its `values`."""
        return {
            names.get(field, field): (values or {}).get(field, _same)(getattr(self, field))
            for field in sorted(self.model_fields_set)
        }


def _same(value: Any) -> Any:
    return value


class QueueDoc(_Part):
    """A queue: which pools serve it, and how."""

    pools: list[str] = Field(min_length=1, description="Pools that serve it, preferred first.")
    priority: Priority = optional("Between queues: higher first.")
    launch_after: Duration = optional(
        "How long a job waits for a running machine before one is bought for it.",
    )
    jobs_per_machine: Some = optional(
        "Jobs side by side on one machine; unset = what stated resources allow.",
    )
    ageing: Duration = optional("A waiting job gains a step of priority each time it waits this.")
    max_running: Some = optional("Jobs of it that run at a time at most.")
    max_running_per_owner: Some = optional("Jobs of any one owner that run at a time at most.")

    def policy(self, name: str) -> QueuePolicy:
        names = {"launch_after": "launch_after_s", "ageing": "ageing_s"}
        return QueuePolicy(name=name, **self.given(names, {"pools": tuple}))


class OnePlaceDoc(_Part):
    """A provider without regions."""


class SimulatedDoc(_Part):
    """The simulated cloud; no regions = all of it."""

    regions: list[Region] = optional("Regions to buy in.", min_length=1)


class AwsDoc(_Part):
    """Amazon Web Services."""

    regions: list[Region] = Field(
        min_length=1, description="Regions to buy in.", examples=[["us-east-1"]]
    )
    subnets: list[Option] = optional(
        "Subnets to use, of any regions; unset = the default ones of the default VPC.",
        min_length=1,
        examples=[["subnet-0abc1234def567890"]],
    )
    security_groups: list[Option] = optional(
        "Security groups, by id, of any regions; unset = the default one of the VPC.",
        min_length=1,
        examples=[["sg-0abc1234def567890"]],
    )
    instance_profile: Option = optional(
        "The machines' instance profile, by name or ARN: how they prove who they are; unset = "
        "`orchctl-machine`.",
        examples=["orchctl-machine"],
    )
    role: Option = optional(
        "The role of that profile; unset = it has the same name.", examples=["orchctl-machine"]
    )
    image: AwsImage = optional(
        "The image, by id or as an SSM parameter; unset = one with NVIDIA's driver.",
        examples=["ami-0abc1234def567890"],
    )
    public_ip: bool = optional(
        "Whether machines have an address of their own on the internet; unset = as their subnet "
        "says."
    )
    life_limit_role: Option = optional(
        "The role, by ARN, by which EventBridge Scheduler ends a machine at its deadline though "
        "nobody else does; unset = no schedules are made.",
        examples=["arn:aws:iam::123456789012:role/orchctl-life-limit"],
    )


class GcpDoc(_Part):
    """Google Cloud."""

    regions: list[Region] = Field(
        min_length=1, description="Regions to buy in.", examples=[["us-central1"]]
    )
    project: Option = Field(description="The project that pays.", examples=["acme-ml"])
    network: GcpPath = optional("The VPC network; unset = `default`.", examples=["ml-net"])
    subnetwork: GcpPath = optional(
        "The subnetwork, by name or full path; `{region}` in it stands for the region.",
        examples=["projects/acme-net/regions/{region}/subnetworks/gpu"],
    )
    service_account: GcpAccount = optional(
        "The machines' own account; unset = the project's default one, without rights.",
        examples=["agents@acme-ml.iam.gserviceaccount.com"],
    )
    image: GcpPath = optional(
        "The boot image or image family, as a full path; unset = one with NVIDIA's driver.",
        examples=["projects/acme-ml/global/images/family/gpu"],
    )
    public_ip: bool = optional(
        "Whether machines have an address of their own on the internet; unset = they have."
    )


class AzureDoc(_Part):
    """Microsoft Azure."""

    regions: list[Region] = Field(
        min_length=1, description="Regions to buy in.", examples=[["eastus"]]
    )
    resource_group: Option = Field(
        description="The resource group machines are made in.", examples=["orchctl"]
    )
    subscription: Option = optional("Subscription id; unset = the one of the credentials.")
    subnet: AzureId = optional(
        "The subnet, by resource id; `{region}` in it stands for the region; unset = `default` of "
        "the virtual network `orchctl-{region}` in the resource group.",
        examples=[
            "/subscriptions/0000/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/"
            "ml-{region}/subnets/gpu"
        ],
    )
    network_security_group: AzureId = optional(
        "The security group of their network interfaces, by resource id, with `{region}` as above; "
        "unset = the subnet's rules alone."
    )
    identity: AzureId = optional(
        "The machines' user-assigned identity, by resource id: with the right to delete itself, a "
        "machine ends without the control plane."
    )
    image: AzureImage = optional(
        "The image, as `publisher:offer:sku:version` or by resource id; unset = one with NVIDIA's "
        "driver.",
        examples=["microsoft-dsvm:ubuntu-hpc:2204:latest"],
    )
    public_ip: bool = optional(
        "Whether machines have an address of their own on the internet; unset = they have."
    )


class CloudsDoc(_Part):
    """Where machines may be bought."""

    local: Annotated[OnePlaceDoc, _ONE_PLACE] = optional(
        "This very computer: machines are processes."
    )
    simulated: Annotated[SimulatedDoc, _ONE_PLACE] = optional(
        "The simulated cloud, for trying things out."
    )
    aws: AwsDoc = optional("Amazon Web Services.")
    gcp: GcpDoc = optional("Google Cloud.")
    azure: AzureDoc = optional("Microsoft Azure.")

    def policies(self) -> tuple[CloudPolicy, ...]:
        written = ((name, part) for name, part in self if name in self.model_fields_set)
        return tuple(_cloud(name, part) for name, part in written)


class MachinesDoc(_Part):
    """How many machines a pool may keep."""

    min: Count = optional("Kept even when nothing waits.")
    max: Count = optional("Never more than this.")


class WarmDoc(_Part):
    """A time in which machines are kept although nothing waits."""

    cron: Cron = Field(description="When the window opens, five fields.")
    duration: Duration = Field(alias="for", description="How long it stays open.")
    timezone: TimeZone = optional("The zone the cron line is read in.")
    machines: Some = Field(description="Machines to keep.")


class ClosedDoc(_Part):
    """A time in which nothing is launched; running jobs finish."""

    cron: Cron = Field(description="When the window opens, five fields.")
    duration: Duration = Field(alias="for", description="How long it stays open.")
    timezone: TimeZone = optional("The zone the cron line is read in.")


class PoolDoc(_Part):
    """A kind of machine."""

    gpu: Gpu = optional("Model, memory per card, cards per machine; unset = no GPU.")
    cpu: CountRange = optional("Virtual CPUs per machine.")
    memory: MemoryRange = optional("Main memory per machine.")
    disk: Disk = optional("Size of the root disk.")
    clouds: CloudsDoc = Field(description="Where machines may be bought.")
    market: Market = optional("Spot, on-demand, or spot where it is to be had.")
    max_price: PriceHour = optional("The most one machine may cost per hour.")
    machines: MachinesDoc = optional("How many machines there may be.")
    gpus_max: Count = optional("How many GPUs all its machines may have.")
    idle_timeout: Duration = optional("A machine with nothing to do ends after this.")
    boot_timeout: Duration = optional("A machine whose agent has not reported by then is ended.")
    max_lifetime: Duration = optional("No machine lives longer than this.")
    warm: list[WarmDoc] = optional("Times in which machines are kept.")
    closed: list[ClosedDoc] = optional("Times in which none is launched.")

    def policy(self, name: str) -> PoolPolicy:
        return PoolPolicy(name=name, **self.given(_POOL_NAMES, _POOL_VALUES))


class BudgetDoc(_Part):
    """Caps on money."""

    hour: Hour = optional("All machines together, per hour.")
    day: Day = optional("Per day, UTC.")
    month: Month = optional("Per month, UTC.")
    at_limit: Limit = optional("hold: buy nothing more. drain: also end machines as jobs end.")

    def policy(self) -> Budget:
        names = {"hour": "hour_usd", "day": "day_usd", "month": "month_usd"}
        return Budget(**self.given(names, {"at_limit": AtLimit}))


class AlertDoc(_Part):
    """Whom to tell about what."""

    slack: Secret = optional("A Slack webhook, as a secret reference.")
    webhook: Secret = optional("An HTTPS address, as a secret reference.")
    on: list[AlertOn] = Field(min_length=1, description="What to tell about.")

    def policy(self) -> Alert:
        channel = "slack" if "slack" in self.model_fields_set else "webhook"
        return Alert(channel=channel, target=getattr(self, channel), on=tuple(self.on))


class AutoscalerDoc(_Part):
    """The document that `orchctl autoscaler apply` takes."""

    api_version: Annotated[
        str,
        one_of("an apiVersion of this program", API_VERSION),
        WithJsonSchema({"const": API_VERSION}),
    ] = Field(alias="apiVersion")
    kind: Annotated[
        str, one_of("a kind of document", "Autoscaler"), WithJsonSchema({"const": "Autoscaler"})
    ]
    name: Name = Field(description="Its name on the server.")
    queues: dict[Name, QueueDoc] = Field(min_length=1, description="Queues by name.")
    pools: dict[Name, PoolDoc] = Field(min_length=1, description="Pools by name.")
    budget: BudgetDoc = optional("Caps on money.")
    alerts: list[AlertDoc] = optional("Whom to tell about what.")

    def policy(self) -> Autoscaler:
        """The frozen policy this document stands for."""
        return Autoscaler(
            name=self.name,
            queues={name: queue.policy(name) for name, queue in self.queues.items()},
            pools={name: pool.policy(name) for name, pool in self.pools.items()},
            budget=self.budget.policy() if self.budget else Budget(),
            alerts=tuple(alert.policy() for alert in self.alerts or ()),
        )


def _cloud(name: str, part: BaseModel) -> CloudPolicy:
    written = {field: getattr(part, field) for field in sorted(part.model_fields_set)}
    regions = tuple(written.pop("regions", ()))
    options = {field: _flat(value) for field, value in written.items()}
    return CloudPolicy(provider=name, regions=regions, options=options)


def _flat(value: object) -> str:
    """A setting as `CloudPolicy.options` holds it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else str(value)


def _machines(machines: MachinesDoc) -> Range:
    most = default_machines_max() if machines.max is None else machines.max
    return Range(low=machines.min or 0, high=most)


def default_machines_max() -> int:
    """How many machines a pool may keep when its document does not say."""
    return PoolPolicy(name="", clouds=()).machines_max


def _windows(windows: list[WarmDoc] | list[ClosedDoc]) -> tuple[Window, ...]:
    return tuple(Window(**window.given({"duration": "duration_s"})) for window in windows)


_POOL_NAMES = {
    "cpu": "cpus",
    "memory": "memory_mib",
    "disk": "disk_gib",
    "max_price": "max_price_usd_hour",
    "idle_timeout": "idle_timeout_s",
    "boot_timeout": "boot_timeout_s",
    "max_lifetime": "max_lifetime_s",
}
_POOL_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "clouds": CloudsDoc.policies,
    "market": MarketPolicy,
    "machines": _machines,
    "warm": _windows,
    "closed": _windows,
}


# --------------------------------------------------------------------------------- names


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A kind of place in the document, for errors."""

    pattern: tuple[str, ...]
    """Steps from the top; `*` = any name or number."""
    noun: str
    part: type[BaseModel]
    """Its fields."""

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(info.alias or name for name, info in self.part.model_fields.items())


PLACES = (
    Place(pattern=(), noun="an autoscaler", part=AutoscalerDoc),
    Place(pattern=("queues", "*"), noun="a queue", part=QueueDoc),
    Place(pattern=("pools", "*"), noun="a pool", part=PoolDoc),
    Place(pattern=("pools", "*", "clouds"), noun="`clouds`", part=CloudsDoc),
    Place(pattern=("pools", "*", "clouds", "local"), noun="`local`", part=OnePlaceDoc),
    Place(pattern=("pools", "*", "clouds", "simulated"), noun="`simulated`", part=SimulatedDoc),
    Place(pattern=("pools", "*", "clouds", "aws"), noun="`aws`", part=AwsDoc),
    Place(pattern=("pools", "*", "clouds", "gcp"), noun="`gcp`", part=GcpDoc),
    Place(pattern=("pools", "*", "clouds", "azure"), noun="`azure`", part=AzureDoc),
    Place(pattern=("pools", "*", "machines"), noun="`machines`", part=MachinesDoc),
    Place(pattern=("pools", "*", "warm", "*"), noun="a warm window", part=WarmDoc),
    Place(pattern=("pools", "*", "closed", "*"), noun="a closed window", part=ClosedDoc),
    Place(pattern=("budget",), noun="`budget`", part=BudgetDoc),
    Place(pattern=("alerts", "*"), noun="an alert", part=AlertDoc),
)
"""Every map of the document whose fields are fixed."""


def place_of(loc: tuple[str | int, ...]) -> Place | None:
    """The kind of place a location is, None where the keys are the user's own names."""
    for place in PLACES:
        if len(place.pattern) == len(loc) and all(
            want in ("*", step) for want, step in zip(place.pattern, loc, strict=True)
        ):
            return place
    return None
