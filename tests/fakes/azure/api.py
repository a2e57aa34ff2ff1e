"""The fake's answers: one function for each operation of the API, by its published name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from tests.fakes.azure import checks, specs, stock
from tests.fakes.azure.cloud import ArmError, AzureCloud, Group
from tests.fakes.azure.machines import Vm, part_shown

PRICE_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call, its address taken apart."""

    url: str
    """Of the server, without a path."""
    path: str
    names: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def group(self) -> str:
        return self.names.get("resourceGroupName", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    """The published model of the body, or of each item of a page."""
    text: str = ""
    """In place of a body."""


def answer(cloud: AzureCloud, name: str, request: Request) -> Answer:
    """Do what an operation asks. Raises `ArmError`."""
    handler = _HANDLERS.get(name)
    if handler is None:
        raise ArmError(501, "NotImplemented", f"the fake does not know {name}")
    with cloud.lock:
        cloud.settle()
        return handler(cloud, request)


def price_page(cloud: AzureCloud, request: Request) -> Answer:
    """The public price list. Raises `ArmError`."""
    known = {"api-version", "$filter", "$skip", "currencyCode"}
    if set(request.query) - known or "$filter" not in request.query:
        raise ArmError(400, "BadRequest", "unknown parameter")
    wanted = request.query["$filter"]
    region = wanted.partition("armRegionName eq '")[2].partition("'")[0]
    try:
        rows = stock.matching(stock.price_rows(region, cloud.prices), wanted)
    except (KeyError, ValueError) as error:
        raise ArmError(400, "BadRequest", f"Invalid OData parameters supplied: {error}") from error
    start = int(request.query.get("$skip", "0"))
    page = rows[start : start + PRICE_PAGE]
    following = None
    if start + PRICE_PAGE < len(rows):
        query = {**request.query, "$skip": str(start + PRICE_PAGE)}
        following = f"{request.url}{request.path}?{urlencode(query)}"
    body = {
        "BillingCurrency": "USD",
        "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail",
        "Items": page,
        "NextPageLink": following,
        "Count": len(page),
    }
    return Answer(body=body)


# ---------------------------------------------------------------------------------- machines


def _create(cloud: AzureCloud, request: Request) -> Answer:
    group, name = _group(cloud, request), request.names["vmName"]
    known = group.machines.get(name.lower())
    if known is not None and request.headers.get("if-none-match") == "*":
        raise ArmError(412, "PreconditionFailed", f"{name} exists")
    _refuse_wrong(cloud, group, name, request.body)
    if known is not None:
        known.body["tags"] = request.body.get("tags", {})
        return _vm(cloud, known)
    vm = cloud.make(group, name, request.body)
    headers = _going_on(cloud, request, vm, "create")
    return Answer(201, vm.shown(cloud.clock.now()), headers, "VirtualMachine")


def _going_on(cloud: AzureCloud, request: Request, vm: Vm, what: str) -> dict[str, str]:
    """Where the client can ask how it goes on: an address as long as Azure's signed ones."""
    name = f"{what}-{vm.number}"
    cloud.operations[name] = vm
    url = (
        f"{request.url}/subscriptions/{request.names['subscriptionId']}/providers"
        f"/Microsoft.Compute/locations/{vm.location}/operations/{name}"
        f"?api-version=2026-04-01&t=639000000000000000&c={'MII' + 'x' * 2000}"
    )
    return {"Azure-AsyncOperation": url, "Retry-After": "1"}


def _refuse_wrong(cloud: AzureCloud, group: Group, name: str, body: dict[str, Any]) -> None:
    if wrong := specs.wrong_in_machine(name, body) or checks.wrong_values(name, body):
        raise ArmError(400, "InvalidParameter", wrong)
    image = body["properties"]["storageProfile"]["imageReference"]
    written = ":".join(image.get(key, "") for key in ("publisher", "offer", "sku", "version"))
    if image.get("id", written).lower() not in cloud.images:
        raise ArmError(404, "PlatformImageNotFound", f"{image} was not found")
    for interface in body["properties"]["networkProfile"]["networkInterfaceConfigurations"]:
        for inside in interface["properties"]["ipConfigurations"]:
            subnet = inside["properties"]["subnet"]["id"]
            if subnet.lower() not in group.subnets:
                raise ArmError(
                    400,
                    "InvalidResourceReference",
                    f"Resource {subnet} referenced by resource {name} was not found.",
                )


def _get(cloud: AzureCloud, request: Request) -> Answer:
    return _vm(
        cloud, _machine(cloud, request), view="instanceView" in request.query.get("$expand", "")
    )


def _vm(cloud: AzureCloud, vm: Vm, *, view: bool = False) -> Answer:
    return Answer(body=vm.shown(cloud.clock.now(), view=view), model="VirtualMachine")


def _view(cloud: AzureCloud, request: Request) -> Answer:
    view = _machine(cloud, request).view(cloud.clock.now())
    return Answer(body=view, model="VirtualMachineInstanceView")


def _delete(cloud: AzureCloud, request: Request) -> Answer:
    vm = _group(cloud, request).machines.get(request.names["vmName"].lower())
    if vm is None:
        return Answer(204)
    cloud.begin_delete(vm, forced=request.query.get("forceDeletion") == "true")
    return Answer(202, headers=_going_on(cloud, request, vm, "delete"))


def _list(cloud: AzureCloud, request: Request) -> Answer:
    if "$expand" in request.query and "$filter" not in request.query:
        raise ArmError(400, "BadRequest", "$expand needs a $filter here")
    now = cloud.clock.now()
    before = now - timedelta(seconds=cloud.listing_lag_s)
    visible = [vm for vm in _group(cloud, request).machines.values() if vm.created_at <= before]
    return _page(cloud, request, visible, lambda vm: vm.shown(now, shouting=True), "VirtualMachine")


def _list_all(cloud: AzureCloud, request: Request) -> Answer:
    if not cloud.status_allowed:
        raise ArmError(403, "AuthorizationFailed", "does not have authorization over scope")
    if request.query.get("statusOnly") != "true":
        raise ArmError(501, "NotImplemented", "the fake lists a subscription by status only")
    now = cloud.clock.now()
    return _page(cloud, request, cloud.machines(), lambda vm: vm.status(now), "VirtualMachine")


def _simulate_eviction(cloud: AzureCloud, request: Request) -> Answer:
    vm = _machine(cloud, request)
    if vm.market != "spot":
        raise ArmError(409, "OperationNotAllowed", "only Spot virtual machines can be evicted")
    cloud.interrupt(vm.id)
    return Answer(204)


def _run_command(cloud: AzureCloud, request: Request) -> Answer:
    vm = _machine(cloud, request)
    if vm.power_state(cloud.clock.now()) != "running":
        raise ArmError(409, "OperationNotAllowed", "the machine does not run")
    status = {"code": "ProvisioningState/succeeded", "level": "Info", "message": "[stdout]\n"}
    return Answer(body={"value": [status]}, model="RunCommandResult")


def _operation(cloud: AzureCloud, request: Request) -> Answer:
    vm = cloud.operations.get(request.names["operation"])
    if vm is None:
        raise ArmError(404, "NotFound", "no such operation")
    name, now = request.names["operation"], cloud.clock.now()
    until = vm.gone_at if name.startswith("delete") else vm.ready_at
    status = "InProgress" if until and now < until else "Succeeded"
    if vm.failed(now) and name.startswith("create"):
        return Answer(body={"name": name, "status": "Failed", "error": vm.error})
    return Answer(body={"name": name, "status": status}, headers={"Retry-After": "1"})


# ------------------------------------------------------------------------------------- parts


def _disks(cloud: AzureCloud, request: Request) -> Answer:
    return _parts(cloud, request, "disks", "")


def _network(cloud: AzureCloud, request: Request) -> Answer:
    kind = request.names["kind"]
    return _parts(cloud, request, kind, f"network:{kind}")


def _parts(cloud: AzureCloud, request: Request, kind: str, model: str) -> Answer:
    group = _group(cloud, request)
    found = [part for (of_kind, _), part in group.parts.items() if of_kind == kind]
    return _page(cloud, request, found, lambda part: part_shown(group.id, part), model)


def _delete_disk(cloud: AzureCloud, request: Request) -> Answer:
    return _delete_part(cloud, request, "disks", 409, "OperationNotAllowed")


def _delete_network(cloud: AzureCloud, request: Request) -> Answer:
    kind = request.names["kind"]
    code = "NicInUse" if kind == "networkInterfaces" else "PublicIPAddressCannotBeDeleted"
    return _delete_part(cloud, request, kind, 400, code)


def _delete_part(cloud: AzureCloud, request: Request, kind: str, in_use: int, code: str) -> Answer:
    group = _group(cloud, request)
    part = group.parts.get((kind, request.names["name"].lower()))
    if part is None:
        return Answer(204)
    if part.owner:
        raise ArmError(in_use, code, f"{part.name} is attached to {part.owner}")
    group.remove_part(part)
    return Answer(202, headers={"Retry-After": "1"})


def _keys(cloud: AzureCloud, request: Request) -> Answer:
    found = list(_group(cloud, request).keys.values())
    return _page(cloud, request, found, lambda key: key, "SshPublicKeyResource")


def _get_key(cloud: AzureCloud, request: Request) -> Answer:
    name = request.names["sshPublicKeyName"]
    found = _group(cloud, request).keys.get(name.lower())
    if found is None:
        raise _not_found(request, "sshPublicKeys", name)
    return Answer(body=found, model="SshPublicKeyResource")


def _create_key(cloud: AzureCloud, request: Request) -> Answer:
    group, name = _group(cloud, request), request.names["sshPublicKeyName"]
    if wrong := specs.wrong_in_answer("SshPublicKeyResource", request.body):
        raise ArmError(400, "InvalidParameter", wrong)
    made = {
        **request.body,
        "id": f"{group.id}/providers/Microsoft.Compute/sshPublicKeys/{name}",
        "name": name,
        "type": "Microsoft.Compute/sshPublicKeys",
    }
    known = name.lower() in group.keys
    group.keys[name.lower()] = made
    return Answer(200 if known else 201, made, model="SshPublicKeyResource")


def _delete_key(cloud: AzureCloud, request: Request) -> Answer:
    known = _group(cloud, request).keys.pop(request.names["sshPublicKeyName"].lower(), None)
    return Answer(200 if known else 204)


# ----------------------------------------------------------------------- what others have made


def _get_subnet(cloud: AzureCloud, request: Request) -> Answer:
    if request.path.lower() not in _group(cloud, request).subnets:
        raise _not_found(request, "virtualNetworks/subnets", request.names["name"])
    shown = {"id": request.path, "name": request.names["name"]}
    return Answer(body={**shown, "properties": {"provisioningState": "Succeeded"}})


def _get_security_group(cloud: AzureCloud, request: Request) -> Answer:
    kind, name = request.names["kind"], request.names["name"]
    group = _group(cloud, request)
    if kind != "networkSecurityGroups" or request.path.lower() not in group.security_groups:
        raise _not_found(request, kind, name)
    shown = {"id": request.path, "name": name, "location": group.location}
    return Answer(body=shown, model=f"network:{kind}")


def _image_versions(cloud: AzureCloud, request: Request) -> Answer:
    """Each image has one version; `latest` is a word of launches, and is in no list."""
    if _image_name(request, "latest") not in cloud.images:
        raise _no_image(request)
    return Answer(body=[{"name": "1.0.0", "location": request.names["location"]}])


def _get_image(cloud: AzureCloud, request: Request) -> Answer:
    version = request.names["version"]
    if _image_name(request, version) not in cloud.images:
        raise _no_image(request)
    return Answer(body={"name": version, "location": request.names["location"]})


def _image_name(request: Request, version: str) -> str:
    names = (request.names[each] for each in ("publisherName", "offer", "skus"))
    return ":".join((*names, version)).lower()


def _no_image(request: Request) -> ArmError:
    text = f"Artifact: VMImage was not found. ({request.path})"
    return ArmError(404, "NotFound", text)


# ------------------------------------------------------------------------------ subscription


def _subscriptions(cloud: AzureCloud, request: Request) -> Answer:
    return Answer(body={"value": [{"subscriptionId": each} for each in cloud.subscriptions]})


def _skus(cloud: AzureCloud, request: Request) -> Answer:
    region = request.query.get("$filter", "").removeprefix("location eq '").removesuffix("'")
    sold = [size for (where, _), size in stock.sizes().items() if where == region]
    return _page(
        cloud,
        request,
        sold,
        lambda size: stock.sku(size, withheld=(region, size.name.lower()) in cloud.withheld),
        "ResourceSku",
    )


def _usages(cloud: AzureCloud, request: Request) -> Answer:
    region = request.names["location"]
    families = {size.family for (where, _), size in stock.sizes().items() if where == region}
    names = [stock.ALL_CORES, stock.SPOT_CORES, *sorted(families)]

    def shown(name: str) -> dict[str, Any]:
        return {
            "unit": "Count",
            "currentValue": cloud.cores_used(region, name),
            "limit": cloud.limit(region, name),
            "name": {"value": name, "localizedValue": name},
        }

    return _page(cloud, request, names, shown, "Usage")


# ------------------------------------------------------------------------------------ inside


def _group(cloud: AzureCloud, request: Request) -> Group:
    group = cloud.groups.get(request.group.lower())
    if group is None or request.names["subscriptionId"].lower() not in group.id:
        text = f"Resource group '{request.group}' could not be found."
        raise ArmError(404, "ResourceGroupNotFound", text)
    return group


def _machine(cloud: AzureCloud, request: Request) -> Vm:
    vm = _group(cloud, request).machines.get(request.names["vmName"].lower())
    if vm is None:
        raise _not_found(request, "virtualMachines", request.names["vmName"])
    return vm


def _not_found(request: Request, kind: str, name: str) -> ArmError:
    text = (
        f"The Resource 'Microsoft.Compute/{kind}/{name}' under resource group '{request.group}' "
        "was not found."
    )
    return ArmError(404, "ResourceNotFound", text)


def _page(
    cloud: AzureCloud,
    request: Request,
    found: Iterable[Any],
    shown: Callable[[Any], dict[str, Any]],
    model: str,
) -> Answer:
    everything, start = list(found), int(request.query.get("$skiptoken", "0"))
    end = start + cloud.page_size
    body: dict[str, Any] = {"value": [shown(each) for each in everything[start:end]]}
    if end < len(everything):
        query = {**request.query, "$skiptoken": str(end)}
        body["nextLink"] = f"{request.url}{request.path}?{urlencode(query)}"
    return Answer(body=body, model=model)


_HANDLERS: Mapping[str, Callable[[AzureCloud, Request], Answer]] = {
    "virtual_machines_create_or_update": _create,
    "virtual_machines_get": _get,
    "virtual_machines_instance_view": _view,
    "virtual_machines_delete": _delete,
    "virtual_machines_list": _list,
    "virtual_machines_list_all": _list_all,
    "virtual_machines_simulate_eviction": _simulate_eviction,
    "virtual_machines_run_command": _run_command,
    "ssh_public_keys_list_by_resource_group": _keys,
    "ssh_public_keys_get": _get_key,
    "ssh_public_keys_create": _create_key,
    "ssh_public_keys_delete": _delete_key,
    "disks_list": _disks,
    "disks_delete": _delete_disk,
    "network_list": _network,
    "network_delete": _delete_network,
    "operations_get": _operation,
    "subnets_get": _get_subnet,
    "network_get": _get_security_group,
    "virtual_machine_images_list": _image_versions,
    "virtual_machine_images_get": _get_image,
    "subscriptions_list": _subscriptions,
    "resource_skus_list": _skus,
    "usage_list": _usages,
}
