"""What happens to a deployment in its life, so that its functions do all that they ever do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes import notices
from tests.unit.infra.plane import BUYS_IN, PROFILE, STAGE, Agent, Plane, Refused

ACCOUNT = "123456789012"
LIFE_LIMIT = f"arn:aws:iam::{ACCOUNT}:role/orchctl-life-limit-{STAGE}"
PAGER = f"/orchctl/{STAGE}/pager"
"""Where the address of whoever is told of failed jobs is kept."""
FLEET = f"orchctl-{STAGE}-research"

DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: {name}
queues:
  {name}: {{pools: [small], ageing: 10m}}
pools:
  small:
    cpu: 4..8
    market: {market}
    clouds: {{aws: {settings}}}
    machines: {{max: 2}}
    idle_timeout: 5m
"""
ALERTS = """\
alerts:
  - {webhook: secret://pager, on: [job-failed]}
"""


def live(plane: Plane) -> None:
    """Two autoscalers, one of spot machines by fleets, one of machines on demand; jobs of every
    fate; people who look at everything; machines that end in every way."""
    _declare(plane)
    plane.invoke("prices", {})
    jobs = _submit(plane)
    _people_change_their_minds(plane, jobs)
    _buy(plane)
    agents = _boot(plane)
    _work(plane, agents)
    (message,) = plane.ask("GET", "/v1/deliveries")["items"]
    assert "not of the public network" in message["problem"], message
    _people_look(plane)
    _interrupt(plane)
    _leave(plane, agents)
    _silence(plane)
    _delete(plane)


def settings(**more: object) -> str:
    """Of AWS in a document, as the deployment's outputs say."""
    return json.dumps(
        {
            "regions": [BUYS_IN],
            "instance_profile": PROFILE,
            "life_limit_role": LIFE_LIMIT,
            **more,
        }
    )


def apply(plane: Plane, name: str, market: str, tail: str = "", **more: object) -> None:
    """Declare an autoscaler, with a queue of its name, or change it; `tail` ends the document."""
    text = DOCUMENT.format(name=name, market=market, settings=settings(**more)) + tail
    known = {each["name"] for each in plane.ask("GET", "/v1/autoscalers")["items"]}
    seen = {"if_match": "*"} if name in known else {"if_none_match": "*"}
    plane.ask("PUT", f"/v1/autoscalers/{name}", {"document": text}, **seen)


def _declare(plane: Plane) -> None:
    ec2 = _ec2(plane)
    groups = [each["GroupId"] for each in ec2.describe_security_groups()["SecurityGroups"]]
    plane.account.parameters[PAGER] = "https://127.0.0.1/pager"
    apply(plane, "research", "spot", ALERTS)
    apply(plane, "steady", "on-demand", security_groups=groups[:1])
    apply(plane, "steady", "on-demand", security_groups=groups[:1], public_ip=True)
    plane.ask("POST", "/v1/queues", {"name": "aside"})


def _submit(plane: Plane) -> dict[str, str]:
    archive = b"an archive"
    sha256 = hashlib.sha256(archive).hexdigest()
    plane.ask("PUT", f"/v1/blobs/sources/{sha256}", archive)
    source = {"kind": "archive", "blob": f"sources/{sha256}", "sha256": sha256}
    job = {"command": "true", "queue": "research", "cpu": 1}
    jobs = {
        "first": {**job, "source": source, "artifacts": ["out/*"]},
        "after": {**job, "queue": "aside"},
        "second": job,
        "long": {**job, "command": "true" + " " * 30_000},
        "moved": job,
        "steady": {**job, "queue": "steady"},
        "gone": {**job, "queue": "aside"},
    }
    made: dict[str, str] = {}
    for name, body in jobs.items():
        key = {"idempotency_key": f"00000000-0000-4000-8000-{len(made):012}"}
        answer = plane.ask("POST", "/v1/jobs", body, **key)
        assert plane.ask("POST", "/v1/jobs", body, **key)["id"] == answer["id"]
        made[name] = answer["id"]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    plane.ask("POST", "/v1/jobs", {**job, "queue": "aside", "not_before": later})
    waits = {**job, "depends_on": [made["after"]]}
    made["waiting"] = plane.ask("POST", "/v1/jobs", waits)["id"]
    return made


def _people_change_their_minds(plane: Plane, jobs: Mapping[str, str]) -> None:
    plane.ask("PUT", f"/v1/jobs/{jobs['moved']}/position", {"place": "top"}, if_match="*")
    aside = {"place": "bottom", "queue": "aside"}
    plane.ask("PUT", f"/v1/jobs/{jobs['moved']}/position", aside, if_match="*")
    plane.ask("POST", f"/v1/jobs/{jobs['gone']}/clone", {})
    plane.ask("POST", f"/v1/jobs/{jobs['after']}/cancel")
    plane.ask("POST", "/v1/queues/aside/pause")
    plane.ask("POST", "/v1/queues/aside/resume")
    plane.ask("PUT", "/v1/queues/aside/limits", {"max_running": 1, "max_running_per_owner": 1})
    plane.ask("POST", "/v1/queues/aside/redrive")
    plane.ask("POST", "/v1/queues/aside/clear")
    plane.ask("DELETE", "/v1/queues/aside")
    plane.ask("POST", "/v1/autoscalers/research/pause")
    plane.ask("POST", "/v1/autoscalers/research/resume")
    plane.ask("POST", "/v1/reconcile")
    with suppress(Refused):  # what is refused half-way is not kept as an answer
        plane.ask("POST", "/v1/jobs", {"command": "true", "queue": "none"}, idempotency_key="k-1")


def _buy(plane: Plane) -> None:
    for _ in range(3):
        plane.invoke("reconcile", {"woken": True})
        plane.account.advance(1)
    assert len(plane.account.machines()) == 2, plane.account.machines()


def _boot(plane: Plane) -> dict[str, Agent]:
    return {
        vm["tags"]["orchctl-fleet"].rpartition("-")[2]: Agent(
            plane, vm["tags"]["orchctl-machine"], vm["id"]
        )
        for vm in plane.account.machines()
    }


def _work(plane: Plane, agents: Mapping[str, Agent]) -> None:
    research = agents["research"]
    claimed = research.say("claim", {"running": [], "limit": 8})["jobs"]
    assert claimed
    running = [f"{job['job_id']}:{job['epoch']}" for job in claimed]
    research.say("beat", {"running": running})
    for number, job in enumerate(claimed):
        at, epoch = f"jobs/{job['job_id']}", job["epoch"]
        research.say(f"{at}/start", {"epoch": epoch})
        research.say(f"{at}/logs?epoch={epoch}&offset=0", b"hello")
        research.say(f"{at}/logs?epoch={epoch}&offset=5", b"\nagain")
        if job["source"]["sha256"]:
            research.say(f"{at}/source?epoch={epoch}", None, "GET")
        research.say(f"{at}/artifacts/out/a.txt?epoch={epoch}", b"kept", "PUT")
        kept = {"name": "out/a.txt", "size_bytes": 4, "sha256": hashlib.sha256(b"kept").hexdigest()}
        ended = ("succeeded", "failed", "returned")[number % 3]
        told = {"epoch": epoch, "outcome": ended, "exit_code": number % 3, "artifacts": [kept]}
        research.say(f"{at}/finish", told)
        for part in ("logs", "artifacts", "attempts"):
            plane.ask("GET", f"/v1/jobs/{job['job_id']}/{part}")
    plane.ask("GET", f"/v1/jobs/{claimed[0]['job_id']}/artifacts/out/a.txt")
    (job,) = agents["steady"].say("claim", {"running": [], "limit": 1})["jobs"]
    plane.ask("POST", f"/v1/jobs/{job['job_id']}/cancel")
    agents["steady"].say("beat", {"running": [f"{job['job_id']}:{job['epoch']}"]})
    plane.invoke("reconcile", {})


def _people_look(plane: Plane) -> None:
    for path in (
        "jobs",
        "jobs?queue=research&limit=1",
        "queues",
        "queues/research",
        "queues/research/waits",
        "machines?all=true",
        "autoscalers",
        "autoscalers/research/explain?queue=research",
        "autoscalers/research/plans",
        "autoscalers/research/history",
        "events",
        "offers",
        "costs",
        "metrics",
    ):
        plane.ask("GET", f"/v1/{path}")
    for path in ("", "queues", "machines", "jobs", "cost", "autoscalers"):
        plane.ask("GET", f"/{path}")


def _interrupt(plane: Plane) -> None:
    spot, steady = sorted(plane.account.machines(), key=lambda vm: not vm["spot"])
    now = datetime.now(UTC)
    plane.invoke("interruption", notices.aws_rebalance(spot["id"], now))
    plane.invoke("interruption", notices.aws_warning(spot["id"], now))
    plane.invoke("interruption", notices.aws_state(steady["id"], "shutting-down", now))
    plane.invoke("interruption", notices.aws_warning("i-0123456789abcdef0", now))


def _leave(plane: Plane, agents: Mapping[str, Agent]) -> None:
    agents["research"].say("notice", {"kind": "spot", "seconds_left": 100})
    agents["research"].say("leave", {"why": "interrupted"})
    steady = next(vm for vm in plane.account.machines() if not vm["spot"])
    plane.ask("POST", f"/v1/machines/{steady['tags']['orchctl-machine']}/terminate")
    for _ in range(4):
        plane.invoke("reconcile", {})
        plane.account.advance(1)


def _silence(plane: Plane) -> None:
    """A machine that never comes, one that boots as it is taken, and all that is left behind."""
    plane.ask("POST", "/v1/jobs", {"command": "true", "queue": "research", "cpu": 1})
    plane.account.fail_next("UnauthorizedOperation", operation="CreateFleet")
    plane.invoke("reconcile", {"woken": True})
    for vm in plane.account.machines():
        plane.invoke("interruption", notices.aws_warning(vm["id"], datetime.now(UTC)))
    _leave_behind(plane)
    plane.advance(timedelta(hours=25))
    for _ in range(2):  # what has no age must have been left for a while
        plane.invoke("prices", {})
        plane.advance(timedelta(minutes=11))
    for _ in range(4):
        plane.invoke("reconcile", {})
        plane.account.advance(30)


def _leave_behind(plane: Plane) -> None:
    ec2 = _ec2(plane)
    tags = [{"Key": "orchctl-fleet", "Value": FLEET}, {"Key": "orchctl-machine", "Value": "m-7"}]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]

    def labelled(kind: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": tags}]

    ec2.create_volume(Size=10, AvailabilityZone=f"{BUYS_IN}b", TagSpecifications=labelled("volume"))
    ec2.create_network_interface(SubnetId=subnet, TagSpecifications=labelled("network-interface"))
    ec2.allocate_address(Domain="vpc", TagSpecifications=labelled("elastic-ip"))


def _delete(plane: Plane) -> None:
    for name in ("research", "steady"):
        plane.ask("DELETE", f"/v1/autoscalers/{name}")
    for _ in range(6):
        plane.invoke("reconcile", {})
        plane.account.advance(30)
    assert not plane.account.machines()
    assert plane.ask("GET", "/v1/autoscalers")["items"] == []


def _ec2(plane: Plane) -> Any:
    """Of the owner of the account, whom nobody records."""
    import botocore.session

    return botocore.session.get_session().create_client("ec2", region_name=BUYS_IN)
