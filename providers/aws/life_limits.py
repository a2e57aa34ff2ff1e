"""The life limit of AWS's side: a one-time schedule that ends a machine at its deadline.

EC2 has none of its own. EventBridge Scheduler ("Universal targets") calls TerminateInstances once
and then forgets the schedule. It carries the instance id as its name, because that is all that is
known of a machine when it is ended.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from control_plane.errors import ProviderError
from providers.aws.client import Clients
from providers.aws.errors import answered, code_of

_LOG = logging.getLogger(__name__)
_TARGET = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
_RETRIES = 10
"""Of a call that fails; the default of 185 would knock for a day at the door of a machine that is
gone."""


class LifeLimits:
    """Schedules in the default group. They are the last of four ends of a machine: when one cannot
    be made or removed, that is a warning and nothing else."""

    def __init__(self, clients: Clients, role_arn: str) -> None:
        self._clients = clients
        self._role_arn = role_arn

    def make(self, region: str, instance_id: str, deadline: datetime) -> None:
        """End an instance at a time; nothing happens when that is arranged already."""
        if not self._role_arn:
            return
        with _warned("make", instance_id), _unless("ConflictException"):
            self._clients.get("scheduler", region).create_schedule(
                Name=instance_id,
                ScheduleExpression=f"at({deadline.astimezone(UTC):%Y-%m-%dT%H:%M:%S})",
                FlexibleTimeWindow={"Mode": "OFF"},
                ActionAfterCompletion="DELETE",
                Target={
                    "Arn": _TARGET,
                    "RoleArn": self._role_arn,
                    "Input": json.dumps({"InstanceIds": [instance_id]}),
                    "RetryPolicy": {"MaximumRetryAttempts": _RETRIES},
                },
            )

    def forget(self, region: str, instance_id: str) -> None:
        """Take the arrangement back; nothing happens when there is none."""
        if not self._role_arn:
            return
        with _warned("remove", instance_id), _unless("ResourceNotFoundException"):
            self._clients.get("scheduler", region).delete_schedule(Name=instance_id)


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
