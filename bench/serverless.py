"""The control plane on Lambda: what a cold start imports, how heavy the package is, how soon a job
brings a machine, and what an idle month costs.

    python -m bench.serverless [--rounds 7] [--jobs 10] [--json]

`api_import_ratio` is the CPU time of importing the API's handler, ready to answer, over that of
FastAPI, mangum and boto3's DynamoDB client, each in a fresh interpreter, in interleaved rounds.
`enqueue_to_launch_p50_s` is measured on a deployment by osls in the AWS emulator, from a submission
by HTTP until EC2's fake has a new machine; the schedule is taken away first. `idle_usd_month` is
computed from the template and from measured units (docs/serverless-cost.md).

The last line is JSON; the promises are a ratio of at most 1.15, a package under 50 MiB, two seconds
and 0.15 USD.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from zipfile import ZipFile

import httpx2

from bench.peers.report import spread
from docs.generate_serverless import idle_usd
from tests.clouds.world import Aws
from tests.emulators.ministack import Ministack
from tests.serverless.deployed import REGION, TOKEN, Deployed
from tests.serverless.package import build
from tests.serverless.world import Country

OURS = "import control_plane.serverless.api"
REFERENCE = """\
import boto3, mangum
from fastapi import FastAPI
app = FastAPI()
boto3.client("dynamodb")
handler = mangum.Mangum(app, lifespan="off")
"""
_TIMED = "import time\n{code}\nprint(time.process_time())"
RUNS = 5
"""Of each import in a round."""
LAUNCH_S = 60.0
"""A job that has brought no machine by then never will."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="bench-serverless-") as made:
        folder = Path(made)
        archive = folder / "orchctl.zip"
        build("--output", archive)
        zip_mb = archive.stat().st_size / 2**20
        _say("zip_mb", [zip_mb], 50)
        ratios = measure_imports(folder, archive, options.rounds)
        _say("api_import_ratio", ratios, 1.15)
        waits = measure_launches(folder, archive, options.jobs)
        _say("enqueue_to_launch_p50_s", waits, 2)
    idle = float(sum(idle_usd().values()))
    _say("idle_usd_month", [idle], 0.15)
    found = {
        "api_import_ratio": round(median(ratios), 3),
        "zip_mb": round(zip_mb, 1),
        "enqueue_to_launch_p50_s": round(median(waits), 3),
        "enqueue_to_launch_max_s": round(max(waits), 3),
        "idle_usd_month": round(idle, 3),
    }
    print(json.dumps(found))


def measure_imports(folder: Path, archive: Path, rounds: int) -> Sequence[float]:
    """CPU time of our import, as it is shipped, over the reference's, round by round."""
    package = folder / "package"
    with ZipFile(archive) as opened:
        opened.extractall(package)
    installed = Path(sysconfig.get_path("purelib"))
    ministack = Ministack(folder)
    ministack.start()
    try:
        shipped = _environment(ministack)
        _make_table(shipped)
        # Its bytecode is written at the first import, ours is in the package.
        cached = {**shipped, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        both = [(OURS, package, shipped), (REFERENCE, installed, cached)]
        for each in both:
            _cpu_s(*each)
        return [_round(both) for _ in range(rounds)]
    finally:
        ministack.kill()


def _round(both: Sequence[tuple[str, Path, Mapping[str, str]]]) -> float:
    """The ratio of the least of some runs of each, in turn: what disturbs a run only adds to it."""
    times = [[_cpu_s(*each) for each in both] for _ in range(RUNS)]
    ours, reference = (min(each) for each in zip(*times, strict=True))
    return ours / reference


def measure_launches(folder: Path, archive: Path, jobs: int) -> Sequence[float]:
    """Seconds from each submission until EC2 has a machine more. Raises `RuntimeError` when one
    does not come."""
    deployed = Deployed(folder, archive)
    try:
        aws = Aws()
        country = Country(deployed, folder, [aws])
        try:
            _declare(deployed, aws, machines=jobs + 1)
            events = deployed.client("events")
            for rule in events.list_rules()["Rules"]:
                if rule.get("ScheduleExpression"):
                    events.disable_rule(Name=rule["Name"])
            # The first one pays for what starts anew.
            return [_wait_for_machine(deployed, aws) for _ in range(jobs + 1)][1:]
        finally:
            country.close()
    finally:
        deployed.close()


def _declare(deployed: Deployed, aws: Aws, machines: int) -> None:
    document = f"""\
apiVersion: orchctl/v1
kind: Autoscaler
name: bench
queues:
  bench: {{pools: [small], jobs_per_machine: 1}}
pools:
  small:
    cpu: 4..8
    market: on-demand
    clouds: {{aws: {json.dumps(aws.settings)}}}
    machines: {{max: {machines}}}
"""
    answer = _ask(deployed, "PUT", "/v1/autoscalers/bench", {"document": document})
    answer.raise_for_status()


def _wait_for_machine(deployed: Deployed, aws: Aws) -> float:
    before = len(aws.vms())
    began = time.monotonic()
    job = {"queue": "bench", "command": "true", "cpu": 1}
    _ask(deployed, "POST", "/v1/jobs", job).raise_for_status()
    while len(aws.vms()) == before:
        if time.monotonic() - began > LAUNCH_S:
            raise RuntimeError(f"no machine after {LAUNCH_S:.0f} s:\n{deployed.log('reconcile')}")
        time.sleep(0.005)
    waited = time.monotonic() - began
    # The loop looks on for a while: the next job is to find it asleep.
    _until_asleep(deployed)
    return waited


def _until_asleep(deployed: Deployed) -> None:
    looks = -1
    while (seen := deployed.log("reconcile").count('"looked"')) != looks:
        looks = seen
        time.sleep(6)


def _ask(deployed: Deployed, method: str, path: str, body: Mapping[str, object]) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {TOKEN}", "If-None-Match": "*"}
    return httpx2.request(method, f"{deployed.url}{path}", json=body, headers=headers, timeout=30)


def _cpu_s(code: str, packages: Path, environment: Mapping[str, str]) -> float:
    """CPU time of a fresh interpreter that has nothing but these packages."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _TIMED.format(code=code)],
        env={**environment, "PYTHONPATH": str(packages)},
        cwd=packages,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def _make_table(environment: Mapping[str, str]) -> None:
    code = """\
from control_plane.stores.dynamodb import INDEXES
from control_plane.stores.dynamodb.calls import connect
from control_plane.stores.dynamodb.table import create_table
create_table(connect(), "bench", INDEXES)
"""
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def _environment(ministack: Ministack) -> Mapping[str, str]:
    inherited = {key: os.environ[key] for key in os.environ if not key.startswith("PYTHON")}
    return {
        **inherited,
        "AWS_ENDPOINT_URL": ministack.endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ministack.new_account(),
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "ORCHCTL_TABLE": "bench",
        "ORCHCTL_BUCKET": "bench",
        "ORCHCTL_PUBLIC_URL": "https://orchctl.example",
        "ORCHCTL_INSTALLATION": "bench",
        "ORCHCTL_ADMIN_TOKEN_SHA256": "0" * 64,
    }


def _say(name: str, figures: Sequence[float], most: float) -> None:
    reached = "" if median(figures) <= most else "NOT reached"
    print(f"{name:26} {spread(figures, 3):>22} {f'<= {most}':>9} {reached}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="of imports")
    parser.add_argument("--jobs", type=int, default=10, help="each brings a machine")
    parser.add_argument("--json", action="store_true", help="the last line is JSON anyway")
    return parser.parse_args()


if __name__ == "__main__":
    main()
