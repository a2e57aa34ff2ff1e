"""The body of `instances.insert` for one launch request: the same bytes for the same request."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC

from agent_bootstrap.user_data import GCP_BYTES_MAX
from control_plane.core.model import Market
from control_plane.ports import LaunchRequest
from providers.gcp.errors import refusal
from providers.gcp.names import Place, instance_name, labels

DEFAULT_IMAGE = (
    "projects/deeplearning-platform-release/global/images/family/"
    "common-cu129-ubuntu-2204-nvidia-580"
)
"""Has the NVIDIA driver and Docker. Families change with CUDA and old ones vanish, so it can be set
in the document (`image`)."""

_SPOT_ONLY = ("a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g", "a3-ultragpu-", "a4-", "a4x-")
_HYPERDISK = ("n4-", "g4-", "a3-", "a4-", "a4x-")
"""Machine series whose usual boot disk is a Hyperdisk; some start from no other."""
_ATTACHED: Mapping[str, str] = {
    "T4": "nvidia-tesla-t4",
    "P4": "nvidia-tesla-p4",
    "P100": "nvidia-tesla-p100",
    "V100": "nvidia-tesla-v100",
}
_SCOPES = "https://www.googleapis.com/auth/"
_KEY_SPACE = uuid.UUID("6f1c3f5e-53f0-5a43-9d0c-0e3a4f8f7f11")

Body = Mapping[str, object]


def sold_on_demand(instance_type: str) -> bool:
    """Whether a type can be had without a reservation at list price; the others are sold as Spot
    only, as far as we use them."""
    return not instance_type.startswith(_SPOT_ONLY)


def attached(instance_type: str, gpu_name: str) -> str:
    """The cloud's name of GPUs that are added to a machine type; empty where they come with it."""
    return _ATTACHED.get(gpu_name, "") if instance_type.startswith("n1-") else ""


def machine_type(instance_type: str) -> str:
    """The cloud's name of a type, without the GPUs that an offer adds to it."""
    return instance_type.partition("+")[0]


def sold_as(name: str, accelerators: Sequence[tuple[str, int]]) -> str:
    """What an offer calls a machine type with these GPUs, each given by the cloud's name and a
    count; the inverse of `machine_type` and `attached`."""
    gpus = {cloud: ours for ours, cloud in _ATTACHED.items()}
    added = [f"+{gpus[kind]}:{count}" for kind, count in accelerators if kind in gpus]
    return "".join((name, *added)) if name.startswith("n1-") else name


def disk_kind(instance_type: str) -> str:
    """The cloud's name for the kind of boot disk that a machine gets."""
    return "hyperdisk-balanced" if instance_type.startswith(_HYPERDISK) else "pd-balanced"


def project_of(options: Mapping[str, str]) -> str:
    """The project that pays. Raises `ProviderError` when none is named."""
    project = options.get("project", "")
    if not project:
        raise refusal("invalid", "no Google Cloud project is named: set `project` under `gcp`")
    return project


def place_of(request: LaunchRequest) -> Place:
    """Where the instance of a launch key is, made or not. Raises `ProviderError` for an offer of a
    whole region: a name is unique in its zone only."""
    if not request.offer.zone:
        raise refusal("invalid", f"{request.offer.key} names no zone")
    name = instance_name(request.machine_id, request.key)
    return Place(project_of(request.cloud.options), request.offer.zone, name)


def request_id(body: Body, failures: int) -> str:
    """A UUID for one try: the same for the very same request, so that a repeat whose first answer
    was lost gets the first operation again, and another one after each try that came to nothing."""
    text = json.dumps([body, failures], sort_keys=True)
    return str(uuid.uuid5(_KEY_SPACE, text))


def instance(request: LaunchRequest, startup: str, version: str) -> Body:
    """The `Instance` to ask for. Raises `ProviderError` for a start-up text that is too long."""
    if len(startup.encode()) > GCP_BYTES_MAX:
        raise refusal("invalid", f"the start-up text has more than {GCP_BYTES_MAX} bytes")
    place, marks = place_of(request), dict(labels(request, version))
    kind = machine_type(request.offer.instance_type)
    return {
        "name": place.name,
        "machine_type": f"zones/{place.zone}/machineTypes/{kind}",
        "labels": marks,
        "metadata": {"items": [{"key": "startup-script", "value": startup}]},
        "disks": [_boot_disk(request, marks)],
        "network_interfaces": [_network(request, place)],
        "service_accounts": [_account(request.cloud.options)],
        "guest_accelerators": _accelerators(request, place),
        "scheduling": _scheduling(request),
    }


def _boot_disk(request: LaunchRequest, marks: Mapping[str, str]) -> Body:
    kind = disk_kind(request.offer.instance_type)
    return {
        "boot": True,
        "auto_delete": True,
        "initialize_params": {
            "source_image": request.cloud.options.get("image") or DEFAULT_IMAGE,
            "disk_size_gb": request.disk_gib,
            "disk_type": f"zones/{request.offer.zone}/diskTypes/{kind}",
            "labels": marks,
        },
    }


def _network(request: LaunchRequest, place: Place) -> Body:
    options = request.cloud.options
    subnet, network = options.get("subnetwork", ""), options.get("network", "")
    found: dict[str, object] = {}
    if subnet:
        base = f"projects/{place.project}/regions/{request.offer.region}/subnetworks/"
        found["subnetwork"] = _linked(subnet.replace("{region}", request.offer.region), base)
    if network or not subnet:
        base = f"projects/{place.project}/global/networks/"
        found["network"] = _linked(network or "default", base)
    if options.get("public_ip", "true") != "false":
        found["access_configs"] = [{"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}]
    return found


def _linked(name: str, base: str) -> str:
    """A plain name below `base`; what has a path already stays as it is."""
    return name if "/" in name else base + name


def _account(options: Mapping[str, str]) -> Body:
    """An account of its own may do what IAM lets it. The project's default one often may do
    everything, so it is lent for no more than to say who it is."""
    named = options.get("service_account", "")
    scope = "cloud-platform" if named else "userinfo.email"
    return {"email": named or "default", "scopes": [_SCOPES + scope]}


def _accelerators(request: LaunchRequest, place: Place) -> Sequence[Body]:
    capacity = request.offer.capacity
    if not capacity.gpus or not request.offer.instance_type.startswith("n1-"):
        return []
    name = attached(request.offer.instance_type, capacity.gpu_name)
    if not name:
        raise refusal("invalid", f"{capacity.gpu_name} cannot be added to an N1 machine")
    kind = f"projects/{place.project}/zones/{place.zone}/acceleratorTypes/{name}"
    return [{"accelerator_type": kind, "accelerator_count": capacity.gpus}]


def _scheduling(request: LaunchRequest) -> Body:
    """The cloud ends the machine at its deadline, whatever becomes of us. A point in time rather
    than a duration, because it is the same in every repeat of the request."""
    spot = request.offer.market is Market.SPOT
    return {
        "provisioning_model": "SPOT" if spot else "STANDARD",
        "on_host_maintenance": "TERMINATE",
        "automatic_restart": False,
        "instance_termination_action": "DELETE",
        "termination_time": request.deadline.astimezone(UTC).isoformat(timespec="seconds"),
    }
