"""The methods of `instances`, `regionInstances` and the operations that these make."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from tests.fakes.gcp.checks import check_insert, check_request_id
from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.discovery import ApiError, Json, invalid
from tests.fakes.gcp.goods import attachable_in, kinds_of
from tests.fakes.gcp.listings import Call, Handler, aggregated, by_name, page_of, zone_of
from tests.fakes.gcp.machines import ROOT, Vm
from tests.fakes.gcp.operations import Operation, Refusal
from tests.fakes.gcp.stock import QUOTA_NAMES, Kind

REQUEST_ID_KEPT = timedelta(minutes=60)


def _insert(cloud: GcpCloud, call: Call) -> Json:
    zone = zone_of(cloud, call)
    cloud.heard(zone)
    now, request_id = cloud.settle(), call.query.get("requestId", "")
    if request_id:
        check_request_id(request_id)
        if known := _replayed(cloud, call, request_id, now):
            return known.view(now)
    operation = _make(cloud, call, zone, call.body, now)
    if request_id:
        key = call.path["project"], request_id
        cloud.requests[key] = (json.dumps(call.body, sort_keys=True), operation, now)
    return cloud.operations[operation.name].view(now)


def _replayed(cloud: GcpCloud, call: Call, request_id: str, now: datetime) -> Operation | None:
    known = cloud.requests.get((call.path["project"], request_id))
    if known is None or now - known[2] > REQUEST_ID_KEPT:
        return None
    if known[0] != json.dumps(call.body, sort_keys=True):
        raise invalid("requestId", request_id, "It was used for another request.")
    return cloud.operations[known[1].name]


def _make(cloud: GcpCloud, call: Call, zone: str, body: Json, now: datetime) -> Operation:
    project, name = call.path["project"], body["name"]
    for word, there in (("instances", cloud.vms), ("disks", cloud.disks)):
        if (project, zone, name) in there:
            link = f"projects/{project}/zones/{zone}/{word}/{name}"
            raise ApiError(409, "alreadyExists", f"The resource '{link}' already exists")
    kinds = kinds_of(cloud, zone)
    check_insert(body, zone, kinds, attachable_in(cloud, zone), now)
    seconds, code = cloud.slow_inserts.pop(0) if cloud.slow_inserts else (cloud.operation_s, "")
    vm = Vm(
        project=project,
        zone=zone,
        name=name,
        number=cloud.number(),
        body=body,
        created_at=now,
        listed_at=now + timedelta(seconds=cloud.lag_s),
        made_at=now + timedelta(seconds=seconds),
    )
    refusal = _refusal(cloud, call, vm, kinds[vm.kind], code)
    operation = cloud.operate(project, f"zones/{zone}", "insert", vm.link, call.user, seconds)
    cloud.vms[project, zone, name] = vm
    if refusal is not None:
        _fail(cloud, vm, refusal, operation)
    return operation


def _fail(cloud: GcpCloud, vm: Vm, refusal: Refusal, operation: Operation) -> None:
    """Until its operation is done, a VM that will come to nothing looks like any other."""
    cloud.refuse(operation, refusal)
    vm.leaves_disk = cloud.leaving_disks > 0
    cloud.leaving_disks = max(0, cloud.leaving_disks - 1)
    vm.end(vm.made_at, takes_s=0, deletes=True)
    cloud.settle()


def _refusal(cloud: GcpCloud, call: Call, vm: Vm, kind: Kind, code: str) -> Refusal | None:
    if call.fault is not None:
        return Refusal(code=call.fault.code, message=call.fault.message)
    if code:
        return Refusal(code=code, message=f"{code} by script")
    if refusal := _over_quota(cloud, vm, kind):
        return refusal
    if not cloud.room(vm):
        message = (
            f"The zone 'projects/{vm.project}/zones/{vm.zone}' does not have enough resources "
            "available to fulfill the request."
        )
        return Refusal(code="ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", message=message)
    return None


def _over_quota(cloud: GcpCloud, vm: Vm, kind: Kind) -> Refusal | None:
    """The quota that one more VM would break: at once as a 403, or inside the operation."""
    for (region, metric), limit in cloud.quotas.items():
        used = (_uses(each, cloud, metric) for each in cloud.vms.values() if _in(each, region))
        wanted = _uses(vm, cloud, metric) if _in(vm, region) else 0
        if not wanted or sum(used) + wanted <= limit:
            continue
        where = f"in region {region}" if region else "globally"
        message = f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {where}."
        if not cloud.quota_in_operation:
            raise ApiError(403, "quotaExceeded", message)
        return Refusal(code="QUOTA_EXCEEDED", message=message, quota_limit=limit)
    return None


def _in(vm: Vm, region: str) -> bool:
    return region in ("", vm.region)


def _uses(vm: Vm, cloud: GcpCloud, metric: str) -> int:
    kind = cloud.stock.kinds[vm.zone][vm.kind]
    if metric == ("PREEMPTIBLE_CPUS" if vm.spot else "CPUS"):
        return kind.cpus
    gpus = {kind.accelerator: kind.accelerators} if kind.accelerator else {}
    for each in vm.body.get("guestAccelerators", []):
        gpus[each["acceleratorType"].rpartition("/")[2]] = each["acceleratorCount"]
    prefix = "PREEMPTIBLE_" if vm.spot else ""
    named = {prefix + QUOTA_NAMES.get(gpu, gpu): count for gpu, count in gpus.items()}
    return sum(gpus.values()) if metric == "GPUS_ALL_REGIONS" else named.get(metric, 0)


def _bulk_insert(cloud: GcpCloud, call: Call) -> Json:
    """Several VMs at once: `perInstanceProperties` names them, or `namePattern` with a count."""
    now, asked = cloud.settle(), call.body
    zones = [call.path["zone"]] if "zone" in call.path else _wanted_zones(cloud, call)
    count = int(asked.get("count", "1"))
    names = sorted(asked.get("perInstanceProperties", {}))
    if not names:
        head, _, width = _pattern(asked)
        names = [f"{head}{number:0{width}d}" for number in range(1, count + 1)]
    place = f"zones/{zones[0]}" if "zone" in call.path else f"regions/{call.path['region']}"
    target = f"{ROOT}projects/{call.path['project']}/{place}/instances"
    whole = cloud.operate(call.path["project"], place, "bulkInsert", target, call.user, 0)
    for zone in zones:
        made = [_one_of_many(cloud, call, zone, name, now) for name in names]
        if sum(made) >= int(asked.get("minCount", count)):
            return whole.view(now)
        for name, good in zip(names, made, strict=True):
            if good:
                cloud.vms.pop((call.path["project"], zone, name))
    if "region" in call.path:
        raise ApiError(503, "insufficientCapacity", f"No room in regions/{call.path['region']}")
    refusal = Refusal(code="ZONE_RESOURCE_POOL_EXHAUSTED", message=f"No room in {zones[0]}")
    return cloud.refuse(whole, refusal).view(now)


def _one_of_many(cloud: GcpCloud, call: Call, zone: str, name: str, now: datetime) -> bool:
    properties = json.loads(json.dumps(call.body["instanceProperties"]))
    kind = properties["machineType"].rpartition("/")[2]
    body = properties | {"name": name, "machineType": f"zones/{zone}/machineTypes/{kind}"}
    return cloud.operations[_make(cloud, call, zone, body, now).name].refusal is None


def _pattern(asked: Json) -> tuple[str, str, int]:
    head, marks, tail = (asked.get("namePattern", "")).partition("#")
    if not marks or tail.strip("#"):
        raise invalid("resource.namePattern", asked.get("namePattern"), "Such as `vm-####`.")
    return head, marks, len(tail) + 1


def _wanted_zones(cloud: GcpCloud, call: Call) -> Sequence[str]:
    policy = call.body.get("locationPolicy", {}).get("locations", {})
    denied = {
        key.rpartition("/")[2] for key, each in policy.items() if each.get("preference") == "DENY"
    }
    return [zone for zone in cloud.stock.regions()[call.path["region"]] if zone not in denied]


def _get(cloud: GcpCloud, call: Call) -> Json:
    return _vm(cloud, call).view(cloud.clock.now())


def _delete(cloud: GcpCloud, call: Call) -> Json:
    vm = _vm(cloud, call)
    now = cloud.clock.now()
    if vm.made_at > now:
        raise ApiError(400, "resourceNotReady", f"The resource '{vm.name}' is not ready")
    return cloud.delete(vm, call.user).view(now)


def _stop(cloud: GcpCloud, call: Call) -> Json:
    return cloud.stop(_vm(cloud, call), call.user).view(cloud.clock.now())


def _simulate_maintenance(cloud: GcpCloud, call: Call) -> Json:
    vm = _vm(cloud, call)
    kind = "compute.instances.simulateMaintenanceEvent"
    place = f"zones/{vm.zone}"
    made = cloud.operate(vm.project, place, kind, vm.link, call.user, 0)
    if vm.spot:
        cloud.preempt(vm.name)
    return made.view(cloud.clock.now())


def _vm(cloud: GcpCloud, call: Call) -> Vm:
    zone = zone_of(cloud, call)
    cloud.heard(zone)
    cloud.settle()
    path = call.path
    vm = cloud.vms.get((path["project"], zone, path["instance"]))
    if vm is None:
        link = f"projects/{path['project']}/zones/{zone}/instances/{path['instance']}"
        raise ApiError(404, "notFound", f"The resource '{link}' was not found")
    return vm


def _list_instances(cloud: GcpCloud, call: Call) -> Json:
    zone = zone_of(cloud, call)
    cloud.heard(zone)
    now = cloud.settle()
    mine = [vm for vm in shown(cloud, call, now) if vm.zone == zone]
    page = page_of([vm.view(now) for vm in mine], call, "Instance", by_name)
    return {"kind": "compute#instanceList", "id": zone, "items": page.items} | page.token


def _aggregated_instances(cloud: GcpCloud, call: Call) -> Json:
    now = cloud.settle()
    views = [vm.view(now) for vm in shown(cloud, call, now)]
    return aggregated(cloud, call, views, "instances", "Instance")


def shown(cloud: GcpCloud, call: Call, now: datetime) -> Iterable[Vm]:
    """What listings show: with a lag, and not where a place is silent."""
    return (
        vm
        for vm in cloud.vms.values()
        if vm.project == call.path["project"] and vm.listed_at <= now
    )


def _get_operation(cloud: GcpCloud, call: Call) -> Json:
    place = call.path.get("zone") or call.path["region"]
    cloud.heard(place)
    found = cloud.operations.get(call.path["operation"])
    if found is None or found.zone != place or found.project != call.path["project"]:
        raise ApiError(404, "notFound", f"The resource '{call.path['operation']}' was not found")
    return found.view(cloud.clock.now())


def _list_operations(cloud: GcpCloud, call: Call) -> Json:
    zone = zone_of(cloud, call)
    cloud.heard(zone)
    now = cloud.settle()
    mine = (
        each.view(now)
        for each in reversed(cloud.operations.values())
        if each.zone == zone and each.project == call.path["project"]
    )
    # Newest first or by name; a name of ours grows with time.
    newest_first = call.query.get("orderBy") == "creationTimestamp desc"
    page = page_of(mine, call, "Operation", None if newest_first else by_name)
    return {"kind": "compute#operationList", "id": zone, "items": page.items} | page.token


METHODS: dict[str, Handler] = {
    "instances.insert": _insert,
    "instances.bulkInsert": _bulk_insert,
    "regionInstances.bulkInsert": _bulk_insert,
    "instances.get": _get,
    "instances.delete": _delete,
    "instances.stop": _stop,
    "instances.simulateMaintenanceEvent": _simulate_maintenance,
    "instances.list": _list_instances,
    "instances.aggregatedList": _aggregated_instances,
    "zoneOperations.get": _get_operation,
    "zoneOperations.wait": _get_operation,
    "zoneOperations.list": _list_operations,
    "regionOperations.get": _get_operation,
}
