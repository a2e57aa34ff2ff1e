"""Proves that the start-up text of each cloud works on a real Debian under systemd: its timers, its
unit, the order of a shutdown, reboots. Each machine is a container that boots, which takes seconds:
what `test_clouds` proves without systemd is proved here among the long ones."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from agent_bootstrap import user_data
from tests.agent.conftest import Stage
from tests.agent.server import Fault, eventually
from tests.agent.test_clouds import DELETED, NOTICE_S, SAVES, clouds
from tests.agent.vm import ContainerVm, startup
from tests.fakes.metadata.server import Metadata


@pytest.fixture
def vms() -> Iterator[list[ContainerVm]]:
    vms: list[ContainerVm] = []
    yield vms
    for vm in vms:
        vm.close()


def boot(
    stage: Stage, metadata: Metadata, vms: list[ContainerVm], cloud: str, **settings: object
) -> ContainerVm:
    vms.append(ContainerVm())
    stage.plane.cloud = cloud
    text = startup(cloud, stage.plane.url, metadata, **settings)
    vms[0].receive(cloud, text, stage.directory)
    vms[0].boot()
    return vms[0]


@clouds
def test_a_job_is_handed_back_within_five_seconds_of_the_notice(
    stage: Stage, metadata: Metadata, vms: list[ContainerVm], cloud: str
) -> None:
    job_id = stage.give(SAVES, grace_s=60)
    vm = boot(stage, metadata, vms, cloud)
    stage.printed(job_id, "ready")
    metadata.preempt(NOTICE_S[cloud])
    taken_at = time.monotonic()
    job = stage.finish(job_id)
    assert time.monotonic() - taken_at < 5.0
    assert job.text.endswith("saved\n")
    assert job.finished.outcome == "interrupted"
    eventually(vm.off, "the machine shuts down")
    assert set(metadata.deleted) == set(DELETED[cloud])


@pytest.mark.long
def test_an_idle_machine_is_gone(stage: Stage, metadata: Metadata, vms: list[ContainerVm]) -> None:
    stage.plane.advice.idle_timeout_s = 0.3
    job_id = stage.give("echo works in $HOME")
    vm = boot(stage, metadata, vms, "azure")
    assert stage.finish(job_id).text == "works in /root\n"
    eventually(vm.off, "the machine shuts down")
    assert set(metadata.deleted) == set(DELETED["azure"])


def test_a_job_learns_that_the_system_stops(
    stage: Stage, metadata: Metadata, vms: list[ContainerVm]
) -> None:
    job_id = stage.give(SAVES, grace_s=60)
    vm = boot(stage, metadata, vms, "gcp")
    stage.printed(job_id, "ready")
    vm.press_power()
    job = stage.finish(job_id)
    assert (job.finished.outcome, job.finished.exit_code) == ("interrupted", 9)
    assert stage.plane.told("leave") == [{"why": "interrupted"}]
    assert vm.off()


@pytest.mark.long
def test_a_machine_that_never_reaches_the_control_plane_ends_by_its_timer(
    stage: Stage, metadata: Metadata, vms: list[ContainerVm]
) -> None:
    stage.plane.faults["bundle.pyz"] = Fault(status=503, times=1000)
    vm = boot(stage, metadata, vms, "azure", boot_timeout_s=3)
    eventually(vm.off, "the machine shuts down")
    assert set(metadata.deleted) == set(DELETED["azure"])


@pytest.mark.long
@pytest.mark.parametrize("victim", ["[a]gent.pyz", "[s]tartup.sh run"])
def test_a_machine_ends_when_what_it_is_for_was_killed(
    stage: Stage,
    metadata: Metadata,
    vms: list[ContainerVm],
    victim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Where cgroups are of version 1, a container's systemd does not learn that a unit is empty, and
    # waits as long as it may.
    assert "TimeoutStopSec=120" in user_data._CLOUD
    monkeypatch.setattr(
        user_data, "_CLOUD", user_data._CLOUD.replace("TimeoutStopSec=120", "TimeoutStopSec=3")
    )
    vm = boot(stage, metadata, vms, "aws")
    eventually(lambda: stage.plane.told("claim"), "the agent works")
    timers = vm.run("systemctl list-timers orchctl-late.timer orchctl-end.timer")
    assert "orchctl-late.service" in timers
    assert "orchctl-end.service" in timers
    vm.run(f"kill -KILL $(pgrep --oldest --full '{victim}')")
    eventually(vm.off, "the machine shuts down")


@pytest.mark.long
@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_a_machine_whose_power_failed_comes_back_and_ends(
    stage: Stage, metadata: Metadata, vms: list[ContainerVm], cloud: str
) -> None:
    """cloud-init runs the text at the first boot only; the unit that it left runs at each."""
    vm = boot(stage, metadata, vms, cloud)
    eventually(lambda: stage.plane.told("claim"), "the agent works")
    stage.plane.faults["register"] = Fault(status=409, code="conflict")
    vm.cut()
    vm.boot()
    eventually(vm.off, "the machine shuts down")
    assert "register" not in stage.plane.faults
    assert set(metadata.deleted) == set(DELETED[cloud])


@pytest.mark.long
def test_a_text_that_runs_twice_starts_one_agent(
    stage: Stage, metadata: Metadata, vms: list[ContainerVm]
) -> None:
    vm = boot(stage, metadata, vms, "gcp")
    eventually(lambda: stage.plane.told("claim"), "the agent works")
    vm.run("sh /startup-script; sh /startup-script")
    assert vm.run("pgrep --full --count '[a]gent.pyz'").strip() == "1"
    assert stage.finish(stage.give("true")).finished.outcome == "succeeded"
    assert len(stage.plane.told("register")) == 1
