"""Proves that the start-up text of each cloud makes a machine that works, hands its job back when
it is taken away, and ends, whatever happens. Machines are process trees without systemd here."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import pytest

from agent_bootstrap import shutdown, user_data
from tests.agent.conftest import Stage
from tests.agent.server import Fault, eventually
from tests.agent.vm import STARTUPS, ProcessVm, startup
from tests.fakes.metadata.server import NAME, PROJECT, RESOURCE, ZONE, Metadata

SAVES = "trap 'echo saved; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
NOTICE_S = {"aws": 120.0, "gcp": 30.0, "azure": 30.0}
"""What each cloud gives."""
DELETED = {
    "aws": [],
    "gcp": [f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/{NAME}"],
    "azure": [RESOURCE],
}
clouds = pytest.mark.parametrize("cloud", list(STARTUPS))


@pytest.fixture
def vms(stage: Stage) -> Iterator[list[ProcessVm]]:
    vms: list[ProcessVm] = []
    yield vms
    for vm in vms:
        vm.cut()


def boot(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm], cloud: str, **settings: object
) -> ProcessVm:
    stage.plane.cloud = cloud
    text = startup(cloud, stage.plane.url, metadata, **settings)
    vms.append(ProcessVm(stage.directory / "vm", text))
    vms[0].boot()
    return vms[0]


@clouds
def test_a_machine_works_and_ends_when_it_is_idle(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm], cloud: str
) -> None:
    stage.plane.advice.idle_timeout_s = 0.3
    job_id = stage.give("echo works")
    vm = boot(stage, metadata, vms, cloud)
    assert stage.finish(job_id).text == "works\n"
    vm.boots[0].wait(30)
    assert vm.shut_down.exists()
    assert metadata.deleted == DELETED[cloud]
    assert "code 0" in vm.log()


@clouds
def test_a_job_is_handed_back_within_five_seconds_of_the_notice(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm], cloud: str
) -> None:
    job_id = stage.give(SAVES, grace_s=60)
    vm = boot(stage, metadata, vms, cloud)
    stage.printed(job_id, "ready")
    metadata.preempt(NOTICE_S[cloud])
    taken_at = time.monotonic()
    job = stage.finish(job_id)
    assert time.monotonic() - taken_at < 5.0
    assert job.text.endswith("saved\n")
    assert (job.finished.outcome, job.finished.exit_code) == ("interrupted", 9)
    (notice,) = stage.plane.told("notice")
    assert notice["kind"] == "spot"
    assert NOTICE_S[cloud] - 15 < notice["seconds_left"] < NOTICE_S[cloud]
    vm.boots[0].wait(30)
    assert stage.plane.told("leave") == [{"why": "interrupted"}]
    assert vm.shut_down.exists()
    assert metadata.deleted == DELETED[cloud]
    assert len(metadata.started) == (cloud == "azure"), "only Azure is told that it may go ahead"


def test_when_the_system_stops_a_job_has_the_time_that_a_cloud_leaves(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm]
) -> None:
    job_id = stage.give(SAVES, grace_s=60)
    vm = boot(stage, metadata, vms, "gcp")
    stage.printed(job_id, "ready")
    metadata.preempt(30)
    vm.boots[0].terminate()  # Google announces it to the system at the same moment
    assert stage.finish(job_id).finished.outcome == "interrupted"
    vm.boots[0].wait(30)
    told = {(notice["kind"], notice["seconds_left"]) for notice in stage.plane.told("notice")}
    assert ("maintenance", 25.0) in told
    assert told <= {("maintenance", 25.0), ("spot", 25.0)}
    assert vm.shut_down.exists()


@clouds
def test_another_agent_than_expected_is_not_run(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm], cloud: str
) -> None:
    stage.plane.bundle = b"import pathlib; pathlib.Path('pwned').touch()"
    vm = boot(stage, metadata, vms, cloud)
    vm.boots[0].wait(30)
    assert "SHA-256" in vm.log()
    assert not (vm.place / "agent.pyz").exists()
    assert not (vm.place / "pwned").exists()
    assert vm.shut_down.exists()
    assert metadata.deleted == DELETED[cloud]


@clouds
def test_a_machine_that_never_reaches_the_control_plane_ends_by_its_timer(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm], cloud: str
) -> None:
    stage.plane.faults["bundle.pyz"] = Fault(status=503, times=1000)
    vm = boot(stage, metadata, vms, cloud, boot_timeout_s=1)
    eventually(vm.shut_down.exists, "it shuts down")
    assert "has not registered" in vm.log()
    assert metadata.deleted == DELETED[cloud]


def test_a_fetch_that_fails_is_repeated(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm]
) -> None:
    stage.plane.faults["bundle.pyz"] = Fault(status=503, times=2)
    stage.plane.advice.idle_timeout_s = 0
    vm = boot(stage, metadata, vms, "aws")
    vm.boots[0].wait(30)
    assert "code 0" in vm.log()


def test_a_hanging_agent_does_not_outlive_the_life_limit(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm], monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = b"open('registered', 'w').close()\nimport time\ntime.sleep(600)\n"
    stage.plane.bundle = hanging
    monkeypatch.setattr(user_data, "LIFE_MARGIN_S", 0)
    vm = boot(
        stage,
        metadata,
        vms,
        "gcp",
        agent_sha256=hashlib.sha256(hanging).hexdigest(),
        max_lifetime_s=3,
    )
    eventually(vm.shut_down.exists, "it shuts down")
    assert "its time is over" in vm.log()
    assert metadata.deleted == DELETED["gcp"]


def test_the_boot_timer_spares_a_machine_that_registered(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm]
) -> None:
    vm = boot(stage, metadata, vms, "aws")
    eventually((vm.place / "registered").exists, "the agent registers")
    vm.again("late")
    assert not vm.shut_down.exists()
    (vm.place / "registered").unlink()
    vm.again("late")
    assert vm.shut_down.exists()


def test_life_counts_from_the_first_boot(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_data, "LIFE_MARGIN_S", 0)
    vm = boot(stage, metadata, vms, "gcp", max_lifetime_s=100)
    eventually(lambda: stage.plane.told("register"), "the agent registers")
    vm.cut()
    born = vm.place / "born"
    born.write_text(str(int(born.read_text()) - 100))
    vm.boot().wait(30)
    assert vm.shut_down.exists()
    assert "its time is over" in vm.log()
    assert len(stage.plane.told("register")) == 1


def test_a_machine_that_boots_again_starts_its_agent_again(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm]
) -> None:
    vm = boot(stage, metadata, vms, "gcp")
    eventually(lambda: stage.plane.told("claim"), "the agent works")
    vm.cut()
    stage.plane.faults["register"] = Fault(status=409, code="conflict")
    vm.boot().wait(30)
    # The control plane lets no second agent in for one machine, so that is the machine's end.
    assert f"code {shutdown.UNREGISTERED}" in vm.log()
    assert metadata.deleted == DELETED["gcp"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_machine_that_may_not_delete_itself_shuts_down(
    stage: Stage, metadata: Metadata, vms: list[ProcessVm], status: int
) -> None:
    """Without a service account, without its right, without the machine."""
    metadata.faults[DELETED["gcp"][0]] = [status]
    stage.plane.advice.idle_timeout_s = 0
    vm = boot(stage, metadata, vms, "gcp")
    vm.boots[0].wait(30)
    assert vm.shut_down.exists()
    assert ("not deleted" in vm.log()) == (status != 404)
