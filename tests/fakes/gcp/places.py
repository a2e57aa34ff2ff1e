"""What a launch names and somebody else has made: images, networks and subnetworks. All that has a
proper name exists, until `GcpCloud.lose`."""

from __future__ import annotations

from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.discovery import ApiError, Json
from tests.fakes.gcp.listings import Call, Handler
from tests.fakes.gcp.machines import ROOT

_IMAGE_GIB = 50


def _image(cloud: GcpCloud, call: Call) -> Json:
    return _thing(cloud, call, f"global/images/{call.path['image']}") | {"status": "READY"}


def _family(cloud: GcpCloud, call: Call) -> Json:
    """The newest image of a family."""
    family = call.path["family"]
    _thing(cloud, call, f"global/images/family/{family}")
    newest = _thing(cloud, call, f"global/images/{family}-v20260101")
    return newest | {"family": family, "status": "READY", "diskSizeGb": str(_IMAGE_GIB)}


def _network(cloud: GcpCloud, call: Call) -> Json:
    """One that has a subnetwork of its own name in each region."""
    name, project = call.path["network"], call.path["project"]
    paths = [
        f"projects/{project}/regions/{region}/subnetworks/{name}"
        for region in cloud.stock.regions()
    ]
    there = [ROOT + path for path in paths if path not in cloud.missing]
    return _thing(cloud, call, f"global/networks/{name}") | {"subnetworks": there}


def _subnetwork(cloud: GcpCloud, call: Call) -> Json:
    cloud.heard(call.path["region"])
    return _thing(
        cloud, call, f"regions/{call.path['region']}/subnetworks/{call.path['subnetwork']}"
    )


def _thing(cloud: GcpCloud, call: Call, within: str) -> Json:
    path = f"projects/{call.path['project']}/{within}"
    if path in cloud.missing:
        raise ApiError(404, "notFound", f"The resource '{path}' was not found")
    return {"id": "5000", "name": path.rpartition("/")[2], "selfLink": ROOT + path}


METHODS: dict[str, Handler] = {
    "images.get": _image,
    "images.getFromFamily": _family,
    "networks.get": _network,
    "subnetworks.get": _subnetwork,
}
