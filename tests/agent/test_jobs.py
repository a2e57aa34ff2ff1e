"""Proves that a real agent process runs jobs as it was told and reports exactly what happened."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent_bootstrap.wire import SourceRef
from tests.agent.conftest import Stage
from tests.agent.server import Fault, eventually
from tests.agent.storage import FakeStorage


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_a_job_gives_its_exit_code_and_exactly_its_output(stage: Stage) -> None:
    job_id = stage.give("printf 'out\\n'; printf 'err\\0\\377' >&2; exit 7")
    stage.start()
    job = stage.finish(job_id)
    assert (job.finished.outcome, job.finished.exit_code) == ("failed", 7)
    assert bytes(job.log) == b"out\nerr\0\377"
    assert (job.starts, len(job.finishes)) == (1, 1)


def test_what_a_killed_agent_left_of_an_attempt_is_not_seen(stage: Stage) -> None:
    job_id = stage.give("ls -A")
    left = stage.directory / "machine0" / "jobs" / f"{job_id}-1"
    (left / "work" / "old").mkdir(parents=True)
    (left / "log").write_text("of then\n")
    stage.start()
    job = stage.finish(job_id)
    assert (job.finished.outcome, bytes(job.log)) == ("succeeded", b"")


@pytest.mark.parametrize("fault", [Fault(status=500, times=2), Fault(drop=True, times=2)])
def test_a_log_survives_failed_and_doubled_uploads_in_order(stage: Stage, fault: Fault) -> None:
    stage.plane.faults["logs"] = replace(fault)
    job_id = stage.give("seq 1 200000")
    stage.start()
    job = stage.finish(job_id)
    assert "logs" not in stage.plane.faults
    assert job.finished.outcome == "succeeded"
    assert bytes(job.log) == b"".join(b"%d\n" % number for number in range(1, 200001))


def test_artifacts_are_uploaded_and_nothing_outside_is(stage: Stage) -> None:
    (stage.directory / "secret").write_text("no")
    job_id = stage.give(
        "mkdir -p out/deep; printf model >out/deep/m.bin; printf r >result.json;"
        f" ln -s {stage.directory}/secret out/link; ln -s {stage.directory} away",
        artifacts=["out/", "*.json", "away/*", "../*", "/etc/hostname", ""],
    )
    stage.start()
    job = stage.finish(job_id)
    assert job.artifacts == {"out/deep/m.bin": b"model", "result.json": b"r"}
    listed = {each.name: (each.size_bytes, each.sha256) for each in job.finished.artifacts}
    assert listed["out/deep/m.bin"] == (5, hashlib.sha256(b"model").hexdigest())
    assert set(listed) == set(job.artifacts)


def test_a_refused_artifact_is_named_and_does_not_fail_the_job(stage: Stage) -> None:
    stage.plane.faults["artifacts"] = Fault(status=422, code="invalid-input")
    job_id = stage.give("touch a b", artifacts=["a", "b"])
    stage.start()
    finished = stage.finish(job_id).finished
    assert finished.outcome == "succeeded"
    assert [each.name for each in finished.artifacts] == ["b"]
    assert "not stored: a (422" in finished.reason


def test_a_large_artifact_is_put_elsewhere_and_a_small_one_here(
    stage: Stage, storage: FakeStorage
) -> None:
    stage.plane.elsewhere = storage.url
    stage.plane.advice.direct_above_bytes = 5
    busy = (503, b"<Error><Code>SlowDown</Code></Error>")
    storage.script = [busy, busy]
    names = {"large 1.bin": b"123456", "small": b"12345"}
    command = "; ".join(f"printf {data.decode()} >'{name}'" for name, data in names.items())
    job_id = stage.give(command, artifacts=["*"])
    stage.start()
    job = stage.finish(job_id)

    assert job.artifacts == {"small": names["small"]}
    assert storage.files == {f"/jobs/{job_id}/artifacts/large%201.bin": names["large 1.bin"]}
    sha256 = hashlib.sha256(names["large 1.bin"]).hexdigest()
    asked = stage.plane.told("artifacts")
    assert asked == [{"epoch": 1, "size_bytes": 6, "sha256": sha256}] * 3
    # Each attempt has a new address, the signed headers, and no token.
    assert len({each.path for each in storage.seen}) == 3
    assert {each.headers["x-amz-checksum-sha256"] for each in storage.seen} == {sha256}
    assert {each.headers["content-length"] for each in storage.seen} == {"6"}
    assert not [each for each in storage.seen if "authorization" in each.headers]
    listed = {each.name: (each.size_bytes, each.sha256) for each in job.finished.artifacts}
    assert listed["large 1.bin"] == (6, sha256)


def test_a_large_artifact_that_the_storage_refuses_is_named(
    stage: Stage, storage: FakeStorage
) -> None:
    stage.plane.elsewhere = storage.url
    stage.plane.advice.direct_above_bytes = 1
    storage.script = [(403, b"<Error><Code>AccessDenied</Code></Error>")]
    job_id = stage.give("printf ab >a", artifacts=["a"])
    stage.start()
    finished = stage.finish(job_id).finished
    assert (finished.outcome, finished.artifacts) == ("succeeded", [])
    assert finished.reason == "not stored: a (403 AccessDenied from the storage)"


def test_without_advice_every_artifact_is_sent_here(stage: Stage, storage: FakeStorage) -> None:
    stage.plane.elsewhere = storage.url
    job_id = stage.give("head -c 5000000 /dev/zero >a", artifacts=["a"])
    stage.start()
    assert stage.finish(job_id).artifacts == {"a": bytes(5_000_000)}
    assert storage.seen == []


def test_two_jobs_run_side_by_side(stage: Stage) -> None:
    meet = "touch {mine}; while [ ! -e {other} ]; do sleep 0.02; done"
    one, two = (str(stage.directory / name) for name in ("one", "two"))
    jobs = [
        stage.give(meet.format(mine=one, other=two)),
        stage.give(meet.format(mine=two, other=one)),
    ]
    stage.start()
    assert [stage.finish(job).finished.outcome for job in jobs] == ["succeeded", "succeeded"]


def test_a_job_sees_its_own_variables_and_none_of_the_agents(stage: Stage) -> None:
    job_id = stage.give("env; pwd", env={"LR": "3e-4", "ORCHCTL_JOB_ID": "forged"}, queue="q")
    machine = stage.start()
    lines = stage.finish(job_id).text.splitlines()
    expected = {f"ORCHCTL_JOB_ID={job_id}", f"ORCHCTL_MACHINE={machine.id}", "ORCHCTL_ATTEMPT=1"}
    assert expected | {"ORCHCTL_QUEUE=q", "LR=3e-4"} <= set(lines)
    assert not [line for line in lines if "TOKEN" in line or "forged" in line]


def test_a_job_leaves_no_files_and_no_processes(stage: Stage, alive: Callable[[int], bool]) -> None:
    job_id = stage.give("pwd; setsid sleep 600 & echo $!; sleep 600 & echo $!")
    stage.start()
    directory, *pids = stage.finish(job_id).text.split()
    eventually(lambda: not Path(directory).parent.exists(), "the job's directory is removed")
    assert not [pid for pid in pids if alive(int(pid))]


def test_an_archive_becomes_the_jobs_directory(stage: Stage) -> None:
    data = archive({"main.sh": "cat data/in.txt", "data/in.txt": "hello"})
    ref = SourceRef(kind="archive", sha256=hashlib.sha256(data).hexdigest())
    job_id = stage.give("sh main.sh", source=ref)
    stage.plane.sources[job_id] = data
    stage.start()
    assert stage.finish(job_id).text == "hello"


def test_an_archive_may_be_elsewhere(stage: Stage, storage: FakeStorage) -> None:
    data = archive({"main.sh": "echo hello"})
    ref = SourceRef(kind="archive", sha256=hashlib.sha256(data).hexdigest())
    stage.plane.elsewhere = storage.url
    storage.script = [None, (500, b"")]
    job_id = stage.give("sh main.sh", source=ref)
    storage.files[f"/jobs/{job_id}/source"] = data
    stage.start()
    assert stage.finish(job_id).text == "hello\n"
    assert len({each.path for each in storage.seen}) == 3
    assert not [each for each in storage.seen if "authorization" in each.headers]


def test_an_archive_that_is_nowhere_fails_the_job(stage: Stage, storage: FakeStorage) -> None:
    stage.plane.elsewhere = storage.url
    job_id = stage.give("true", source=SourceRef(kind="archive", sha256="0" * 64))
    stage.start()
    finished = stage.finish(job_id).finished
    expected = "the source archive cannot be had: 404 NoSuchKey from the storage"
    assert (finished.outcome, finished.reason) == ("failed", expected)


def test_another_archive_than_submitted_is_not_run(stage: Stage) -> None:
    job_id = stage.give("true", source=SourceRef(kind="archive", sha256="0" * 64))
    stage.plane.sources[job_id] = archive({"a": "b"})
    stage.start()
    job = stage.finish(job_id)
    assert (job.finished.outcome, job.finished.exit_code, job.starts) == ("failed", -1, 0)
    assert "SHA-256" in job.finished.reason


def test_a_git_commit_is_checked_out_and_the_archive_laid_over_it(stage: Stage) -> None:
    remote = stage.directory / "remote"
    git = ["git", "-C", str(remote), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q", str(remote)], check=True)
    (remote / "kept").write_text("committed ")
    (remote / "changed").write_text("old")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    data = archive({"changed": "new"})
    ref = SourceRef("git", str(remote), commit, hashlib.sha256(data).hexdigest())
    job_id = stage.give("cat kept changed", source=ref)
    stage.plane.sources[job_id] = data
    stage.start()
    assert stage.finish(job_id).text.endswith("committed new")


def test_a_failing_checkout_fails_the_job_with_gits_own_words(stage: Stage) -> None:
    gone = str(stage.directory / "gone")
    job_id = stage.give("true", source=SourceRef("git", gone, "a" * 40))
    sly = stage.give("true", source=SourceRef("git", gone, "--upload-pack=touch pwned"))
    stage.start()
    job = stage.finish(job_id)
    assert (job.finished.outcome, job.starts) == ("failed", 0)
    assert "does not exist" in job.finished.reason
    assert "must be a commit hash" in stage.finish(sly).finished.reason


def test_a_dropped_answer_to_finish_is_repeated(stage: Stage) -> None:
    stage.plane.faults["finish"] = Fault(drop=True)
    job_id = stage.give("exit 3")
    stage.start()
    job = stage.plane.job(job_id)
    eventually(lambda: len(job.finishes) == 2, "finish is repeated")
    assert job.finishes[0] == job.finishes[1]
    assert job.starts == 1


def test_a_dropped_answer_to_claim_loses_no_job_and_doubles_none(stage: Stage) -> None:
    stage.plane.faults["claim"] = Fault(drop=True)
    job_id = stage.give("echo once")
    stage.start()
    job = stage.finish(job_id)
    assert (job.text, job.starts) == ("once\n", 1)


def test_a_job_whose_start_is_refused_is_killed_and_not_reported(stage: Stage) -> None:
    stage.plane.faults["start"] = Fault(status=409, code="stale-epoch")
    refused = stage.give("sleep 1000")
    stage.start()
    eventually(lambda: "start" not in stage.plane.faults, "the start is refused")
    stage.finish(stage.give("true"))
    eventually(lambda: stage.plane.told("beat")[-1]["running"] == [], "nothing runs any more")
    assert stage.plane.job(refused).finishes == []


def test_a_command_does_not_wait_for_the_answer_to_its_start(stage: Stage) -> None:
    stage.plane.advice = replace(stage.plane.advice, beat_s=30.0)
    # The answer comes after the command has run, if the command does not wait for it.
    started, ran = stage.directory / "started", stage.directory / "ran"
    job_id = stage.give(f"touch {started}; sleep 0.5; [ -e {ran} ]")

    def run_meanwhile() -> bool:
        if started.exists():
            ran.touch()
        return ran.exists()

    stage.plane.faults["start"] = Fault(until=run_meanwhile)
    stage.start()
    job = stage.finish(job_id)
    assert (job.finished.outcome, job.starts) == ("succeeded", 1)


def test_a_job_whose_lease_may_be_over_does_not_run_before_its_start_is_granted(
    stage: Stage,
) -> None:
    # As if the way to the control plane had taken longer than a beat.
    stage.plane.advice = replace(stage.plane.advice, beat_s=0.0)
    stage.plane.faults["start"] = Fault(status=409, code="stale-epoch")
    mark = stage.directory / "ran"
    refused = stage.give(f"touch {mark}")
    stage.start()
    eventually(lambda: "start" not in stage.plane.faults, "the start is refused")
    stage.finish(stage.give("true"))
    assert not mark.exists()
    assert stage.plane.job(refused).finishes == []


def test_a_job_that_wants_more_gpus_than_there_are_is_given_back(stage: Stage) -> None:
    job_id = stage.give("true", gpus=99)
    stage.start()
    job = stage.finish(job_id)
    assert (job.finished.outcome, job.starts) == ("returned", 0)
