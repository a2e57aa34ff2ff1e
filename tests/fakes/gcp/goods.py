"""What is sold where: machine types, GPUs, zones, regions with their quotas, and Spot advice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.discovery import Json, invalid
from tests.fakes.gcp.listings import Call, Handler, everywhere, in_project, in_zone, one, zone_of
from tests.fakes.gcp.machines import ROOT, stamp
from tests.fakes.gcp.stock import QUOTA_NAMES, Kind, region_of

_UNLIMITED = 1_000_000.0


def kinds_of(cloud: GcpCloud, zone: str) -> Mapping[str, Kind]:
    """The machine types that a zone sells today."""
    sold = cloud.stock.kinds[zone].items()
    return {name: kind for name, kind in sold if (zone, name) not in cloud.withdrawn}


def attachable_in(cloud: GcpCloud, zone: str) -> frozenset[str]:
    """The GPUs that a zone adds to an N1 today."""
    sold = cloud.stock.attachable.get(zone, frozenset())
    return frozenset(name for name in sold if (zone, name) not in cloud.withdrawn)


def _machine_types(cloud: GcpCloud, call: Call) -> list[Json]:
    zones = [zone_of(cloud, call)] if "zone" in call.path else sorted(cloud.stock.kinds)
    shown = []
    for zone in zones:
        base = f"{ROOT}projects/{call.path['project']}/zones/{zone}/machineTypes"
        for number, kind in enumerate(kinds_of(cloud, zone).values(), 1000):
            gpus = [
                {
                    "guestAcceleratorType": kind.accelerator,
                    "guestAcceleratorCount": kind.accelerators,
                }
            ]
            shown.append(
                {
                    "kind": "compute#machineType",
                    "id": str(number),
                    "name": kind.name,
                    "guestCpus": kind.cpus,
                    "memoryMb": kind.memory_mb,
                    "zone": zone,
                    "selfLink": f"{base}/{kind.name}",
                    **({"accelerators": gpus} if kind.accelerators else {}),
                }
            )
    return shown


def _accelerator_types(cloud: GcpCloud, call: Call) -> list[Json]:
    zones = [zone_of(cloud, call)] if "zone" in call.path else sorted(cloud.stock.kinds)
    base = f"{ROOT}projects/{call.path['project']}/zones"
    return [
        {
            "kind": "compute#acceleratorType",
            "id": str(number),
            "name": name,
            "maximumCardsPerInstance": 8,
            "zone": zone,
            "selfLink": f"{base}/{zone}/acceleratorTypes/{name}",
        }
        for zone in zones
        for number, name in enumerate(sorted(_accelerators(cloud, zone)), 2000)
    ]


def _accelerators(cloud: GcpCloud, zone: str) -> set[str]:
    built_in = {kind.accelerator for kind in kinds_of(cloud, zone).values()} - {""}
    return built_in | attachable_in(cloud, zone)


def _zones(cloud: GcpCloud, call: Call) -> list[Json]:
    base = f"{ROOT}projects/{call.path['project']}"
    return [
        {
            "kind": "compute#zone",
            "id": str(number),
            "name": zone,
            "status": "UP",
            "region": f"{base}/regions/{region_of(zone)}",
            "selfLink": f"{base}/zones/{zone}",
        }
        for number, zone in enumerate(sorted(cloud.stock.kinds), 3000)
    ]


def _regions(cloud: GcpCloud, call: Call) -> list[Json]:
    base = f"{ROOT}projects/{call.path['project']}"
    return [
        {
            "kind": "compute#region",
            "id": str(number),
            "name": region,
            "status": "UP",
            "zones": [f"{base}/zones/{zone}" for zone in zones],
            "quotas": _quotas(cloud, region),
            "selfLink": f"{base}/regions/{region}",
        }
        for number, (region, zones) in enumerate(cloud.stock.regions().items(), 4000)
    ]


def _quotas(cloud: GcpCloud, region: str) -> list[Json]:
    gpus = [name for name in QUOTA_NAMES.values() if name != "NVIDIA_H100_GPUS"]
    # H100 on demand has no metric among these; only its preemptible one is listed.
    names = ["CPUS", "PREEMPTIBLE_CPUS", *gpus, *(f"PREEMPTIBLE_{n}" for n in QUOTA_NAMES.values())]
    return [
        {"metric": name, "limit": cloud.quotas.get((region, name), _UNLIMITED), "usage": 0.0}
        for name in names
    ]


def _get_region(cloud: GcpCloud, call: Call) -> Json:
    cloud.heard(call.path["region"])
    return one(_regions, "region")(cloud, call)


def _get_project(cloud: GcpCloud, call: Call) -> Json:
    limit = cloud.quotas.get(("", "GPUS_ALL_REGIONS"), _UNLIMITED)
    quota = {"metric": "GPUS_ALL_REGIONS", "limit": limit, "usage": 0.0}
    return {"kind": "compute#project", "name": call.path["project"], "quotas": [quota]}


def _capacity_history(cloud: GcpCloud, call: Call) -> Json:
    """The spot price in force of one machine type in one zone."""
    cloud.heard(call.path["region"])
    asked = call.body.get("instanceProperties", {})
    kind, zone = asked.get("machineType", ""), call.body.get("locationPolicy", {}).get("location")
    zone = str(zone or "").rpartition("/")[2]
    if kind not in cloud.stock.kinds.get(zone, {}):
        raise invalid("resource.instanceProperties.machineType", kind, f"Not sold in '{zone}'.")
    if asked.get("scheduling", {}).get("provisioningModel") != "SPOT":
        raise invalid("resource.instanceProperties.scheduling", asked, "Only SPOT has a history.")
    price = cloud.spot_usd.get((zone, kind)) or cloud.stock.spot_usd.get((zone, kind))
    answered: Json = {"location": f"zones/{zone}", "machineType": kind}
    if price and "PRICE" in call.body.get("types", []):
        began = cloud.clock.now() - timedelta(days=1)
        last = {"listPrice": _money(price), "interval": {"startTime": stamp(began)}}
        older = {
            "listPrice": _money("9.99"),
            "interval": {"startTime": stamp(began - timedelta(days=30)), "endTime": stamp(began)},
        }
        answered["priceHistory"] = [last, older]
    return answered


def _money(usd: str) -> Json:
    units, _, rest = usd.partition(".")
    nanos = int(Decimal("0." + (rest or "0")) * 1_000_000_000)
    return {"currencyCode": "USD", "units": units, "nanos": nanos}


def _capacity_advice(cloud: GcpCloud, call: Call) -> Json:
    """A score for each zone: 1 where there is room, 0 where not is not told; here always 0.9."""
    del cloud
    size = call.body.get("size", 1)
    zone = f"zones/{call.path['region']}-a"
    kinds = call.body.get("instanceFlexibilityPolicy", {}).get("instanceSelections", {})
    names = [name for each in kinds.values() for name in each.get("machineTypes", [])] or [""]
    shard = {
        "instanceCount": size,
        "machineType": names[0],
        "provisioningModel": "SPOT",
        "zone": zone,
    }
    return {"recommendations": [{"scores": {"obtainability": 0.9}, "shards": [shard]}]}


METHODS: dict[str, Handler] = {
    "machineTypes.get": one(_machine_types, "machineType"),
    "machineTypes.list": in_zone(_machine_types, "MachineType"),
    "machineTypes.aggregatedList": everywhere(_machine_types, "machineTypes", "MachineType"),
    "acceleratorTypes.get": one(_accelerator_types, "acceleratorType"),
    "acceleratorTypes.list": in_zone(_accelerator_types, "AcceleratorType"),
    "acceleratorTypes.aggregatedList": everywhere(
        _accelerator_types, "acceleratorTypes", "AcceleratorType"
    ),
    "zones.get": one(_zones, "zone"),
    "zones.list": in_project(_zones, "Zone"),
    "regions.get": _get_region,
    "regions.list": in_project(_regions, "Region"),
    "projects.get": _get_project,
    "advice.capacity": _capacity_advice,
    "advice.capacityHistory": _capacity_history,
}
