"""The EC2 operations that moto does not do as AWS does; all others are moto's."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import DryRunClientError, EC2ClientError
from moto.ec2.responses import EC2Response

from tests.fakes.ec2 import fleets, stock
from tests.fakes.ec2.account import Account
from tests.fakes.ec2.checks import read_answer
from tests.fakes.ec2.fleets import Pool, Template
from tests.fakes.ec2.instances import Vm, is_filter

ROOT_DEVICE = "/dev/sda1"
_USER_DATA_MAX = 16_384
_INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
_TAG_KEY = re.compile(r"(?!aws:)[\w +\-=.:/@]{1,128}")
_TAG_VALUE = re.compile(r"[\w +\-=.:/@]{0,256}")
_TAGGED = {"instance", "volume", "network-interface", "spot-instances-request"}
_PAGES = range(5, 1001)


class Api(EC2Response):
    """EC2 of one account and the region that a request was signed for."""

    account: Account

    # ------------------------------------------------------------------------------- launching

    def run_instances(self) -> Any:
        asked = dict(self.params)
        zone = self._named_zone(asked)
        if (known := self._said_before(zone, asked)) is not None:
            return known
        self._refuse_wrong(asked)
        if asked.get("DryRun"):
            raise DryRunClientError()
        vm = self._make(asked, self._zone_with_room(asked, zone), asked.get("ClientToken", ""))
        reservation = {"OwnerId": self.account.id, "Groups": [], "Instances": [vm.shown]}
        return self._remembered(zone, asked, ActionResult(reservation))

    def _said_before(self, scope: str, asked: Mapping[str, Any]) -> str | None:
        """The answer to the same call with the same token."""
        known = self.account.tokens.get((self.region, scope, asked.get("ClientToken", "")))
        if known is None or not asked.get("ClientToken"):
            return None
        if known[0] != _fingerprint(asked):
            raise EC2ClientError(
                "IdempotentParameterMismatch",
                "The client token was used with other parameters.",
            )
        return known[1]

    def _remembered(self, scope: str, asked: Mapping[str, Any], answer: ActionResult) -> str:
        body = str(self.serialized(answer)[2])
        if token := asked.get("ClientToken"):
            self.account.tokens[self.region, scope, token] = (_fingerprint(asked), body)
        return body

    def _named_zone(self, asked: Mapping[str, Any]) -> str:
        """The id of the zone that a request names, which is also the scope of its token."""
        cards = asked.get("NetworkInterfaces", [])
        subnets = [asked.get("SubnetId"), *(card.get("SubnetId") for card in cards)]
        for subnet in filter(None, subnets):
            zone_id: str = self.ec2_backend.get_subnet(subnet)._availability_zone.zone_id
            return zone_id
        return ""

    def _refuse_wrong(self, asked: Mapping[str, Any]) -> None:
        self._refuse_wrong_tags(asked)
        if asked["MinCount"] != 1 or asked["MaxCount"] != 1:
            raise EC2ClientError("UnsupportedOperation", "this fake starts one at a time")
        if not stock.exists(asked["InstanceType"]):
            raise EC2ClientError(
                "InvalidParameterValue", f"Invalid value '{asked['InstanceType']}' for InstanceType"
            )
        token = asked.get("ClientToken", "")
        if len(token) > 64 or not token.isascii():
            raise EC2ClientError("InvalidParameterValue", "Invalid client token")
        fleets.refuse_hidden_keys(asked)
        self._refuse_wrong_image(asked)
        self._refuse_wrong_profile(asked.get("IamInstanceProfile"))
        if len(_user_data(asked)) > _USER_DATA_MAX:
            raise EC2ClientError(
                "InvalidParameterValue", f"User data is limited to {_USER_DATA_MAX} bytes"
            )

    def _refuse_wrong_tags(self, asked: Mapping[str, Any]) -> None:
        for spec in asked.get("TagSpecifications", []):
            if spec["ResourceType"] not in _TAGGED:
                raise EC2ClientError("InvalidParameterValue", f"no tags on {spec['ResourceType']}")
            if spec["ResourceType"] == "spot-instances-request" and not _is_spot(asked):
                raise EC2ClientError("InvalidParameterValue", "there is no spot request to tag")
            for tag in spec["Tags"]:
                if not (_TAG_KEY.fullmatch(tag["Key"]) and _TAG_VALUE.fullmatch(tag["Value"])):
                    raise EC2ClientError("InvalidParameterValue", f"Invalid tag: {tag}")

    def _refuse_wrong_image(self, asked: Mapping[str, Any]) -> None:
        size_gib = self.account.images.get(asked["ImageId"])
        if size_gib is None:
            raise EC2ClientError(
                "InvalidAMIID.NotFound", f"The image id '[{asked['ImageId']}]' does not exist"
            )
        for disk in asked.get("BlockDeviceMappings", []):
            if disk["DeviceName"] == ROOT_DEVICE and disk["Ebs"]["VolumeSize"] < size_gib:
                raise EC2ClientError(
                    "InvalidBlockDeviceMapping",
                    f"Volume of size {disk['Ebs']['VolumeSize']}GB is smaller than snapshot",
                )

    def _refuse_wrong_profile(self, profile: Mapping[str, str] | None) -> None:
        if profile is None:
            return
        name = profile.get("Name") or profile["Arn"].rpartition("/")[2]
        if name not in self.account.profiles:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({name}) for parameter iamInstanceProfile.name is invalid. "
                "Invalid IAM Instance Profile name",
            )

    def _zone_with_room(self, asked: Mapping[str, Any], named: str) -> str:
        """Where the instance goes; AWS picks where nobody says."""
        kind, spot = asked["InstanceType"], _is_spot(asked)
        zones = stock.zones_of(self.region, kind)
        if named not in ("", *zones):
            raise EC2ClientError(
                "Unsupported",
                f"Your requested instance type ({kind}) is not supported in your requested "
                f"Availability Zone ({named}).",
            )
        self._refuse_above_quota(kind, spot=spot)
        for zone in [named] if named else zones:
            if self._room_left(kind, zone, spot=spot) > 0:
                return zone
        raise EC2ClientError(
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {kind} capacity in the Availability Zone you "
            f"requested ({named or 'any'}).",
        )

    def _room_left(self, kind: str, zone: str, *, spot: bool) -> float:
        room = self.account.stock.room(kind, zone, spot=spot)
        same = ((vm.instance_type, vm.zone, vm.spot) for vm in self.account.living())
        if room is None:
            return math.inf
        return room - sum(each == (kind, zone, spot) for each in same)

    def _refuse_above_quota(self, kind: str, *, spot: bool) -> None:
        code = stock.quota_code(kind, spot=spot)
        used = sum(
            vm.cpus
            for vm in self.account.living()
            if vm.region == self.region and stock.quota_code(vm.instance_type, spot=vm.spot) == code
        )
        if code and used + stock.cpus(kind) > self.account.stock.quota(self.region, code):
            refused = "MaxSpotInstanceCountExceeded" if spot else "VcpuLimitExceeded"
            raise EC2ClientError(refused, f"You have requested more than the limit of {code}")

    def _make(self, asked: Mapping[str, Any], zone: str, token: str) -> Vm:
        self.params = dict(asked)
        if not self._named_zone(asked):
            self.params["SubnetId"] = self._default_subnet(zone)
        profile = self.params.pop("IamInstanceProfile", None)
        quicken(self.ec2_backend)
        made: Any = super().run_instances()
        action, self.querystring["Action"] = self.querystring["Action"], ["RunInstances"]
        instance = made.result.instances[0]
        instance.launch_time = self.account.now().replace(tzinfo=None)
        self._finish_cards(instance, asked)
        shown = read_answer("RunInstances", str(self.serialized(made)[2]))["Instances"][0]
        self.querystring["Action"] = action
        shown.pop("StateReason", None)
        if _is_spot(asked):
            shown["SpotInstanceRequestId"] = "sir-" + instance.id[-8:]
        if profile:
            shown["IamInstanceProfile"] = {"Arn": f"arn:aws:iam::{self.account.id}:{profile}"}
        vm = self._vm(instance, asked, zone, token, shown)
        self.account.add(vm)
        return vm

    def _default_subnet(self, zone: str) -> str:
        subnets = self.ec2_backend.describe_subnets(filters={"availability-zone-id": [zone]})
        subnet_id: str = subnets[0].id
        return subnet_id

    def _finish_cards(self, instance: Any, asked: Mapping[str, Any]) -> None:
        specs = {spec["ResourceType"]: spec["Tags"] for spec in asked.get("TagSpecifications", [])}
        tags = {tag["Key"]: tag["Value"] for tag in specs.get("network-interface", [])}
        told = {
            card["DeviceIndex"]: card.get("DeleteOnTermination", True)
            for card in asked.get("NetworkInterfaces", [])
        }
        for index, card in instance.nics.items():
            card.delete_on_termination = told.get(index, True)
            self.ec2_backend.create_tags([card.id], tags)

    def _vm(self, instance: Any, asked: Mapping[str, Any], zone: str, token: str, shown: Any) -> Vm:
        account = self.account
        return Vm(
            id=instance.id,
            region=self.region,
            zone=zone,
            instance_type=asked["InstanceType"],
            spot=_is_spot(asked),
            cpus=stock.cpus(asked["InstanceType"]),
            token=token,
            tags={tag["Key"]: tag["Value"] for tag in shown.get("Tags", [])},
            asked=asked,
            user_data=_user_data(asked).decode(),
            ends_on_shutdown=asked.get("InstanceInitiatedShutdownBehavior") == "terminate",
            visible_at=account.now() + timedelta(seconds=account.lag_s),
            shown=shown,
            release=instance.terminate,
        )

    # --------------------------------------------------------------------- templates and fleets

    def create_launch_template(self) -> ActionResult:
        name, data = self.params["LaunchTemplateName"], self.params["LaunchTemplateData"]
        if not fleets.NAME.fullmatch(name):
            raise EC2ClientError("InvalidLaunchTemplateName.MalformedException", name)
        if len(_user_data(data)) > _USER_DATA_MAX:
            raise EC2ClientError("InvalidParameterValue", "User data is limited")
        if self.params.get("DryRun"):
            raise DryRunClientError()
        if self._template(name):
            raise EC2ClientError(
                "InvalidLaunchTemplateName.AlreadyExistsException",
                "Launch template name already in use.",
            )
        specs = self.params.get("TagSpecifications", [])
        made = Template(
            id=f"lt-{len(self.account.templates):017x}",
            name=name,
            region=self.region,
            data=data,
            tags={tag["Key"]: tag["Value"] for spec in specs for tag in spec["Tags"]},
            created_at=self.account.now(),
        )
        self.account.templates[made.id] = made
        return ActionResult({"LaunchTemplate": made.shown(self.account.id)})

    def _template(self, name: str) -> Template | None:
        known = self.account.templates.values()
        same = (each for each in known if (each.region, each.name) == (self.region, name))
        return next(same, None)

    def describe_launch_templates(self) -> ActionResult:
        found = [each for each in self.account.templates.values() if each.region == self.region]
        for wish in self.params.get("Filters", []):
            if not wish["Name"].startswith("tag:"):
                raise EC2ClientError("InvalidParameterValue", f"no filter {wish['Name']}")
            key = wish["Name"].removeprefix("tag:")
            found = [each for each in found if each.tags.get(key) in wish["Values"]]
        return ActionResult({"LaunchTemplates": [each.shown(self.account.id) for each in found]})

    def delete_launch_template(self) -> ActionResult:
        gone = self.account.templates.get(self.params["LaunchTemplateId"])
        if gone is None or gone.region != self.region:
            raise EC2ClientError("InvalidLaunchTemplateId.NotFound", "no such launch template")
        del self.account.templates[gone.id]
        return ActionResult({"LaunchTemplate": gone.shown(self.account.id)})

    def create_fleet(self) -> Any:
        asked = dict(self.params)
        if (known := self._said_before("fleet", asked)) is not None:
            return known
        fleets.refuse_wrong_fleet(asked)
        named = list(fleets.pools_of(asked, self._template, self._zone_of))
        if asked.get("DryRun"):
            raise DryRunClientError()
        pools: list[Pool] = []
        errors: list[Mapping[str, Any]] = []
        for said, call, zone in named:
            try:
                pools.append(self._pool(said, call, zone))
            except EC2ClientError as error:
                errors.append(_fleet_error(said, error))
        fleet_id = f"fleet-{len(self.account.tokens):08x}-0000-4000-8000-000000000000"
        answer: dict[str, Any] = {"FleetId": fleet_id, "Errors": errors}
        if taken := fleets.best(pools):
            vm = self._make(taken.asked, taken.zone, fleet_id)
            launched = {"LaunchTemplateAndOverrides": taken.said, "Lifecycle": "spot"}
            ids = {"InstanceIds": [vm.id], "InstanceType": vm.instance_type}
            answer["Instances"] = [{**launched, **ids}]
        return self._remembered("fleet", asked, ActionResult(answer))

    def _zone_of(self, subnet: str) -> str:
        return self._named_zone({"SubnetId": subnet})

    def _pool(self, said: Mapping[str, Any], asked: Mapping[str, Any], zone: str) -> Pool:
        if self.account.fleet_error:
            raise EC2ClientError(self.account.fleet_error, "on purpose")
        self._refuse_wrong(asked)
        zone = self._zone_with_room(asked, zone)
        kind = asked["InstanceType"]
        price = self.account.stock.price(kind, zone)
        if price is None:
            raise EC2ClientError("UnfulfillableCapacity", f"{kind} is not sold on spot in {zone}")
        room = self._room_left(kind, zone, spot=True)
        return Pool(said=said, asked=asked, zone=zone, room=room, price=price)

    # --------------------------------------------------------------------------------- looking

    def describe_instances(self) -> Any:
        ids, size = self.params.get("InstanceIds"), self.params.get("MaxResults", 1000)
        if ids and "MaxResults" in self.params:
            raise EC2ClientError("InvalidParameterCombination", "InstanceIds with MaxResults")
        if size not in _PAGES:
            raise EC2ClientError("InvalidParameterValue", f"MaxResults {size} is not in 5-1000")
        found = [self._one(each) for each in ids] if ids else list(self.account.known(self.region))
        for each in self._filters():
            found = [vm for vm in found if vm.matches(each["Name"], each["Values"])]
        size = min(size, self.account.page)
        first = int(self.params.get("NextToken", "0"))
        page = "".join(vm.xml(self.account.id) for vm in found[first : first + size])
        more = f"<nextToken>{first + size}</nextToken>" if first + size < len(found) else ""
        return (
            '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
            "<requestId>r</requestId>"
            f"<reservationSet>{page}</reservationSet>{more}</DescribeInstancesResponse>"
        )

    def _filters(self) -> list[Mapping[str, Any]]:
        filters: list[Mapping[str, Any]] = self.params.get("Filters", [])
        for each in filters:
            if not is_filter(each["Name"]):
                raise EC2ClientError(
                    "InvalidParameterValue", f"The filter '{each['Name']}' is invalid"
                )
        return filters

    def _one(self, instance_id: str) -> Vm:
        if not _INSTANCE_ID.fullmatch(instance_id):
            raise EC2ClientError("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
        if vm := self.account.find(self.region, instance_id):
            return vm
        raise EC2ClientError(
            "InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist"
        )

    def describe_images(self) -> ActionResult:
        ids = self.params.get("ImageIds", [])
        for each in ids:
            if each not in self.account.images:
                raise EC2ClientError(
                    "InvalidAMIID.NotFound", f"The image id '[{each}]' does not exist"
                )
        return ActionResult({"Images": [_image(each, self.account.images[each]) for each in ids]})

    def describe_spot_price_history(self) -> ActionResult:
        """The price in force in each zone, which is what a start time of now asks for."""
        rows = [
            self._price(kind, zone.name, zone.zone_id)
            for kind in self.params.get("InstanceTypes", [])
            for zone in self.ec2_backend.describe_availability_zones()
        ]
        return ActionResult({"SpotPriceHistory": [row for row in rows if row]})

    def _price(self, kind: str, zone: str, zone_id: str) -> Mapping[str, Any] | None:
        price = self.account.stock.price(kind, zone_id)
        if price is None:
            return None
        return {
            "AvailabilityZone": zone,
            "InstanceType": kind,
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": f"{price:f}",
            "Timestamp": self._an_hour_ago(),
        }

    def _an_hour_ago(self) -> datetime:
        return self.account.now() - timedelta(hours=1)

    # ---------------------------------------------------------------------------------- ending

    def terminate_instances(self) -> ActionResult:
        vms = [self._one(each) for each in self.params["InstanceIds"]]
        if self.params.get("DryRun"):
            raise DryRunClientError()
        changes = []
        for vm in vms:
            before = vm.shown["State"]
            self.account.end(vm, "Client.UserInitiatedShutdown", "User initiated shutdown")
            changes.append(
                {
                    "InstanceId": vm.id,
                    "PreviousState": before,
                    "CurrentState": vm.shown["State"],
                }
            )
        return ActionResult({"TerminatingInstances": changes})


def _fingerprint(asked: Mapping[str, Any]) -> str:
    return json.dumps({**asked, "DryRun": None}, sort_keys=True, default=str)


def _fleet_error(said: Mapping[str, Any], error: EC2ClientError) -> Mapping[str, Any]:
    return {
        "LaunchTemplateAndOverrides": said,
        "Lifecycle": "spot",
        "ErrorCode": error.code,
        "ErrorMessage": error.message,
    }


def _is_spot(asked: Mapping[str, Any]) -> bool:
    return bool(asked.get("InstanceMarketOptions", {}).get("MarketType") == "spot")


def _user_data(asked: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(asked.get("UserData", ""), validate=True)
    except binascii.Error as error:
        raise EC2ClientError("InvalidUserData.Malformed", "Invalid BASE64 encoding") from error


def _image(image_id: str, size_gib: int) -> Mapping[str, Any]:
    return {
        "ImageId": image_id,
        "Architecture": "x86_64",
        "CreationDate": datetime(2026, 1, 1, tzinfo=UTC),
        "RootDeviceName": ROOT_DEVICE,
        "RootDeviceType": "ebs",
        "State": "available",
        "BlockDeviceMappings": [{"DeviceName": ROOT_DEVICE, "Ebs": {"VolumeSize": size_gib}}],
    }


def quicken(backend: Any) -> None:
    """moto reads all tags to find those of one resource, and copies all instances to find one."""
    slow = type(backend).describe_tags

    def describe_tags(filters: Any = None) -> list[dict[str, str]]:
        if set(filters or ()) != {"resource-id"}:
            found: list[dict[str, str]] = slow(backend, filters)
            return found
        return [
            {"resource_id": each, "key": key, "value": value, "resource_type": ""}
            for each in filters["resource-id"]
            for key, value in backend.tags.get(each, {}).items()
        ]

    def get_instance(instance_id: str) -> Any:
        newest_first = reversed(backend.reservations.values())
        instances = (each for reservation in newest_first for each in reservation.instances)
        return next(each for each in instances if each.id == instance_id)

    backend.describe_tags, backend.get_instance = describe_tags, get_instance
