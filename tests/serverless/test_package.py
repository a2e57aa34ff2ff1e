"""What the functions are made of: the same bytes whoever builds it, of the locked versions alone,
within what Lambda takes, for both kinds of processors."""

from __future__ import annotations

import json
import marshal
import re
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.requires import ROOT
from tests.serverless.osls import packaged
from tests.serverless.package import build

pytestmark = pytest.mark.xdist_group("serverless")

LOCK = ROOT / "infra" / "lambda" / "requirements.lock"
MIB = 2**20
RUNTIMES = ("3.11", "3.12", "3.13")


def locked() -> dict[str, str]:
    """Name and version of each package that this Python on this computer gets."""
    lines = re.findall(r"^([^\s#-].*?)(?: \\)?$", LOCK.read_text(), flags=re.MULTILINE)
    wanted = [Requirement(line) for line in lines]
    here = [each for each in wanted if each.marker is None or each.marker.evaluate()]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in here}


def test_two_builds_are_the_same(archive: Path, task: Path) -> None:
    """The zip of one, the directory of the other: the same files with the same bytes, and nothing
    else in the zip that could differ."""
    files = sorted(path for path in task.rglob("*") if path.is_file())
    with zipfile.ZipFile(archive) as zipped:
        entries = zipped.infolist()
        assert [each.filename for each in entries] == [
            path.relative_to(task).as_posix() for path in files
        ]
        for entry, path in zip(entries, files, strict=True):
            assert zipped.read(entry) == path.read_bytes(), entry.filename
    assert {(each.date_time, each.external_attr, each.extra) for each in entries} == {
        ((1980, 1, 1, 0, 0, 0), 0o644 << 16, b"")
    }
    assert {(each.stat().st_mode & 0o777, each.stat().st_mtime) for each in files} == {
        (0o644, files[0].stat().st_mtime)
    }
    assert {path.stat().st_mode & 0o777 for path in task.rglob("*") if path.is_dir()} == {0o755}


@pytest.mark.long
def test_two_zips_are_the_same_to_the_byte(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "far" / "away" / "again.zip"
    build("--output", again, umask=0o077, TZ="Asia/Kathmandu", PYTHONHASHSEED="1")
    assert again.read_bytes() == archive.read_bytes()


def test_it_holds_the_locked_versions_and_nothing_else(archive: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        metadata = [
            HeaderParser().parsestr(zipped.read(name).decode())
            for name in zipped.namelist()
            if name.endswith(".dist-info/METADATA")
        ]
    held = {canonicalize_name(each["Name"]): each["Version"] for each in metadata}
    assert held == {**locked(), "orchctl": version("orchctl")}


def test_lambda_takes_it(archive: Path) -> None:
    assert archive.stat().st_size < 50 * MIB, "uploaded directly"
    with zipfile.ZipFile(archive) as zipped:
        assert sum(each.file_size for each in zipped.infolist()) < 250 * MIB


def test_all_of_it_is_compiled_for_where_it_lies(task: Path) -> None:
    sources = [path for path in task.rglob("*.py") if path.stat().st_size]
    compiled = {path: path.parent / "__pycache__" / f"{path.stem}.{_TAG}.pyc" for path in sources}
    assert [path for path, beside in compiled.items() if not beside.exists()] == []
    handler = compiled[task / "control_plane" / "serverless" / "api.py"].read_bytes()
    assert handler[4:8] == b"\1\0\0\0", "never compared with its source (PEP 552)"
    code = marshal.loads(handler[16:])
    assert code.co_filename == "/var/task/control_plane/serverless/api.py"


_TAG = sys.implementation.cache_tag


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("platform", ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28"])
def test_every_package_has_a_wheel(platform: str, runtime: str, tmp_path: Path) -> None:
    """Nothing is compiled by whoever builds, so either kind can be built on the other."""
    uv = Path(sys.executable).with_name("uv")
    options = ["--dry-run", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    of = [f"--python-version={runtime}", f"--python-platform={platform}"]
    done = subprocess.run(
        [uv, "pip", "install", *options, *of, "--target", tmp_path / "none", "-r", LOCK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"Would install {len(locked())} packages" in done.stderr


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(subprocess.CalledProcessError):
        build("--directory", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_alarms_can_be_left_out_and_nothing_else_goes(archive: Path, tmp_path: Path) -> None:
    kinds: dict[str, list[str]] = {}
    for alarms in ("all", "none"):
        folder = tmp_path / alarms
        folder.mkdir()
        template = json.loads(packaged(folder, archive, ORCHCTL_ALARMS=alarms).read_text())
        kinds[alarms] = sorted(each["Type"] for each in template["Resources"].values())
    left_out = [kind for kind in kinds["all"] if kind.startswith(("AWS::CloudWatch", "AWS::SNS"))]
    assert len(left_out) == 10
    assert sorted([*kinds["none"], *left_out]) == kinds["all"]
