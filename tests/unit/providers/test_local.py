"""The local provider where the shared suite cannot reach: real process trees that try to get away,
crashes at each step of a launch, what lies on the disk, and what a machine is told of us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError
from control_plane.ports import LaunchRequest, MachineRef
from providers.local import hardware, processes
from providers.local.launch import MachineDirectory, read_label
from providers.local.provider import LocalProvider, real_startup
from tests.conformance.provider_cases import FLEET, LOOP, TOKEN, LocalCase, until


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., LocalCase]]:
    made: list[LocalCase] = []

    def new(startup: str = LOOP, folder: str = "a") -> LocalCase:
        made.append(LocalCase(tmp_path / folder, startup))
        return made[-1]

    yield new
    for case in made:
        case.close()


def launch(case: LocalCase, request: LaunchRequest | None = None) -> MachineRef:
    request = request or case.request()
    launched = case.open().launch(request)
    case.settle()
    return case.ref(request, launched)


def size(case: LocalCase) -> int:
    return sum(len(found) for found in case.found().values())


def files(case: LocalCase, key: str = "m-1.1") -> Path:
    return case.root / key


# ---------------------------------------------------------------- trees that try to get away


@pytest.mark.parametrize(
    ("startup", "count"),
    [
        ("setsid sh -c 'setsid sleep 60 & sleep 60' & wait", 4),
        ("(trap '' TERM HUP; setsid sh -c 'sleep 60; sleep 60' & sleep 60) & wait", 4),
        # Two unlabelled ones: their environment is empty, and their parent is not.
        ("env -i sh -c 'sleep 60; sleep 60' & wait", 3),
        # A daemon: its parent is gone, it has a session of its own.
        ("setsid sh -c 'sleep 60 &' & sleep 60", 3),
    ],
    ids=["new-sessions", "ignores-terminate", "empty-environment", "daemon"],
)
def test_terminate_leaves_nothing_of_a_tree(
    make: Callable[..., LocalCase], startup: str, count: int
) -> None:
    case = make(startup)
    ref = launch(case)
    until(lambda: size(case) >= count)
    pids = [process.pid for process in case.found()["m-1.1"]]
    begun = time.monotonic()
    case.open().terminate(ref)
    assert time.monotonic() - begun < 2.5
    assert not set(pids) & set(processes.table())
    sighting = case.open().sighting(ref)
    assert sighting is not None
    assert sighting.state == "gone"


def test_terminate_ends_a_tree_that_keeps_forking(make: Callable[..., LocalCase]) -> None:
    case = make(
        "trap '' TERM; fork() { setsid sh -c 'trap \"\" TERM; sleep 60' & }\n"
        "i=0; while :; do fork; i=$((i+1)); [ $i -gt 20 ] && sleep 0.05; done"
    )
    ref = launch(case)
    until(lambda: size(case) > 5)
    provider = case.open()
    for _ in range(5):
        provider.terminate(ref)
    assert not case.found()


def test_machine_counts_as_running_while_only_a_daemon_of_it_lives(
    make: Callable[..., LocalCase],
) -> None:
    case = make("setsid sleep 60 & exit 0")
    ref = launch(case)
    until(lambda: size(case) == 1)
    sighting = case.open().sighting(ref)
    assert sighting is not None
    assert sighting.state == "running"


def test_job_is_found_by_its_mark_alone_when_its_agent_is_gone(
    make: Callable[..., LocalCase],
) -> None:
    """The agent gives its jobs an environment of their own, with only the machine's id in it."""
    case = make("setsid env -i ORCHCTL_MACHINE=m-1 sleep 60 & echo $! >job; exit 0")
    ref = launch(case)
    until(lambda: (files(case) / "job").exists() and not size(case))
    pid = int((files(case) / "job").read_text())
    until(lambda: processes.table()[pid].mark == "m-1")
    sighting = case.open().sighting(ref)
    assert sighting is not None
    assert sighting.state == "running"
    case.open().terminate(ref)
    assert pid not in processes.table()


def test_zombie_is_not_running_and_is_reaped(make: Callable[..., LocalCase]) -> None:
    case = make("exit 0")
    launch(case)
    until(lambda: not case.found())
    assert case.open().observe(FLEET).sightings[0].state == "gone"
    pid = int((files(case) / "started").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_stranger_with_the_mark_of_no_machine_of_ours_is_left_alone(
    make: Callable[..., LocalCase],
) -> None:
    case = make()
    stranger = subprocess.Popen(["sleep", "60"], env={"ORCHCTL_MACHINE": "m-9", "PATH": os.defpath})
    try:
        launch(case)
        case.open().terminate(MachineRef(machine_id="m-9", provider_id="", region="", zone=""))
        assert stranger.poll() is None
        assert [each.machine_id for each in case.open().observe(FLEET).sightings] == ["m-1"]
    finally:
        stranger.kill()
        stranger.wait()


def test_two_control_planes_of_one_fleet_name_stay_apart(make: Callable[..., LocalCase]) -> None:
    mine, other = make(folder="a"), make(folder="b")
    launch(mine)
    ref = launch(other)
    assert len(mine.open().observe(FLEET).sightings) == 1
    other.open().terminate(ref)
    assert mine.alive() == ["m-1"]
    assert other.alive() == []


def test_machine_whose_files_were_deleted_is_still_found_and_ended(
    make: Callable[..., LocalCase],
) -> None:
    case = make("echo up; " + LOOP)
    ref = launch(case)
    until(lambda: (files(case) / "console.log").read_text())
    MachineDirectory(files(case)).remove()
    (sighting,) = case.open().observe(FLEET).sightings
    assert (sighting.machine_id, sighting.state) == ("m-1", "running")
    case.open().terminate(ref)
    assert case.alive() == []
    assert case.open().sighting(ref) is None


def test_alive_names_the_processes_of_each_machine(make: Callable[..., LocalCase]) -> None:
    case = make()
    launch(case, case.request("m-1"))
    ref = launch(case, case.request("m-2", fleet="another"))
    until(lambda: size(case) == 4)
    expected = {
        key.rpartition(".")[0]: {each.pid for each in found} for key, found in case.found().items()
    }
    assert {name: set(pids) for name, pids in case.open().alive().items()} == expected
    assert set(expected) == {"m-1", "m-2"}
    case.open().terminate(ref)
    assert set(case.open().alive()) == {"m-1"}


def test_process_that_turns_up_after_the_end_is_ended_too(make: Callable[..., LocalCase]) -> None:
    case = make()
    ref = launch(case)
    MachineDirectory(files(case)).mark_ended(datetime.now(UTC))
    sighting = case.open().sighting(ref)
    assert sighting is not None
    assert sighting.state == "running"
    case.open().terminate(ref)
    assert case.alive() == []


def test_ending_machine_is_stopping_until_nothing_is_left(make: Callable[..., LocalCase]) -> None:
    case = make()
    ref = launch(case)
    MachineDirectory(files(case)).mark_ending()
    sighting = case.open().sighting(ref)
    assert sighting is not None
    assert sighting.state == "stopping"


# ------------------------------------------------------------------------------------ crashes


class Died(Exception):
    """The control plane died here."""


@pytest.mark.parametrize("step", ["prepare", "start"])
def test_launch_that_died_before_the_start_is_finished_once(
    make: Callable[..., LocalCase], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    case = make()

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(MachineDirectory, step, die)
        with pytest.raises(Died):
            case.open().launch(case.request())
    assert case.open().observe(FLEET).sightings == ()
    assert case.open().sighting(case.ref(case.request())) is None
    launch(case)
    assert case.alive() == ["m-1"]


def test_launch_that_died_right_after_the_start_is_not_repeated(
    make: Callable[..., LocalCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make("echo ran; " + LOOP)

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(LocalProvider, "_prune", die)
        with pytest.raises(Died):
            case.open().launch(case.request())
    launch(case)
    until(lambda: "ran" in (files(case) / "console.log").read_text())
    assert (files(case) / "console.log").read_text().count("ran") == 1
    assert case.alive() == ["m-1"]


def test_start_of_the_same_machine_a_second_time_runs_nothing(
    make: Callable[..., LocalCase],
) -> None:
    case = make("echo ran; " + LOOP)
    launch(case)
    until(lambda: "ran" in (files(case) / "console.log").read_text())
    (before,) = case.found().values()
    environment = {processes.LABEL: processes.table()[before[0].pid].label, "PATH": os.defpath}
    MachineDirectory(files(case)).start(environment)
    until(lambda: size(case) == len(before))
    assert (files(case) / "console.log").read_text().count("ran") == 1


def test_terminate_of_a_launch_that_never_started_forbids_the_start(
    make: Callable[..., LocalCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make()
    request = case.request()

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(MachineDirectory, "start", die)
        with pytest.raises(Died):
            case.open().launch(request)
    case.open().terminate(case.ref(request))
    with pytest.raises(ProviderError, match="Ended"):
        case.open().launch(request)
    assert case.alive() == []


def test_machine_outlives_the_program_that_launched_it(
    make: Callable[..., LocalCase], tmp_path: Path
) -> None:
    case = make()
    program = f"""
import os, signal
from pathlib import Path
from tests.conformance.provider_cases import LocalCase
case = LocalCase(Path({str(case.root.parent)!r}))
case.open().launch(case.request())
case.settle()
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", program], cwd=Path.cwd(), check=False)
    assert died.returncode == -signal.SIGKILL
    (sighting,) = case.open().observe(FLEET).sightings
    assert (sighting.machine_id, sighting.state) == ("m-1", "running")
    assert case.open().launch(case.request()).at == sighting.created_at
    case.open().terminate(case.ref(case.request()))
    assert case.alive() == []


# ------------------------------------------------------------------------- files and secrets


def test_files_are_for_us_alone(make: Callable[..., LocalCase]) -> None:
    case = make()
    launch(case)
    folder = files(case)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert case.root.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys(
        ["console.log", "machine.json", "started", "startup.sh", "token"], 0o600
    )


def test_token_lies_only_in_its_file_and_goes_with_the_machine(
    make: Callable[..., LocalCase],
) -> None:
    case = make()
    ref = launch(case)
    holders = [path.name for path in files(case).iterdir() if TOKEN in path.read_text()]
    assert holders == ["token"]
    case.open().terminate(ref)
    assert TOKEN not in "".join(path.read_text() for path in files(case).iterdir())


def test_card_says_who_it_is(make: Callable[..., LocalCase]) -> None:
    case = make()
    request = case.request()
    launch(case, request)
    card = json.loads((files(case) / "machine.json").read_text())
    assert card["machine_id"] == "m-1"
    assert card["fleet"] == FLEET
    assert card["key"] == request.key
    assert card["offer"] == request.offer.key
    assert card["deadline"] == request.deadline.isoformat()


def test_output_of_all_processes_is_kept_after_the_end(make: Callable[..., LocalCase]) -> None:
    case = make("echo to-stdout; echo to-stderr >&2; exit 0")
    launch(case)
    until(lambda: not case.found())
    case.open().observe(FLEET)
    assert (files(case) / "console.log").read_text() == "to-stdout\nto-stderr\n"


def test_environment_holds_what_is_needed_and_no_secret(
    make: Callable[..., LocalCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    case = make("env; " + LOOP)
    launch(case)
    until(lambda: "ORCHCTL" in (files(case) / "console.log").read_text())
    shown = dict(
        line.partition("=")[::2] for line in (files(case) / "console.log").read_text().splitlines()
    )
    assert "do-not-tell" not in shown.values()
    assert shown["PIP_INDEX_URL"] == "http://127.0.0.1:9/simple"
    assert shown["ORCHCTL_FLEET"] == FLEET
    assert shown["ORCHCTL_PYTHON"] == sys.executable
    assert shown["PWD"] == str(files(case))
    assert "ORCHCTL_MACHINE" not in shown


def test_standard_input_is_empty(make: Callable[..., LocalCase]) -> None:
    case = make("cat; echo end-of-input; " + LOOP)
    launch(case)
    until(lambda: (files(case) / "console.log").read_text() == "end-of-input\n")


def test_key_that_is_no_file_name_is_refused(make: Callable[..., LocalCase]) -> None:
    case = make()
    for key in ("../m-1.1", "", ".hidden", "a/b", "m-1 .1"):
        with pytest.raises(ProviderError) as caught:
            case.open().launch(replace(case.request(), key=key))
        assert caught.value.error_class is ErrorClass.INVALID
    strange = MachineRef(machine_id="m-1", provider_id="../../etc", region="", zone="")
    case.open().terminate(strange)
    assert case.open().sighting(strange) is None


# --------------------------------------------------------------------------- ended machines


def test_long_ended_machines_are_pruned_and_their_keys_stay_refused(
    make: Callable[..., LocalCase],
) -> None:
    case = make("exit 0")
    provider = LocalProvider(case.root, keep_ended=1, render=lambda boot, token: "exit 0")
    for number in (1, 2, 3):
        provider.launch(case.request(f"m-{number}"))
        until(lambda: not case.found())
        provider.observe(FLEET)
    assert sorted(path.name for path in case.root.glob("m-*")) == ["m-2.1", "m-3.1"]
    with pytest.raises(ProviderError, match="Ended"):
        provider.launch(case.request("m-1"))
    pruned = MachineRef(machine_id="m-1", provider_id="m-1.1", region="local", zone="")
    assert provider.sighting(pruned) is None


def test_ended_machine_is_listed_for_an_hour_and_known_for_longer(
    make: Callable[..., LocalCase],
) -> None:
    case = make("exit 0")
    now = datetime.now(UTC)
    provider = LocalProvider(case.root, render=lambda boot, token: "exit 0", now=lambda: now)
    request = case.request()
    launched = provider.launch(request)
    case.settle()
    until(lambda: not case.found())
    assert [each.state for each in provider.observe(FLEET).sightings] == ["gone"]
    now += timedelta(hours=2)
    assert provider.observe(FLEET).sightings == ()
    sighting = provider.sighting(case.ref(request, launched))
    assert sighting is not None
    assert (sighting.state, sighting.end_reason) == ("gone", "self")


def test_slots_bound_how_many_run(make: Callable[..., LocalCase]) -> None:
    case = make()
    case.slots = 2
    launch(case, case.request("m-1"))
    ref = launch(case, case.request("m-2"))
    with pytest.raises(ProviderError) as caught:
        case.open().launch(case.request("m-3"))
    assert caught.value.raw_code == "NoFreeSlot"
    case.open().terminate(ref)
    launch(case, case.request("m-3"))
    assert sorted(case.alive()) == ["m-1", "m-3"]


# --------------------------------------------------------------------- labels and the table


def test_process_table_without_proc_says_the_same(make: Callable[..., LocalCase]) -> None:
    case = make()
    launch(case)
    (found,) = case.found().values()
    from_ps = processes.from_ps()
    for process in found:
        assert from_ps[process.pid].label == process.label
        assert from_ps[process.pid].parent == process.parent
    card = read_label(from_ps[found[0].pid].label)
    assert card is not None
    assert card.key == "m-1.1"


def test_label_is_one_word_even_when_a_name_is_not(make: Callable[..., LocalCase]) -> None:
    case = make()
    launch(case, case.request(fleet="my fleet = x"))
    (found,) = case.found().values()
    assert not any(character.isspace() for character in found[0].label)
    assert processes.from_ps()[found[0].pid].label == found[0].label
    assert [each.fleet for each in case.open().observe("my fleet = x").sightings] == [
        "my fleet = x"
    ]


def test_process_between_two_programs_keeps_its_label(make: Callable[..., LocalCase]) -> None:
    """A process is never unlabelled for a moment, however often it becomes another program."""
    case = make("n=${n:-0}; [ $n -lt 400 ] || exit 0; n=$((n+1)) exec /bin/sh startup.sh")
    launch(case)
    pid = int((files(case) / "started").read_text())
    looks = 0
    while (process := processes.table().get(pid)) is not None:
        assert process.label
        looks += 1
    assert looks > 5


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"home": 3}'])
def test_nonsense_is_no_label(text: str) -> None:
    assert read_label(text) is None


# ------------------------------------------------------------------ offers and real start-up


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), (0, "", 0)),
        (("NVIDIA L4, 23034",), (1, "L4", 22)),
        (("Tesla T4, 15360", "Tesla T4, 15360"), (2, "T4", 15)),
        (("NVIDIA A100-SXM4-40GB, 40960",), (1, "A100", 40)),
        (("NVIDIA A100-SXM4-80GB, 81920",), (1, "A100-80GB", 80)),
        (("NVIDIA H100 80GB HBM3, 81559",), (1, "H100", 80)),
        (("NVIDIA H100 NVL, 95830",), (1, "H100-NVL", 94)),
        (("Tesla V100-SXM2-16GB, 16384",), (1, "V100", 16)),
        (("NVIDIA RTX PRO 6000 Blackwell Server Edition, 97887",), (1, "RTX-PRO-6000", 96)),
    ],
)
def test_gpus_are_named_as_in_the_catalogue(
    lines: tuple[str, ...], expected: tuple[int, str, int]
) -> None:
    assert hardware.gpus(lines) == expected


def test_offers_with_and_without_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_lines", lambda: ("NVIDIA L4, 23034",) * 2)
    plain, gpu = LocalProvider(tmp_path, price_usd_hour=Decimal("0.25")).offers()
    assert (plain.instance_type, plain.capacity.gpus) == ("process", 0)
    assert (gpu.instance_type, gpu.capacity.gpus, gpu.capacity.gpu_name) == ("process-gpu", 2, "L4")
    assert plain.price_usd_hour == plain.on_demand_usd_hour == Decimal("0.25")
    assert plain.capacity.cpus == os.cpu_count()


def test_computer_without_gpus_offers_one_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "gpu_lines", tuple)
    assert [offer.key for offer in LocalProvider(tmp_path).offers()] == [
        "local/local/*/process/on-demand"
    ]


def test_real_start_up_text_is_shell_without_the_token(
    make: Callable[..., LocalCase], tmp_path: Path
) -> None:
    text = real_startup(make().request().boot, tmp_path / "token")
    assert TOKEN not in text
    assert str(tmp_path / "token") in text
    checked = subprocess.run(["/bin/sh", "-n"], input=text, text=True, check=False)
    assert checked.returncode == 0


def test_real_start_up_text_ends_on_terminate(make: Callable[..., LocalCase]) -> None:
    """Without a server it goes on trying; terminate ends that and its timers."""
    case = make()
    provider = LocalProvider(case.root, grace_s=0.3)
    request = case.request()
    launched = provider.launch(request)
    until(lambda: size(case) >= 2)
    for _ in range(3):
        provider.terminate(case.ref(request, launched))
    assert case.alive() == []
