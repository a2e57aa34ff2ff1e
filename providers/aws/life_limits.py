"""The life limit of AWS's side: a one-time schedule that ends a machine at its deadline.

EC2 has none of its own. EventBridge Scheduler ("Universal targets") calls TerminateInstances once
and then forgets the schedule. It carries the instance id as its name, because that is all that is
known of a machine when it is ended.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from control_plane.errors import ProviderError
from providers.aws import labels, listing
from providers.aws.client import Clients
from providers.aws.errors import answered, code_of
from providers.aws.listing import Instance

_LOG = logging.getLogger(__name__)
_TARGET = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
_RETRIES = 10
"""Of a call that fails; the default of 185 would knock for a day at the door of a machine that is
gone."""


_AT_A_LOOK = 20
"""Schedules made in one look at a region: a look has little time."""
_AGAIN = timedelta(minutes=10)
"""After one that could not be made."""
_NEVER = datetime.max.replace(tzinfo=UTC)


class LifeLimits:
    """Schedules in the default group. They are the last of four ends of a machine: when one cannot
    be made or removed, that is a warning and nothing else. Any number of threads may ask."""

    def __init__(self, clients: Clients, role_arn: str, now: Callable[[], datetime]) -> None:
        """`role_arn` is for where settings name none (`life_limit_role`)."""
        self._clients = clients
        self._role_arn = role_arn
        self._now = now
        self._lock = threading.Lock()
        self._settled: dict[tuple[str, str], datetime] = {}
        """Until when nothing is to be done for an instance, by region and id."""

    def make(
        self, region: str, instance_id: str, deadline: datetime, options: Mapping[str, str]
    ) -> None:
        """End an instance at a time; nothing happens when that is arranged already."""
        role = self._role(options)
        if not role:
            return
        self._settle(region, instance_id, self._now() + _AGAIN)
        with _warned("make", instance_id):
            with _unless("ConflictException"):
                self._create(region, instance_id, deadline, role)
            self._settle(region, instance_id, _NEVER)

    def watch(self, region: str, instances: Sequence[Instance], options: Mapping[str, str]) -> None:
        """Arrange it for those that were found and have none as far as is known: whoever launched
        one may not have come to it."""
        ids = {each["InstanceId"] for each in instances}
        now = self._now()
        with self._lock:
            self._settled = {
                key: until
                for key, until in self._settled.items()
                if key[0] != region or key[1] in ids
            }
            settled = {key[1] for key, until in self._settled.items() if until > now}
        alive = (each for each in instances if listing.state(each) in ("pending", "running"))
        open_ones = [each for each in alive if each["InstanceId"] not in settled]
        for each in open_ones[:_AT_A_LOOK]:
            deadline = labels.read(each).get(labels.DEADLINE, "")
            if deadline.isdecimal():
                until = datetime.fromtimestamp(int(deadline), UTC)
                self.make(region, each["InstanceId"], until, options)

    def forget(self, region: str, instance_id: str, options: Mapping[str, str]) -> None:
        """Take the arrangement back; nothing happens when there is none."""
        if not self._role(options):
            return
        with _warned("remove", instance_id), _unless("ResourceNotFoundException"):
            self._clients.get("scheduler", region).delete_schedule(Name=instance_id)

    def _role(self, options: Mapping[str, str]) -> str:
        return options.get("life_limit_role") or self._role_arn

    def _settle(self, region: str, instance_id: str, until: datetime) -> None:
        with self._lock:
            self._settled[region, instance_id] = until

    def _create(self, region: str, instance_id: str, deadline: datetime, role: str) -> None:
        self._clients.get("scheduler", region).create_schedule(
            Name=instance_id,
            ScheduleExpression=f"at({deadline.astimezone(UTC):%Y-%m-%dT%H:%M:%S})",
            FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target={
                "Arn": _TARGET,
                "RoleArn": role,
                "Input": json.dumps({"InstanceIds": [instance_id]}),
                "RetryPolicy": {"MaximumRetryAttempts": _RETRIES},
            },
        )


@contextmanager
def _warned(verb: str, instance_id: str) -> Iterator[None]:
    try:
        with answered():
            yield
    except ProviderError as error:
        _LOG.warning("could not %s the life limit of %s: %s", verb, instance_id, error)


@contextmanager
def _unless(code: str) -> Iterator[None]:
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if code_of(error) != code:
            raise
