"""Proves that jobs and machines end when, how and only when they should, and leave nothing."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_bootstrap import shutdown, wire
from agent_bootstrap.wire import Notice
from tests.agent.conftest import Stage
from tests.agent.server import SESSION, TOKEN, Fault, eventually

Alive = Callable[[int], bool]

STUBBORN = "trap '' TERM; setsid sh -c 'echo pid $$; sleep 600' & wait"
"""Ignores SIGTERM and has a grandchild in a session of its own that does so too."""

SAVES = "trap 'sleep 0.2; echo saved >state; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
"""Does what a training program does with its notice: saves, then ends."""


def pid_of(stage: Stage, job_id: str) -> int:
    stage.printed(job_id, "pid")
    found = re.search(r"pid (\d+)\n", stage.plane.job(job_id).text)
    assert found
    return int(found[1])


# ---------------------------------------------------------------------------------- of a job


def test_cancel_ends_the_whole_tree_even_what_left_the_session(stage: Stage, alive: Alive) -> None:
    job_id = stage.give(STUBBORN, grace_s=0)
    stage.start()
    pid = pid_of(stage, job_id)
    stage.plane.cancel = [job_id]
    finished = stage.finish(job_id).finished
    assert (finished.outcome, finished.exit_code) == ("cancelled", 128 + signal.SIGKILL)
    assert not alive(pid)


def test_a_cancelled_job_may_end_in_its_own_way_within_its_grace(stage: Stage) -> None:
    # The shell that the agent started ends at once; the one below it is still saving.
    job_id = stage.give(f'sh -c "{SAVES}"; true', artifacts=["state"])
    stage.start()
    stage.printed(job_id, "ready")
    stage.plane.cancel = [job_id]
    job = stage.finish(job_id)
    assert job.finished.outcome == "cancelled"
    assert job.artifacts == {"state": b"saved\n"}


def test_a_job_beyond_its_time_limit_fails_with_the_reason(stage: Stage) -> None:
    job_id = stage.give("exec sleep 600", timeout_s=1)
    stage.start()
    finished = stage.finish(job_id).finished
    assert (finished.outcome, finished.exit_code) == ("failed", 128 + signal.SIGTERM)
    assert finished.reason == "timed out after 1 s"


@pytest.mark.parametrize("route", ["beat", "logs"])
def test_a_job_that_is_somebody_elses_is_killed_without_a_word(
    stage: Stage, alive: Alive, route: str
) -> None:
    gate = stage.directory / "gate"
    job_id = stage.give(f"(until [ -e {gate} ]; do sleep 0.02; done; echo more) & {STUBBORN}")
    stage.start()
    pid = pid_of(stage, job_id)
    if route == "beat":
        del stage.plane.leases[f"{job_id}:1"]
        stage.plane.lost = [f"{job_id}:1"]
    else:
        stage.plane.faults["logs"] = Fault(status=409, code="stale-epoch")
        gate.touch()
    eventually(lambda: not alive(pid), "the job is killed")
    eventually(lambda: stage.plane.told("beat")[-1]["running"] == [], "it is dropped")
    assert stage.plane.job(job_id).finishes == []
    assert stage.machines[0].process.poll() is None


# ------------------------------------------------------------------------------ of a machine


def test_an_idle_machine_ends_when_the_control_plane_agrees(stage: Stage) -> None:
    stage.plane.advice.idle_timeout_s = 0.3
    job_id = stage.give("true")
    machine = stage.start()
    assert machine.wait() == shutdown.LEFT
    assert len(stage.finish(job_id).finishes) == 1
    assert stage.plane.told("leave") == [{"why": "idle"}]


def test_a_machine_whose_leave_is_refused_stays_and_takes_work(stage: Stage) -> None:
    stage.plane.advice.idle_timeout_s = 0.2
    stage.plane.agree = False
    machine = stage.start()
    eventually(lambda: len(stage.plane.told("leave")) >= 2, "it asks again")
    assert machine.process.poll() is None
    job_id = stage.give("echo still here")
    assert stage.finish(job_id).text == "still here\n"


def test_a_long_job_is_not_idle_time(stage: Stage) -> None:
    stage.plane.advice.idle_timeout_s = 0.2
    job_id = stage.give("sleep 1")
    stage.start()
    stage.finish(job_id)
    assert stage.plane.told("leave") == []


def test_a_drained_machine_takes_nothing_new_and_leaves_when_its_job_ends(stage: Stage) -> None:
    gate = stage.directory / "gate"
    job_id = stage.give(f"echo up; while [ ! -e {gate} ]; do sleep 0.02; done")
    machine = stage.start()
    stage.printed(job_id, "up")
    stage.plane.drain = True
    beats = len(stage.plane.told("beat"))
    eventually(lambda: len(stage.plane.told("beat")) > beats + 1, "it has heard of the drain")
    refused = stage.give("true")
    gate.touch()
    assert machine.wait() == shutdown.LEFT
    assert stage.finish(job_id).finished.outcome == "succeeded"
    assert stage.plane.told("leave") == [{"why": "drained"}]
    assert stage.plane.job(refused).starts == 0


def test_a_machine_that_is_told_to_end_gives_its_job_back(stage: Stage) -> None:
    job_id = stage.give(SAVES)
    machine = stage.start()
    stage.printed(job_id, "ready")
    stage.plane.end = True
    assert machine.wait() == shutdown.LEFT
    assert stage.finish(job_id).finished.outcome == "returned"


def test_a_machine_as_old_as_it_may_become_gives_its_job_back(stage: Stage, alive: Alive) -> None:
    job_id = stage.give("echo pid $$; exec sleep 600")
    machine = stage.start()
    pid = pid_of(stage, job_id)
    stage.plane.advice.max_lifetime_s = 0.1
    assert machine.wait() == shutdown.LEFT
    assert stage.finish(job_id).finished.outcome == "returned"
    assert stage.plane.told("leave") == [{"why": "max-life"}]
    assert not alive(pid)


def test_a_machine_that_lost_contact_kills_its_jobs_and_ends(stage: Stage, alive: Alive) -> None:
    stage.plane.advice.contact_timeout_s = 1
    job_id = stage.give(STUBBORN, grace_s=600)
    machine = stage.start()
    pid = pid_of(stage, job_id)
    stage.plane.close()
    assert machine.wait() == shutdown.LOST_CONTACT
    assert not alive(pid)


def test_a_control_plane_that_only_fails_is_no_contact(stage: Stage) -> None:
    stage.plane.advice.contact_timeout_s = 1
    machine = stage.start()
    eventually(lambda: stage.plane.told("beat"), "it is at work")
    for route in ("beat", "claim"):
        stage.plane.faults[route] = Fault(status=503, times=10_000)
    assert machine.wait() == shutdown.LOST_CONTACT


def test_a_slow_claim_does_not_delay_the_beats(stage: Stage) -> None:
    stage.plane.advice.contact_timeout_s = 2
    stage.plane.faults["claim"] = Fault(delay_s=3)
    machine = stage.start()
    eventually(lambda: len(stage.plane.told("beat")) > 20, "it beats on")
    assert len(stage.plane.told("claim")) == 1
    assert machine.process.poll() is None


@pytest.mark.parametrize("status", [401, 410])
def test_a_machine_whose_session_is_over_ends(stage: Stage, alive: Alive, status: int) -> None:
    job_id = stage.give(STUBBORN)
    machine = stage.start()
    pid = pid_of(stage, job_id)
    stage.plane.faults["beat"] = Fault(status=status, times=10_000)
    assert machine.wait() == shutdown.SESSION_OVER
    assert not alive(pid)
    assert stage.plane.job(job_id).finishes == []


def test_without_a_control_plane_the_machine_ends_after_its_boot_time(stage: Stage) -> None:
    stage.plane.close()
    machine = stage.start(boot_timeout=0.5)
    assert machine.wait() == shutdown.UNREGISTERED
    assert not (machine.directory / "registered").exists()


def test_registration_is_repeated_by_the_same_instance(stage: Stage) -> None:
    stage.plane.faults["register"] = Fault(drop=True, times=2)
    machine = stage.start()
    eventually((machine.directory / "registered").exists, "it is registered")
    told = stage.plane.told("register")
    assert len(told) == 3
    assert len({message["instance"] for message in told}) == 1


def test_a_second_instance_is_refused_and_ends(stage: Stage) -> None:
    stage.plane.faults["register"] = Fault(status=409, code="conflict")
    assert stage.start().wait() == shutdown.UNREGISTERED


# ----------------------------------------------------------------------------- interruption


def test_a_notice_lets_the_job_save_and_gives_it_back(stage: Stage) -> None:
    job_id = stage.give(SAVES)
    machine = stage.start()
    stage.printed(job_id, "ready")
    notice = machine.directory / "notice"
    notice.write_text(json.dumps({"kind": "spot", "seconds_left": 20}))
    notice.rename(machine.directory / "interrupt")
    assert machine.wait() == shutdown.INTERRUPTED
    finished = stage.finish(job_id).finished
    assert (finished.outcome, finished.exit_code) == ("interrupted", 9)
    assert stage.plane.told("notice") == [{"kind": "spot", "seconds_left": 20}]
    assert stage.plane.told("leave") == [{"why": "interrupted"}]


def test_a_job_that_ignores_the_notice_is_killed_before_the_time_is_over(
    stage: Stage, alive: Alive
) -> None:
    job_id = stage.give(STUBBORN, grace_s=600)
    machine = stage.start()
    pid = pid_of(stage, job_id)
    (machine.directory / "interrupt").write_text("2")
    finished = stage.finish(job_id).finished
    assert (finished.outcome, finished.exit_code) == ("interrupted", 128 + signal.SIGKILL)
    assert machine.wait() == shutdown.INTERRUPTED
    assert not alive(pid)


@pytest.mark.parametrize("route", ["claim", "beat"])
def test_a_notice_that_only_the_control_plane_has_heard(stage: Stage, route: str) -> None:
    job_id = stage.give(SAVES)
    machine = stage.start()
    stage.printed(job_id, "ready")
    stage.plane.taken_in_s[route] = 20.0
    assert machine.wait() == shutdown.INTERRUPTED
    finished = stage.finish(job_id).finished
    assert (finished.outcome, finished.exit_code) == ("interrupted", 9)
    assert finished.reason == "the machine ends: spot notice, 20 s left"
    assert stage.plane.told("notice") == [], "who has said so need not be told"
    assert stage.plane.told("leave") == [{"why": "interrupted"}]


def test_a_machine_that_drains_hears_of_it_long_before_its_next_beat(stage: Stage) -> None:
    stage.plane.advice.beat_s = 60.0
    job_id = stage.give(SAVES)
    machine = stage.start()
    stage.printed(job_id, "ready")
    stage.plane.drain = True
    eventually(lambda: len(stage.plane.told("beat")) > 2, "it listens")
    claims = len(stage.plane.told("claim"))
    stage.plane.taken_in_s["beat"] = 20.0
    assert stage.finish(job_id).finished.outcome == "interrupted"
    assert machine.wait() == shutdown.INTERRUPTED
    assert len(stage.plane.told("claim")) == claims, "it asks for nothing"


def test_the_time_that_the_control_plane_names_is_kept(stage: Stage, alive: Alive) -> None:
    job_id = stage.give(STUBBORN, grace_s=600)
    machine = stage.start()
    pid = pid_of(stage, job_id)
    stage.plane.taken_in_s["beat"] = 2.0
    finished = stage.finish(job_id).finished
    assert (finished.outcome, finished.exit_code) == ("interrupted", 128 + signal.SIGKILL)
    assert machine.wait() == shutdown.INTERRUPTED
    assert not alive(pid)


def test_an_older_control_plane_names_none() -> None:
    assert wire.parse(wire.Beaten, {"drain": True}).taken_in_s < 0
    assert wire.parse(wire.Claimed, {"drain": True}).taken_in_s < 0


def test_a_mere_hint_is_passed_on_and_stops_nothing(stage: Stage) -> None:
    machine = stage.start()
    hint = machine.directory / "hint"
    hint.write_text('{"kind": "rebalance", "seconds_left": 60}')
    hint.rename(machine.directory / "interrupt")
    eventually(lambda: stage.plane.told("notice"), "the hint is passed on")
    assert stage.finish(stage.give("true")).finished.outcome == "succeeded"


@pytest.mark.parametrize(
    ("number", "notice", "code"),
    [
        (signal.SIGUSR1, Notice("spot", 30.0), shutdown.INTERRUPTED),
        (signal.SIGTERM, Notice("maintenance", 10.0), 128 + signal.SIGTERM),
        (signal.SIGINT, Notice("maintenance", 10.0), 128 + signal.SIGINT),
    ],
)
def test_signals_are_notices(
    stage: Stage, number: signal.Signals, notice: Notice, code: int
) -> None:
    job_id = stage.give("echo ready; exec sleep 600")
    machine = stage.start()
    stage.printed(job_id, "ready")
    machine.process.send_signal(number)
    assert machine.wait() == code
    assert stage.finish(job_id).finished.outcome == "interrupted"
    told = stage.plane.told("notice")
    assert told == [{"kind": notice.kind, "seconds_left": notice.seconds_left}]


def test_a_signal_to_all_processes_at_once_is_not_the_jobs_failure(stage: Stage) -> None:
    job_id = stage.give("echo pid $$; exec sleep 600")
    machine = stage.start()
    pid = pid_of(stage, job_id)
    for each in (pid, machine.process.pid):
        os.kill(each, signal.SIGTERM)
    machine.wait()
    assert stage.finish(job_id).finished.outcome == "interrupted"


# ------------------------------------------------------------------------------------- trust


def test_the_token_is_gone_from_disk_and_stands_in_no_process(stage: Stage) -> None:
    job_id = stage.give("echo up; sleep 600")
    machine = stage.start()
    stage.printed(job_id, "up")
    assert not machine.token_file.exists()
    processes = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    looked_at = 0
    for process in processes:
        try:
            shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        looked_at += machine.id.encode() in shown
        assert TOKEN.encode() not in shown
        assert SESSION.encode() not in shown
    assert looked_at >= 2, "the agent and its job were among them"
    console = machine.console.read_text()
    assert "registered" in console
    assert TOKEN not in console
    assert SESSION not in console
