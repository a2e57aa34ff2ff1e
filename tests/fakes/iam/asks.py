"""What AWS checks before it carries out a call: one right or several, each with its resource and
what a condition may look at.

Sources: the service authorization reference of each service ("Actions, resources, and condition
keys for …", with its dependent actions); for DynamoDB "Using IAM with DynamoDB transactions"; for
EC2 "Grant permission to tag Amazon EC2 resources during creation" and "EC2 Fleet prerequisites";
for S3 "HeadObject" and "GetObject" (which rights tell an absent object from a forbidden one).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fakes.iam.policy import Ask

Tags = Mapping[str, Mapping[str, str]]
"""The tags of resources that are known, by resource id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an AWS API."""

    service: str
    operation: str
    region: str
    parameters: Mapping[str, Any]
    refused: str = ""
    """The error code of the answer; empty when it was carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where calls are made."""

    id: str
    machine_role: str
    """The role behind the instance profiles of machines."""
    tags: Tags = field(default_factory=dict)
    templates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What launch templates say, by name."""

    def arn(self, service: str, region: str, rest: str) -> str:
        """Of something in the account."""
        return f"arn:aws:{service}:{region}:{self.id}:{rest}"

    def tags_of(self, resource_id: str) -> Mapping[str, str]:
        """As condition keys."""
        found = self.tags.get(resource_id, {})
        return {f"aws:ResourceTag/{name}": value for name, value in found.items()}


def asks(call: Call, account: Account) -> list[Ask]:
    """The rights that a call needs. Raises `KeyError` for a call that nobody has looked up."""
    if call.service == "ec2" and call.operation.startswith("Describe"):
        return [Ask(action=f"ec2:{call.operation}", resource="*")]
    return list(_ASKS[call.service, call.operation](call, account))


# ------------------------------------------------------------------------------------ DynamoDB


def _table(call: Call, account: Account, name: str, action: str) -> Ask:
    table = account.arn("dynamodb", call.region, f"table/{name}")
    return Ask(action=f"dynamodb:{action}", resource=table)


def _one_table(call: Call, account: Account) -> Iterator[Ask]:
    ask = _table(call, account, call.parameters["TableName"], call.operation)
    index = call.parameters.get("IndexName")
    yield Ask(action=ask.action, resource=f"{ask.resource}/index/{index}") if index else ask


def _many_items(call: Call, account: Account) -> Iterator[Ask]:
    for name in call.parameters["RequestItems"]:
        yield _table(call, account, name, call.operation)


_STEPS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}


def _transaction(call: Call, account: Account) -> Iterator[Ask]:
    for step in call.parameters["TransactItems"]:
        ((kind, parameters),) = step.items()
        yield _table(call, account, parameters["TableName"], _STEPS[kind])


# ------------------------------------------------------------------------------------------ S3


def _object(action: str) -> Callable[[Call, Account], Iterator[Ask]]:
    def found(call: Call, _: Account) -> Iterator[Ask]:
        bucket = f"arn:aws:s3:::{call.parameters['Bucket']}"
        yield Ask(action=action, resource=f"{bucket}/{call.parameters['Key']}")
        if call.refused in ("404", "NoSuchKey"):
            # Else the answer would be 403.
            yield Ask(action="s3:ListBucket", resource=bucket)

    return found


def _listing(call: Call, _: Account) -> Iterator[Ask]:
    yield Ask(action="s3:ListBucket", resource=f"arn:aws:s3:::{call.parameters['Bucket']}")


# ----------------------------------------------------------------------------------------- EC2

Tagged = Mapping[str, Mapping[str, str]]
"""Tags of a request by the kind of resource that they are for."""


def _tagged(parameters: Mapping[str, Any]) -> Tagged:
    return {
        each["ResourceType"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]}
        for each in parameters.get("TagSpecifications", ())
    }


def _request_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    return {f"aws:RequestTag/{name}": value for name, value in tags.items()}


def _made(call: Call, account: Account, action: str, kinds: list[str], tags: Tagged) -> list[Ask]:
    """What is made; its id is not known yet."""
    return [
        Ask(
            action=f"ec2:{action}",
            resource=account.arn("ec2", call.region, f"{kind}/*"),
            context=_request_tags(tags.get(kind, {})),
        )
        for kind in kinds
    ]


def _labelling(call: Call, account: Account, tags: Tagged, action: str) -> Iterator[Ask]:
    for kind, own in tags.items():
        yield Ask(
            action="ec2:CreateTags",
            resource=account.arn("ec2", call.region, f"{kind}/*"),
            context={**_request_tags(own), "ec2:CreateAction": action},
        )


def _used(call: Call, account: Account, action: str, parameters: Mapping[str, Any]) -> list[Ask]:
    """What a machine is made from and put into; where nothing is said AWS takes the default."""
    card = (parameters.get("NetworkInterfaces") or [{}])[0]
    subnet = card.get("SubnetId") or parameters.get("SubnetId") or "subnet-default"
    groups = card.get("Groups") or parameters.get("SecurityGroupIds") or ["sg-default"]
    return [
        Ask(
            action=f"ec2:{action}",
            resource=f"arn:aws:ec2:{call.region}::image/{parameters['ImageId']}",
        ),
        *(
            Ask(action=f"ec2:{action}", resource=account.arn("ec2", call.region, each))
            for each in (f"subnet/{subnet}", *(f"security-group/{each}" for each in groups))
        ),
    ]


def _pass_role(role: str, to: str) -> Ask:
    return Ask(action="iam:PassRole", resource=role, context={"iam:PassedToService": to})


def _linked_role(account: Account, service: str, name: str) -> Ask:
    """In an account that has never used the service, its own role is made in the caller's name."""
    return Ask(
        action="iam:CreateServiceLinkedRole",
        resource=f"arn:aws:iam::{account.id}:role/aws-service-role/{service}/{name}",
        context={"iam:AWSServiceName": service},
    )


_MACHINE = ["instance", "volume", "network-interface"]


def _run_instances(call: Call, account: Account) -> Iterator[Ask]:
    asked, tags = call.parameters, _tagged(call.parameters)
    kinds = [*_MACHINE]
    if "InstanceMarketOptions" in asked:
        kinds.append("spot-instances-request")
        yield _linked_role(account, "spot.amazonaws.com", "AWSServiceRoleForEC2Spot")
    yield from _made(call, account, "RunInstances", kinds, tags)
    yield from _used(call, account, "RunInstances", asked)
    yield from _labelling(call, account, tags, "RunInstances")
    if "IamInstanceProfile" in asked:
        yield _pass_role(account.machine_role, "ec2.amazonaws.com")


def _create_fleet(call: Call, account: Account) -> Iterator[Ask]:
    """A fleet runs its machines in the name of whoever calls, from what its templates say."""
    tags = _tagged(call.parameters)
    yield from _made(call, account, "CreateFleet", ["fleet"], tags)
    yield from _labelling(call, account, {"fleet": tags["fleet"]}, "CreateFleet")
    yield _linked_role(account, "ec2fleet.amazonaws.com", "AWSServiceRoleForEC2Fleet")
    for config in call.parameters["LaunchTemplateConfigs"]:
        name = config["LaunchTemplateSpecification"]["LaunchTemplateName"]
        for action in ("CreateFleet", "RunInstances"):
            yield Ask(
                action=f"ec2:{action}",
                resource=account.arn("ec2", call.region, f"launch-template/{name}"),
                context=account.tags_of(name),
            )
        for override in config["Overrides"]:
            yield from _of_a_fleet(call, account, account.templates[name], override)


def _of_a_fleet(
    call: Call, account: Account, template: Mapping[str, Any], override: Mapping[str, Any]
) -> Iterator[Ask]:
    """One machine of a fleet: what the template does not tag the call does."""
    specified = [
        *template.get("TagSpecifications", ()),
        *(each for each in call.parameters["TagSpecifications"] if each["ResourceType"] != "fleet"),
    ]
    asked = {**template, **override, "TagSpecifications": specified}
    tags = _tagged(asked)
    yield from _made(call, account, "CreateFleet", _MACHINE, tags)
    yield from _labelling(call, account, tags, "CreateFleet")
    yield from _used(call, account, "CreateFleet", asked)
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}}
    yield from _run_instances(replace(call, parameters={**asked, **spot}), account)


def _create_launch_template(call: Call, account: Account) -> Iterator[Ask]:
    tags = _tagged(call.parameters)
    yield from _made(call, account, "CreateLaunchTemplate", ["launch-template"], tags)
    yield from _labelling(call, account, tags, "CreateLaunchTemplate")


def _on(kind: str, parameter: str) -> Callable[[Call, Account], Iterator[Ask]]:
    def found(call: Call, account: Account) -> Iterator[Ask]:
        named = call.parameters[parameter]
        for each in [named] if isinstance(named, str) else named:
            yield Ask(
                action=f"ec2:{call.operation}",
                resource=account.arn("ec2", call.region, f"{kind}/{each}"),
                context=account.tags_of(each),
            )

    return found


# ------------------------------------------------------------------------------------ all else


def _invoke(call: Call, account: Account) -> Iterator[Ask]:
    function = account.arn("lambda", call.region, f"function:{call.parameters['FunctionName']}")
    yield Ask(action="lambda:InvokeFunction", resource=function)


def _schedule(call: Call, account: Account) -> Iterator[Ask]:
    group = call.parameters.get("GroupName", "default")
    schedule = account.arn("scheduler", call.region, f"schedule/{group}/{call.parameters['Name']}")
    yield Ask(action=f"scheduler:{call.operation}", resource=schedule)
    if "Target" in call.parameters:
        yield _pass_role(call.parameters["Target"]["RoleArn"], "scheduler.amazonaws.com")


def _parameter(call: Call, account: Account) -> Iterator[Ask]:
    # AWS's own parameters are in nobody's account.
    name = call.parameters["Name"]
    owner = "" if name.startswith("/aws/service/") else account.id
    yield Ask(
        action="ssm:GetParameter",
        resource=f"arn:aws:ssm:{call.region}:{owner}:parameter/{name.lstrip('/')}",
    )


def _quota(call: Call, _: Account) -> Iterator[Ask]:
    yield Ask(action="servicequotas:GetServiceQuota", resource="*")


_ASKS: Mapping[tuple[str, str], Callable[[Call, Account], Iterator[Ask]]] = {
    **{
        ("dynamodb", each): _one_table
        for each in ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query")
    },
    ("dynamodb", "BatchGetItem"): _many_items,
    ("dynamodb", "BatchWriteItem"): _many_items,
    ("dynamodb", "TransactWriteItems"): _transaction,
    ("s3", "GetObject"): _object("s3:GetObject"),
    ("s3", "HeadObject"): _object("s3:GetObject"),
    ("s3", "PutObject"): _object("s3:PutObject"),
    ("s3", "ListObjectsV2"): _listing,
    ("lambda", "Invoke"): _invoke,
    ("ec2", "RunInstances"): _run_instances,
    ("ec2", "CreateFleet"): _create_fleet,
    ("ec2", "CreateLaunchTemplate"): _create_launch_template,
    ("ec2", "TerminateInstances"): _on("instance", "InstanceIds"),
    ("ec2", "DeleteVolume"): _on("volume", "VolumeId"),
    ("ec2", "DeleteNetworkInterface"): _on("network-interface", "NetworkInterfaceId"),
    ("ec2", "DeleteLaunchTemplate"): _on("launch-template", "LaunchTemplateId"),
    ("ec2", "ReleaseAddress"): _on("elastic-ip", "AllocationId"),
    ("scheduler", "CreateSchedule"): _schedule,
    ("scheduler", "DeleteSchedule"): _schedule,
    ("ssm", "GetParameter"): _parameter,
    ("service-quotas", "GetServiceQuota"): _quota,
}
