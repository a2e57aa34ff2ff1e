"""The GitHub action and the GitLab component: their own scripts in a real shell, against a running
control plane with real machines of this computer, and an issuer that signs as theirs would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from control_plane.agents import AgentSettings
from control_plane.core.access import Federation, Grant, Role, Rule
from control_plane.core.model import JobState
from control_plane.core.snapshot import Timing
from control_plane.local import Server, serving
from control_plane.loop import Pace
from orchctl.client import Client
from tests.fakes.issuer import GITLAB, Issuer, real_now
from tests.requires import ROOT, missing

ACTION = ROOT / ".github" / "actions" / "orchctl-run"
COMPONENT = ROOT / "templates" / "orchctl-run.yml"
AUDIENCE = "https://orchctl.example/?a=1&b=2"
DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: ci
queues:
  gpu: {pools: [box]}
  other: {pools: [box]}
pools:
  box:
    clouds: {local: {}}
    machines: {max: 1}
    idle_timeout: 60s
"""
SOON_S = 60.0


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Server]:
    """One for all tests: its machine is up after the first job."""
    with serving(
        tmp_path_factory.mktemp("ci") / "state",
        timing=Timing(lease_s=6, terminate_repeat_s=1),
        agents=AgentSettings(wait_s=2.0, poll_s=0.5, contact_timeout_s=30.0),
        pace=Pace(at_least_s=1.0, unsettled_s=0.2, settle_s=0.02),
    ) as server:
        with Client(server.url, server.plane.admin_token) as admin:
            admin.autoscalers.apply("ci", DOCUMENT, expected_version=0)
        grant = Grant(role=Role.SUBMITTER, queues=("gpu",))
        rules = (
            Rule(claims={"repository": ("acme/train",)}, grant=grant),
            Rule(claims={"project_path": ("acme/train",)}, grant=grant),
        )
        server.plane.store.federation_put(
            Federation(
                name="ci",
                issuer=issuer.url,
                audience=AUDIENCE,
                rules=rules,
                applied_at=real_now(),
                applied_by="admin",
            ),
            expected_version=0,
        )
        yield server
        server.end_machines()


@pytest.fixture
def admin(server: Server) -> Iterator[Client]:
    with Client(server.url, server.plane.admin_token) as client:
        yield client


def shell(name: str) -> str:
    """Where a program is; the scripts need it."""
    for folder in os.environ["PATH"].split(os.pathsep):
        if (path := Path(folder) / name).exists():
            return str(path)
    return missing(f"no {name}; install it with: sudo apt-get install --yes {name}")


class Run:
    """One run of a step, and what it left."""

    def __init__(self, words: list[str], folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        environment = {
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "HOME": str(folder),
            "ORCHCTL_CONFIG_DIR": str(folder / "config"),
            **variables,
        }
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> Run:
        self.out, self.err = self.process.communicate(timeout=SOON_S)
        self.code = self.process.returncode
        return self

    def written(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


# ----------------------------------------------------------------------------------- GitHub


def github(server: Server, issuer: Issuer, folder: Path, **changes: str) -> Run:
    """The step of the action as GitHub starts it: inputs as variables."""
    shell("curl")
    work = folder / "work"
    work.mkdir()
    (work / "data.txt").write_text("of the checkout\n")
    variables = {
        "ORCHCTL_SERVER": server.url,
        "AUDIENCE": AUDIENCE,
        "QUEUE": "gpu",
        "NAME": "ci / test",
        "OPTIONS": "--packages none",
        "GITHUB_OUTPUT": str(work / "output"),
        "GITHUB_STEP_SUMMARY": str(work / "summary"),
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.url}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": issuer.request_token,
        **changes,
    }
    return Run([shell("bash"), str(ACTION / "run.sh")], work, variables)


def test_a_command_runs_and_its_cost_is_in_the_summary(
    server: Server, issuer: Issuer, admin: Client, tmp_path: Path
) -> None:
    run = github(server, issuer, tmp_path, COMMAND="cat data.txt && echo 'it is done'").end()
    assert run.code == 0, run.err
    assert "of the checkout\nit is done\n" in run.out
    job_id = re.fullmatch(r"job-id=(j-\w+)\n", run.written("output"))
    assert job_id
    job = admin.jobs.get(job_id[1])
    assert (job.state, job.queue, job.name) == (JobState.SUCCEEDED, "gpu", "ci / test")
    assert job.owner == "ci:ci:repo:acme/train:ref:refs/heads/main"
    summary = run.written("summary")
    assert "### ci / test\n" in summary
    assert f"| job | `{job.id}` |" in summary
    assert "| state | succeeded |" in summary
    assert re.search(r"\| cost \| \d+\.\d+ USD \|", summary)


def test_the_step_ends_with_the_exit_code_of_the_job(
    server: Server, issuer: Issuer, tmp_path: Path
) -> None:
    # 5 is what `orchctl` itself ends with when it is denied.
    run = github(server, issuer, tmp_path, COMMAND="echo before; exit 5").end()
    assert run.code == 5, run.err
    assert "before" in run.out
    assert "| state | failed, exit code 5 |" in run.written("summary")


def test_a_session_is_masked_and_no_secret_is_shown(
    server: Server, issuer: Issuer, tmp_path: Path
) -> None:
    run = github(server, issuer, tmp_path, COMMAND="env").end()
    assert run.code == 0, run.err
    masked = re.findall(r"^::add-mask::(\S+)$", run.out, re.MULTILINE)
    assert masked
    everything = run.out + run.err + run.written("output") + run.written("summary")
    for session in masked:
        assert everything.count(session) == 1
        everything = everything.replace(session, "")
    assert issuer.request_token not in everything
    assert "eyJ" not in everything


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AUDIENCE": "https://other.example"}, "not for"),
        ({"QUEUE": "other"}, "submitter for queue other"),
        ({"ACTIONS_ID_TOKEN_REQUEST_URL": ""}, "id-token: write"),
        ({"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "wrong"}, "404"),
        ({"OPTIONS": "--gpu A100:8"}, "can ever run"),
        ({"OPTIONS": "--no-such-option"}, "no-such-option"),
    ],
)
def test_what_is_wrong_is_said(
    server: Server, issuer: Issuer, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    run = github(server, issuer, tmp_path, **{"COMMAND": "true", **changes}).end()
    assert run.code not in (0, 130)
    assert words in run.out + run.err
    assert run.written("output") == ""


def test_another_repository_is_refused(server: Server, issuer: Issuer, tmp_path: Path) -> None:
    issuer.github = {"repository": "evil/train"}
    try:
        run = github(server, issuer, tmp_path, COMMAND="true").end()
    finally:
        issuer.github = {}
    assert run.code != 0
    assert "no rule of federation ci admits" in run.err


def test_texts_of_strangers_are_not_commands_of_the_runner(
    server: Server, issuer: Issuer, admin: Client, tmp_path: Path
) -> None:
    """A branch or a title may be named like a command; it stays a text."""
    name = "x$(touch pwned)`touch pwned` | <b>"
    options = "--packages none --env 'A=$(touch pwned) b'"
    run = github(
        server,
        issuer,
        tmp_path,
        COMMAND="test \"$A\" = '$(touch pwned) b'",
        NAME=name,
        OPTIONS=options,
    ).end()
    assert run.code == 0, run.err
    assert not (run.folder / "pwned").exists()
    assert admin.jobs.get(run.written("output").strip().partition("=")[2]).name == name
    assert "### x$(touch pwned)\\`touch pwned\\` \\| \\<b\\>\n" in run.written("summary")


def test_a_cancelled_step_cancels_its_job(
    server: Server, issuer: Issuer, admin: Client, tmp_path: Path
) -> None:
    run = github(server, issuer, tmp_path, COMMAND="echo started; sleep 600")
    assert run.process.stdout
    for line in run.process.stdout:
        if "started" in line:
            break
    run.process.send_signal(signal.SIGINT)
    run.end()
    assert run.code == 130, run.err
    job = admin.jobs.wait(run.written("output").strip().partition("=")[2], timeout_s=SOON_S)
    assert job.state is JobState.CANCELLED


def test_a_session_that_ends_is_renewed(
    server: Server, issuer: Issuer, admin: Client, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    command = f"echo started; while ! [ -e {go} ]; do sleep 0.1; done; echo over"
    with sessions_of(server, 12):
        run = github(server, issuer, tmp_path, COMMAND=command)
        assert run.process.stderr
        line = ""
        while "renewed" not in line:
            line = run.process.stderr.readline()
            assert line, "it ended before"
    go.touch()
    run.end()
    assert run.code == 0, run.err
    assert "over" in run.out


@contextmanager
def sessions_of(server: Server, seconds: int) -> Iterator[None]:
    """Within it, sessions last this long."""
    store = server.plane.store

    def set_length(session_s: int) -> None:
        old = store.federation_get("ci")
        new = replace(old, session_s=session_s, version=old.version + 1)
        store.federation_put(new, expected_version=old.version)

    set_length(seconds)
    try:
        yield
    finally:
        set_length(3600)


# ----------------------------------------------------------------------------------- GitLab


def component() -> Any:
    """The job of the component, as GitLab has it once the inputs are filled in."""
    header, body = YAML(typ="safe", pure=True).load_all(COMPONENT.read_text(encoding="utf-8"))
    inputs = {name: each.get("default") for name, each in header["spec"]["inputs"].items()}
    assert [name for name, default in inputs.items() if default is None] == [
        "server",
        "audience",
        "command",
    ]
    named = set(re.findall(r"\$\[\[ inputs\.([\w-]+) \]\]", COMPONENT.read_text(encoding="utf-8")))
    assert named == set(inputs), "every input is used, and no other"
    ((_, job),) = body.items()
    return job


def gitlab(server: Server, issuer: Issuer, folder: Path, token: str = "", **changes: str) -> Run:
    """The component's script as GitLab's runner starts it."""
    job = component()
    assert job["id_tokens"]["ORCHCTL_ID_TOKEN"]["aud"] == "$[[ inputs.audience ]]"
    work = folder / "work"
    work.mkdir()
    (work / "data.txt").write_text("of the checkout\n")
    leave = dict.fromkeys(("repository", "job_workflow_ref", "environment"))
    values = {
        "server": server.url,
        "command": "true",
        "queue": "gpu",
        "options": "--packages none",
        "package": "orchctl",
        **changes,
    }
    filled = {
        name: values[re.fullmatch(r"\$\[\[ inputs\.(\S+) \]\]", text)[1]]  # type: ignore[index]
        for name, text in job["variables"].items()
    }
    variables = {
        **filled,
        "CI_PROJECT_PATH": "acme/train",
        "CI_JOB_NAME": "orchctl-run",
        "ORCHCTL_ID_TOKEN": token or issuer.token(aud=AUDIENCE, **{**leave, **GITLAB}),
    }
    script = "\n".join((*job["before_script"], *job["script"]))
    return Run([shell("sh"), "-e", "-c", script], work, variables)


def test_a_job_of_gitlab_runs_and_leaves_its_report(
    server: Server, issuer: Issuer, admin: Client, tmp_path: Path
) -> None:
    run = gitlab(server, issuer, tmp_path, command="cat data.txt; exit 7").end()
    assert run.code == 7, run.err
    assert "of the checkout" in run.out
    report = run.written("orchctl-report.md")
    assert "| state | failed, exit code 7 |" in report
    assert report in run.out
    job = admin.jobs.get(run.written(".orchctl-job"))
    assert job.owner == "ci:ci:project_path:acme/train:ref_type:branch:ref:main"
    assert "eyJ" not in run.out + run.err
    assert "orchctl_ci." not in run.out + run.err


def test_options_of_gitlab_stay_words(server: Server, issuer: Issuer, tmp_path: Path) -> None:
    options = "--packages none --env 'A=$(touch pwned) b'"
    command = "test \"$A\" = '$(touch pwned) b'"
    run = gitlab(server, issuer, tmp_path, options=options, command=command).end()
    assert run.code == 0, run.err
    assert not (run.folder / "pwned").exists()


def test_a_token_of_gitlab_is_good_once(server: Server, issuer: Issuer, tmp_path: Path) -> None:
    leave = dict.fromkeys(("repository", "job_workflow_ref", "environment"))
    token = issuer.token(aud=AUDIENCE, **{**leave, **GITLAB})
    for number, code in enumerate((0, 5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        run = gitlab(server, issuer, folder, token=token).end()
        assert run.code == code, run.err
    assert "used before" in run.err


def test_a_cancelled_job_of_gitlab_cancels_ours(
    server: Server, issuer: Issuer, admin: Client, tmp_path: Path
) -> None:
    run = gitlab(server, issuer, tmp_path, command="echo started; sleep 600")
    assert run.process.stdout
    for line in run.process.stdout:
        if "started" in line:
            break
    run.process.send_signal(signal.SIGTERM)
    assert run.end().code == 130
    job = admin.jobs.wait(run.written(".orchctl-job"), timeout_s=SOON_S)
    assert job.state is JobState.CANCELLED


# -------------------------------------------------------------------------------- the action


def test_the_action_gives_every_input_to_its_script_as_a_variable() -> None:
    action = YAML(typ="safe", pure=True).load((ACTION / "action.yml").read_text(encoding="utf-8"))
    install, run = action["runs"]["steps"]
    assert "orchctl" in install["run"]
    script = (ACTION / "run.sh").read_text(encoding="utf-8")
    used = re.findall(r"inputs\.([\w-]+)", str(run))
    assert sorted(used) == sorted(action["inputs"])
    for name in run["env"]:
        assert name == "ORCHCTL_SERVER" or f"${name}" in script, name
    for step in (install["run"], run["run"], script):
        assert "${{" not in step, "a text of a stranger would be a command"
    assert action["outputs"]["job-id"]["value"] == "${{ steps.run.outputs.job-id }}"
