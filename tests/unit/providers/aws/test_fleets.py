"""One call for several spot offers: what it says, what it buys, and what a refusal means."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from control_plane.core.model import ErrorClass, Market, Offer
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest
from providers.aws import labels
from tests.fakes.ec2.instances import Vm
from tests.unit.providers.aws.world import FLEET, REGION, World, an_offer, refused

FIRST = an_offer()
OTHER_ZONE = an_offer(zone="use1-az2")
OTHER_TYPE = an_offer("g5.xlarge")
_G6 = an_offer("g6.xlarge")
V100 = replace(_G6, capacity=replace(_G6.capacity, gpu_name="V100"))
"""As if it needed another image than all others."""
ALL = (OTHER_ZONE, OTHER_TYPE)


def several(
    world: World, machine_id: str = "m-1", others: Sequence[Offer] = ALL, **more: object
) -> LaunchRequest:
    request = world.request(machine_id, **more)  # type: ignore[arg-type]
    return replace(request, alternatives=tuple(others))


def calls(world: World, *operations: str) -> list[int]:
    called = world.account.called()
    return [called.get(operation, 0) for operation in operations]


def only(world: World) -> Vm:
    (vm,) = world.account.living()
    return vm


def sell(world: World, *offers: Offer, room: int = 1) -> None:
    """Nothing but this is to be had."""
    for each in (FIRST, *ALL, V100):
        world.account.set_capacity(
            room if each in offers else 0, instance_type=each.instance_type, zone=each.zone
        )


# ------------------------------------------------------------------------------- what is bought


@pytest.mark.parametrize("there", [FIRST, OTHER_ZONE, OTHER_TYPE])
def test_what_there_is_is_bought_in_one_call_and_named(world: World, there: Offer) -> None:
    sell(world, there)
    launched = world.provider.launch(several(world))
    assert launched.offer == (None if there == FIRST else there)
    vm = only(world)
    assert (vm.instance_type, vm.zone, vm.spot) == (there.instance_type, there.zone, True)
    assert calls(world, "CreateFleet", "RunInstances") == [1, 0]


def test_most_room_wins_then_the_price(world: World) -> None:
    for offer, room in ((FIRST, 2), (OTHER_ZONE, 5), (OTHER_TYPE, 5)):
        world.account.set_capacity(room, instance_type=offer.instance_type, zone=offer.zone)
    world.account.set_price(OTHER_TYPE.instance_type, OTHER_TYPE.zone, "0.01")
    assert world.provider.launch(several(world)).offer == OTHER_TYPE


def test_machine_that_exists_is_returned_with_what_it_is(world: World) -> None:
    sell(world, OTHER_TYPE)
    first = world.provider.launch(several(world))
    world.account.advance(60)
    again = world.open().launch(several(world))
    assert (again, again.offer) == (first, OTHER_TYPE)
    assert calls(world, "CreateFleet") == [1]


def test_machine_of_no_known_offer_is_taken_for_what_was_asked_for(world: World) -> None:
    sell(world, OTHER_TYPE)
    first = world.provider.launch(several(world))
    again = world.open().launch(several(world, others=(OTHER_ZONE,)))
    assert (again.provider_id, again.offer) == (first.provider_id, None)


def test_machine_of_a_fleet_is_launched_found_and_ended_as_any_other(world: World) -> None:
    launched = world.provider.launch(several(world))
    assert launched.identity == {"account": world.account.id}
    assert launched.at == world.account.now()
    assert world.account.resources()["schedule"] == [launched.provider_id]
    world.account.advance(60)
    (seen,) = world.provider.observe(FLEET, world.clouds()).sightings
    assert (seen.provider_id, seen.machine_id, seen.market) == (
        launched.provider_id,
        "m-1",
        Market.SPOT,
    )
    world.account.shut_down(launched.provider_id)
    world.account.advance(60)
    assert world.look(launched).state == "gone"
    world.provider.terminate(world.ref(launched))
    assert not any(world.account.resources().values())


@pytest.mark.parametrize(
    "request_of",
    [
        lambda world: world.request(),
        lambda world: several(world, others=()),
        lambda world: several(world, offer=an_offer(market=Market.ON_DEMAND)),
    ],
    ids=["one-offer", "none-besides", "on-demand"],
)
def test_one_offer_and_on_demand_are_bought_as_ever(world: World, request_of: object) -> None:
    assert callable(request_of)
    launched = world.provider.launch(request_of(world))
    assert launched.offer is None
    assert calls(world, "CreateFleet", "RunInstances") == [0, 1]
    told = world.asked(launched)["MetadataOptions"]
    assert "InstanceMetadataTags" not in told


# --------------------------------------------------------------------------------- what is said


def test_all_that_a_machine_takes_along_bears_our_tags(world: World) -> None:
    world.provider.launch(several(world))
    ec2 = world.provider._clients.get("ec2", REGION)
    vm = only(world)
    assert vm.tags[labels.KEY] == "m-1.1"
    (disk,) = ec2.describe_volumes(Filters=[labels.fleet_filter(FLEET)])["Volumes"]
    found = ec2.describe_network_interfaces(Filters=[labels.fleet_filter(FLEET)])
    (card,) = found["NetworkInterfaces"]
    assert labels.read(disk)[labels.MACHINE] == "m-1"
    # The same for all machines of a launch template, so it names none.
    assert labels.MACHINE not in labels.read({"Tags": card["TagSet"]})


def test_machine_is_as_safe_and_as_short_lived_as_any_other(world: World) -> None:
    world.provider.launch(several(world))
    asked = only(world).asked
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "InstanceMetadataTags": "enabled",
    }
    (disk,) = asked["BlockDeviceMappings"]
    assert disk["Ebs"] == {"DeleteOnTermination": True, "VolumeSize": 100, "VolumeType": "gp3"}
    assert asked["IamInstanceProfile"] == {"Name": "orchctl-machine"}


def test_keys_of_our_tags_can_be_shown_in_metadata(world: World) -> None:
    """As "View tags for your EC2 instances using instance metadata" allows them."""
    keys = [tag["Key"] for tag in labels.tags(world.request())]
    assert all(re.fullmatch(r"[A-Za-z0-9+\-=.,_:@]+", key) for key in keys)


def test_settings_of_the_network_hold_for_a_fleet(world: World) -> None:
    ec2 = world.provider._clients.get("ec2", REGION)
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    options = {"public_ip": "true", "security_groups": group, "instance_profile": "other"}
    world.account.profiles.add("other")
    sell(world, OTHER_ZONE)
    world.provider.launch(several(world, options=options))
    (card,) = only(world).asked["NetworkInterfaces"]
    assert card["AssociatePublicIpAddress"] is True
    assert card["Groups"] == [group]
    (subnet,) = ec2.describe_subnets(SubnetIds=[card["SubnetId"]])["Subnets"]
    assert subnet["AvailabilityZoneId"] == OTHER_ZONE.zone
    assert only(world).asked["IamInstanceProfile"] == {"Name": "other"}


def test_each_zone_is_asked_for_once(world: World) -> None:
    """A fleet cannot span several subnets of one zone; the fake refuses one that does."""
    ec2 = world.provider._clients.get("ec2", REGION)
    vpc = ec2.describe_subnets()["Subnets"][0]["VpcId"]
    names = {zone: name for name, zone in world.provider._zones.of(REGION).items()}
    extra = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"172.31.{220 + at}.0/24", AvailabilityZone=names[z])
        for at, z in enumerate([FIRST.zone] * 3)
    ]
    wanted = [each["Subnet"]["SubnetId"] for each in extra]
    others = [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"]]
    options = {"subnets": ",".join({*wanted, *others})}
    for number in range(6):
        world.provider.launch(several(world, f"m-{number}", options=options))


def test_alternative_without_a_subnet_is_left_out(world: World) -> None:
    ec2 = world.provider._clients.get("ec2", REGION)
    zone = {"Name": "availability-zone-id", "Values": [FIRST.zone]}
    (subnet,) = ec2.describe_subnets(Filters=[zone])["Subnets"]
    options = {"subnets": subnet["SubnetId"]}
    launched = world.provider.launch(several(world, options=options))
    assert only(world).zone == FIRST.zone
    assert launched.offer in (None, OTHER_TYPE)
    elsewhere = several(world, "m-2", (FIRST,), offer=OTHER_ZONE, options=options)
    assert refused(lambda: world.provider.launch(elsewhere)).error_class is ErrorClass.INVALID


def test_alternative_without_an_image_is_left_out(world: World) -> None:
    for name in [name for name in world.account.parameters if "proprietary" in name]:
        del world.account.parameters[name]
    launched = world.provider.launch(several(world, others=(OTHER_TYPE, V100)))
    assert launched.offer in (None, OTHER_TYPE)
    assert len(world.account.templates) == 1


def test_too_many_offers_are_cut_to_what_a_fleet_takes(world: World) -> None:
    others = [replace(FIRST, instance_type=f"g4dn.x{number}") for number in range(400)]
    world.provider.launch(several(world, others=others))
    assert only(world).instance_type == FIRST.instance_type


# ----------------------------------------------------------------------------- launch templates


def test_machines_of_one_kind_share_a_template_that_names_none_of_them(world: World) -> None:
    for number in range(3):
        world.provider.launch(several(world, f"m-{number}"))
    world.open().launch(several(world, "m-3"))
    (template,) = world.account.templates.values()
    text = base64.b64decode(template.data["UserData"]).decode()
    assert "machine=''\n" in text
    assert not re.search(r"m-\d", text)
    assert template.tags == {labels.FLEET: FLEET, labels.VERSION: template.tags[labels.VERSION]}
    # The second program does not know that it is there.
    assert calls(world, "CreateLaunchTemplate", "CreateFleet") == [2, 4]


def test_other_content_or_another_fleet_is_another_template(world: World) -> None:
    world.provider.launch(several(world))
    larger = replace(several(world, "m-2"), disk_gib=500)
    world.provider.launch(larger)
    world.provider.launch(several(world, "m-3", fleet="another"))
    assert len(world.account.templates) == 3


def test_what_needs_another_image_needs_another_template(world: World) -> None:
    sell(world, V100)
    launched = world.provider.launch(several(world, others=(OTHER_TYPE, V100)))
    assert launched.offer == V100
    assert len(world.account.templates) == 2
    assert only(world).asked["ImageId"] == "ami-0d1a0000000000001"


def test_template_that_somebody_removed_is_made_again(world: World) -> None:
    world.provider.launch(several(world))
    world.account.templates.clear()
    world.provider.launch(several(world, "m-2"))
    assert len(world.account.templates) == 1
    assert len(list(world.account.living())) == 2


def test_template_that_is_not_known_everywhere_yet_calls_for_a_repeat(world: World) -> None:
    code = "InvalidLaunchTemplateName.NotFoundException"
    world.account.fail_next(code, operation="CreateFleet", times=2)
    error = refused(lambda: world.provider.launch(several(world)))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, code)
    world.provider.launch(several(world))
    assert only(world)


def test_only_old_templates_that_nobody_uses_are_left_over(world: World) -> None:
    world.provider.launch(several(world))
    world.provider.launch(replace(several(world, "m-2"), disk_gib=500))
    world.provider.launch(several(world, "m-3", fleet="another"))
    assert world.provider.strays(FLEET, world.clouds()) == []
    world.account.advance(86_400 + 1)
    world.provider.launch(several(world, "m-4"))
    (left,) = world.provider.strays(FLEET, world.clouds())
    assert (left.kind, left.machine_id, left.usd_hour) == ("launch-template", "", Decimal(0))
    old = world.account.templates[left.id]
    assert old.data["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 500
    world.provider.remove(left)
    world.provider.remove(left)
    assert left.id not in world.account.templates
    assert world.provider.strays(FLEET, world.clouds()) == []
    # To another program, which has used none, the other one is old too; it is made again.
    restarted = world.open()
    for each in restarted.strays(FLEET, world.clouds()):
        restarted.remove(each)
    world.provider.launch(several(world, "m-5"))


def test_who_may_not_see_templates_still_finds_what_costs_money(world: World) -> None:
    ec2 = world.provider._clients.get("ec2", REGION)
    tags = [{"ResourceType": "elastic-ip", "Tags": labels.shared_tags(FLEET)}]
    ec2.allocate_address(Domain="vpc", TagSpecifications=tags)
    world.account.fail_next("UnauthorizedOperation", operation="DescribeLaunchTemplates")
    (left,) = world.provider.strays(FLEET, world.clouds())
    assert left.kind == "address"
    world.account.fail_next("InternalError", operation="DescribeLaunchTemplates")
    error = refused(lambda: world.provider.strays(FLEET, world.clouds()))
    assert error.error_class is ErrorClass.TRANSIENT


# --------------------------------------------------------------------------- what a refusal means


def refusal_of(world: World, others: Sequence[Offer] = ALL) -> ProviderError:
    error = refused(lambda: world.provider.launch(several(world, others=others)))
    assert not list(world.account.living())
    return error


def test_sold_out_in_several_zones_is_a_lack_of_the_region(world: World) -> None:
    sell(world)
    error = refusal_of(world)
    assert error.error_class is ErrorClass.CAPACITY_REGION
    assert error.raw_code == "InsufficientInstanceCapacity"
    assert "InsufficientInstanceCapacity (3)" in str(error)


def test_sold_out_where_one_zone_of_the_type_was_asked_for_is_a_lack_of_the_zone(
    world: World,
) -> None:
    sell(world)
    assert refusal_of(world, [OTHER_TYPE]).error_class is ErrorClass.CAPACITY_ZONE


@pytest.mark.parametrize(
    ("code", "means", "known"),
    [
        ("UnfulfillableCapacity", ErrorClass.CAPACITY_REGION, True),
        ("MaxSpotInstanceCountExceeded", ErrorClass.QUOTA, True),
        ("InvalidParameterValue", ErrorClass.INVALID, True),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", ErrorClass.AUTH, True),
        # It would be told the same at a repeat.
        ("InternalError", ErrorClass.CAPACITY_ZONE, True),
        ("RequestLimitExceeded", ErrorClass.CAPACITY_ZONE, True),
        ("NeverHeardOf", ErrorClass.TRANSIENT, False),
    ],
)
def test_code_inside_a_good_answer_counts_as_outside(
    world: World, code: str, means: ErrorClass, known: bool
) -> None:
    world.account.fleet_error = code
    error = refusal_of(world)
    assert (error.raw_code, error.error_class, error.known) == (code, means, known)


def test_refusal_is_that_of_the_offer_that_was_asked_for(world: World) -> None:
    """What is wrong with another one is for its own turn."""
    sell(world)
    nowhere = replace(FIRST, instance_type="g9.nothing")
    assert refusal_of(world, [nowhere]).error_class is ErrorClass.CAPACITY_ZONE
    request = several(world, attempt=2, offer=nowhere, others=(FIRST,))
    error = refused(lambda: world.provider.launch(request))
    assert (error.error_class, error.raw_code) == (ErrorClass.INVALID, "InvalidParameterValue")


def test_machine_beside_errors_is_taken(world: World) -> None:
    sell(world, OTHER_ZONE)
    nowhere = replace(FIRST, instance_type="g9.nothing")
    launched = world.provider.launch(several(world, others=(nowhere, OTHER_ZONE)))
    assert launched.offer == OTHER_ZONE


def test_next_attempt_after_a_refusal_is_a_new_call(world: World) -> None:
    sell(world)
    refusal_of(world)
    sell(world, OTHER_TYPE)
    assert refused(lambda: world.provider.launch(several(world))).raw_code == (
        "InsufficientInstanceCapacity"
    )
    launched = world.provider.launch(several(world, attempt=2))
    assert launched.offer == OTHER_TYPE


# -------------------------------------------------------------------------------- without the right


@pytest.mark.parametrize("operation", ["CreateLaunchTemplate", "CreateFleet", "inside"])
def test_without_the_right_to_fleets_a_machine_is_bought_by_itself(
    world: World, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    if operation == "inside":
        world.account.fleet_error = "UnauthorizedOperation"
    else:
        world.account.fail_next("UnauthorizedOperation", operation=operation)
    launched = world.provider.launch(several(world))
    vm = only(world)
    assert (vm.instance_type, vm.zone, launched.offer) == (FIRST.instance_type, FIRST.zone, None)
    assert "machine=m-1\n" in vm.user_data
    assert calls(world, "RunInstances") == [1]
    (warned,) = caplog.records
    assert "UnauthorizedOperation" in warned.getMessage()


def test_right_that_is_missing_is_asked_for_again_after_ten_minutes(world: World) -> None:
    world.account.fail_next("UnauthorizedOperation", operation="CreateLaunchTemplate")
    world.provider.launch(several(world))
    world.account.advance(590)
    world.provider.launch(several(world, "m-2"))
    assert calls(world, "CreateFleet", "CreateLaunchTemplate", "RunInstances") == [0, 1, 2]
    world.account.advance(20)
    world.provider.launch(several(world, "m-3"))
    assert calls(world, "CreateFleet", "RunInstances") == [1, 2]


def test_without_any_right_the_refusal_is_told(world: World) -> None:
    world.account.fail_next("UnauthorizedOperation", operation="CreateLaunchTemplate")
    world.account.fail_next("UnauthorizedOperation", operation="RunInstances")
    error = refused(lambda: world.provider.launch(several(world)))
    assert error.error_class is ErrorClass.AUTH
    assert "RunInstances" in str(error)


# ------------------------------------------------------------------------------ listings that lag


def test_machine_that_is_not_shown_yet_is_a_launch_that_goes_on(world: World) -> None:
    world.account.set_lag(30)
    sell(world, OTHER_TYPE)
    request = several(world)
    launched = world.provider.launch(request)
    assert launched.operation
    assert launched.provider_id == only(world).id
    assert world.open().launch_result(request, launched.operation) == launched
    world.account.advance(31)
    done = world.open().launch_result(request, launched.operation)
    assert (done.operation, done.provider_id, done.offer) == ("", launched.provider_id, OTHER_TYPE)
    assert done.at == world.account.now() - (world.account.now() - launched.at)
    assert world.account.resources()["schedule"] == [done.provider_id]


def test_machine_that_is_never_shown_has_ended(world: World) -> None:
    """The answer of a fleet is repeated long after its machine has ended and was forgotten."""
    request = several(world)
    first = world.provider.launch(request)
    world.account.shut_down(first.provider_id)
    world.account.advance(7200)
    again: Launched = world.open().launch(request)
    assert (again.provider_id, bool(again.operation)) == (first.provider_id, True)
    world.account.advance(299)
    assert world.open().launch_result(request, again.operation).operation
    world.account.advance(1)
    error = refused(lambda: world.open().launch_result(request, again.operation))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "Ended")
    assert not list(world.account.living())


def test_machine_that_ended_meanwhile_is_not_made_anew(world: World) -> None:
    request = several(world)
    launched = world.provider.launch(request)
    world.account.break_down(launched.provider_id)
    assert refused(lambda: world.open().launch(request)).raw_code == "Ended"
    assert not list(world.account.living())


@pytest.mark.parametrize("operation", ["RunInstances", "CreateFleet"])
def test_token_of_a_machine_that_has_ended_says_so(world: World, operation: str) -> None:
    """EC2 was seen to refuse such a token in place of giving the first answer again."""
    world.account.fail_next("IdempotentInstanceTerminated", operation=operation)
    request = several(world) if operation == "CreateFleet" else world.request()
    error = refused(lambda: world.provider.launch(request))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "Ended")


def test_other_alternatives_under_the_same_key_buy_no_second_machine(world: World) -> None:
    first = world.provider.launch(several(world))
    assert world.open().launch(several(world, others=(OTHER_TYPE,))).provider_id == (
        first.provider_id
    )
    world.account.set_lag(30)
    second = world.provider.launch(several(world, "m-2"))
    fewer = several(world, "m-2", others=(OTHER_TYPE,))
    error = refused(lambda: world.open().launch(fewer))
    assert (error.error_class, error.raw_code) == (
        ErrorClass.TRANSIENT,
        "IdempotentParameterMismatch",
    )
    world.account.advance(30)
    assert world.open().launch(fewer).provider_id == second.provider_id
    assert len(list(world.account.living())) == 2
