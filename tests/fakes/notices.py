"""What the clouds' own services send of machines, in the form that their pages show.

Sources: as in `providers/*/events.py`.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any


def iso(at: datetime, digits: int = 0) -> str:
    """A time as services write it, with this many digits of its second."""
    fraction = f".{at:%f}000"[: digits + 1] if digits else ""
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"


# --------------------------------------------------------------------------------------- AWS


def aws(detail_type: str, at: datetime, region: str = "us-east-1", **detail: str) -> dict[str, Any]:
    """An event of EC2 as EventBridge delivers it."""
    instance = detail.get("instance-id", "")
    return {
        "version": "0",
        "id": "12345678-1234-1234-1234-123456789012",
        "detail-type": detail_type,
        "source": "aws.ec2",
        "account": "123456789012",
        "time": iso(at),
        "region": region,
        "resources": [f"arn:aws:ec2:{region}:123456789012:instance/{instance}"],
        "detail": detail,
    }


def aws_warning(instance_id: str, at: datetime, region: str = "us-east-1") -> dict[str, Any]:
    """Two minutes before AWS takes a spot instance."""
    detail = {"instance-id": instance_id, "instance-action": "terminate"}
    return aws("EC2 Spot Instance Interruption Warning", at, region, **detail)


def aws_rebalance(instance_id: str, at: datetime) -> dict[str, Any]:
    """A spot instance is likelier to be taken than before."""
    return aws("EC2 Instance Rebalance Recommendation", at, **{"instance-id": instance_id})


def aws_state(instance_id: str, state: str, at: datetime) -> dict[str, Any]:
    """An instance has changed its state."""
    detail = {"instance-id": instance_id, "state": state}
    return aws("EC2 Instance State-change Notification", at, **detail)


# --------------------------------------------------------------------------------------- GCP


def gcp_entry(provider_id: str, method: str, at: datetime) -> dict[str, Any]:
    """A system event of an instance in the audit log."""
    _, project, _, zone, _, _ = provider_id.split("/")
    return {
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
            "status": {"message": "Instance was preempted."},
            "authenticationInfo": {"principalEmail": "system@google.com"},
            "serviceName": "compute.googleapis.com",
            "methodName": method,
            "resourceName": provider_id,
            "request": {"@type": f"type.googleapis.com/{method}"},
        },
        "insertId": "qnwer3e38dfz",
        "resource": {
            "type": "gce_instance",
            "labels": {"instance_id": "1844488190001", "project_id": project, "zone": zone},
        },
        "timestamp": iso(at, 9),
        "severity": "INFO",
        "logName": f"projects/{project}/logs/cloudaudit.googleapis.com%2Fsystem_event",
        "operation": {
            "id": "systemevent-1694860946116",
            "producer": method,
            "first": True,
            "last": True,
        },
        "receiveTimestamp": iso(at, 9),
    }


def gcp_push(entry: Any) -> dict[str, Any]:
    """An entry of a log as Pub/Sub pushes it."""
    return {
        "message": {
            "attributes": {"logging.googleapis.com/timestamp": "2026-03-10T12:00:00Z"},
            "data": base64.b64encode(json.dumps(entry).encode()).decode(),
            "messageId": "2070443601311540",
            "message_id": "2070443601311540",
            "publishTime": "2026-03-10T12:00:00.1Z",
        },
        "subscription": "projects/acme-ml/subscriptions/orchctl-notices",
    }


def gcp_preempted(provider_id: str, at: datetime) -> dict[str, Any]:
    """Google takes an instance, within half a minute."""
    return gcp_push(gcp_entry(provider_id, "compute.instances.preempted", at))


# ------------------------------------------------------------------------------------- Azure


def azure(event_type: str, subject: str, at: datetime, data: Any) -> dict[str, Any]:
    """An event in the schema of Event Grid, of which it delivers lists."""
    return {
        "id": "8945cf9b-e220-496e-ab4f-f3a239318995",
        "topic": "/".join(subject.split("/")[:3]),
        "subject": subject,
        "data": data,
        "eventType": event_type,
        "dataVersion": "1",
        "metadataVersion": "1",
        "eventTime": iso(at, 7),
    }


def azure_annotated(resource_id: str, annotation: str, at: datetime) -> dict[str, Any]:
    """Azure says what becomes of a machine's health, and why."""
    name = "a1b2"
    path = f"{resource_id}/providers/Microsoft.ResourceHealth/resourceAnnotations/{name}"
    properties = {
        "targetResourceId": resource_id,
        "targetResourceType": "Microsoft.Compute/virtualMachines",
        "occurredTime": iso(at, 7),
        "annotationName": annotation,
        "reason": "",
        "summary": "",
        "context": "Platform Initiated",
        "category": "Unplanned",
    }
    return azure(
        "Microsoft.ResourceNotifications.HealthResources.ResourceAnnotated",
        resource_id,
        at,
        {
            "resourceInfo": {
                "id": path,
                "name": name,
                "type": "Microsoft.ResourceHealth/resourceAnnotations",
                "properties": properties,
            },
            "operationalInfo": {"resourceEventTime": iso(at, 7)},
            "apiVersion": "2022-08-01",
        },
    )


def azure_preempted(resource_id: str, at: datetime) -> list[dict[str, Any]]:
    """Azure takes a machine."""
    return [azure_annotated(resource_id, "VirtualMachinePreempted", at)]


def azure_deleted(resource_id: str, at: datetime) -> list[dict[str, Any]]:
    """A resource is deleted, by whomever."""
    kind = "/".join(resource_id.split("/")[6:8])
    data = {
        "resourceProvider": "Microsoft.Compute",
        "resourceUri": resource_id,
        "operationName": f"{kind}/delete",
        "status": "Succeeded",
        "subscriptionId": resource_id.split("/")[2],
    }
    return [azure("Microsoft.Resources.ResourceDeleteSuccess", resource_id, at, data)]


def azure_validation(code: str, at: datetime) -> list[dict[str, Any]]:
    """Whether an address wants to be delivered to."""
    data = {"validationCode": code, "validationUrl": "https://rp-eastus.eventgrid.azure.net/x"}
    return [azure("Microsoft.EventGrid.SubscriptionValidationEvent", "", at, data)]
