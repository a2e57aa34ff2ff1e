"""Makes what all functions run: one zip under the direct-upload limit, or a directory with the same
files for a container image.

    python infra/lambda/build.py [--output dist/orchctl-lambda.zip | --directory dist/image]
                                 [--python 3.12] [--arch x86_64|arm64|host]

The same sources, lock and Python give the same bytes. `/var/task` is read-only, so a zip without
bytecode is compiled anew at every cold start, which takes longer than everything else; what no
function ever imports is left out. The bytecode is not checked against its source (PEP 552,
`unchecked-hash`): the two are never apart here. It is of the Python that runs this program, so this
one must be of the version asked for.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from py_compile import PycInvalidationMode

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
LIMIT_MIB = 50
"""Of a zip that is uploaded to Lambda directly."""
UNZIPPED_MIB = 250
"""Of all that a function unpacks."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can tell."""
FILE_MODE = 0o644
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
UNUSED = (
    ".lock",
    "bin",
    "orchctl",
    "**/tests",
    "**/*.pyi",
    "*.dist-info/RECORD",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
    "azure/**/aio",
    "google/cloud/compute_v1/services/*/async_client.py",
)
"""What no function imports: tests of others, the command line, asynchronous clients, the lock of
who installs."""
SERVICES = frozenset(
    {
        "dynamodb",
        "ec2",
        "iam",
        "lambda",
        "pricing",
        "s3",
        "scheduler",
        "service-quotas",
        "ssm",
        "sts",
    }
)
"""The AWS services whose descriptions are kept; botocore has four hundred."""


def build(output: Path, *, python: str, arch: str) -> None:
    """Make the zip. Raises `RuntimeError` when it is too large, or when this Python makes bytecode
    of another version."""
    with tempfile.TemporaryDirectory(prefix="orchctl-lambda-") as name:
        folder = Path(name) / "task"
        lay_out(folder, python=python, arch=arch)
        output.parent.mkdir(parents=True, exist_ok=True)
        _zip(folder, output)
    _bound("zipped", output.stat().st_size, LIMIT_MIB)


def lay_out(folder: Path, *, python: str, arch: str) -> None:
    """Make all that the zip holds in a directory, which must be new or empty. Raises as `build`."""
    if folder.exists() and any(folder.iterdir()):
        raise RuntimeError(f"{folder} is not empty")
    if python != "{}.{}".format(*sys.version_info):
        raise RuntimeError(f"run this with Python {python}: bytecode is of one version")
    _install(folder, python, arch)
    _slim(folder)
    _compile(folder)
    _settle(folder)
    _bound("unpacked", sum(path.stat().st_size for path in _files(folder)), UNZIPPED_MIB)


def _install(folder: Path, python: str, arch: str) -> None:
    """The locked dependencies, as wheels for the runtime, and the project itself."""
    into = ["uv", "pip", "install", "--quiet", "--target", str(folder), "--python-version", python]
    platform = [] if arch == "host" else ["--python-platform", PLATFORMS[arch]]
    locked = ["--no-deps", "--only-binary", ":all:", "--requirements", str(LOCK)]
    subprocess.run([*into, *platform, *locked], check=True)
    subprocess.run([*into, "--no-deps", str(ROOT)], check=True)


def _slim(folder: Path) -> None:
    for pattern in UNUSED:
        for path in sorted(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for service in (folder / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in SERVICES:
            shutil.rmtree(service)


def _compile(folder: Path) -> None:
    """Beside each source, with the path that it has in a function."""
    compiled = compileall.compile_dir(
        folder,
        quiet=1,
        force=True,
        stripdir=folder,
        prependdir="/var/task",
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        workers=os.cpu_count() or 1,
    )
    if not compiled:
        raise RuntimeError("some sources cannot be compiled")


def _settle(folder: Path) -> None:
    """Fixed times and rights, whoever builds: functions run as a user who owns nothing of it."""
    at = datetime(*EPOCH, tzinfo=UTC).timestamp()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else FILE_MODE)
        os.utime(path, (at, at))


def _zip(folder: Path, output: Path) -> None:
    """In a fixed order, with fixed times and rights."""
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in _files(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
            entry.external_attr = FILE_MODE << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _bound(what: str, size: int, most_mib: int) -> None:
    if size > most_mib << 20:
        raise RuntimeError(f"{size / 2**20:.1f} MiB {what}; Lambda takes {most_mib}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "orchctl-lambda.zip")
    parser.add_argument("--directory", type=Path, help="instead of a zip")
    parser.add_argument("--python", default="{}.{}".format(*sys.version_info))
    parser.add_argument("--arch", choices=["host", *PLATFORMS], default="x86_64")
    options = parser.parse_args()
    if options.directory:
        lay_out(options.directory, python=options.python, arch=options.arch)
        size = sum(path.stat().st_size for path in _files(options.directory))
    else:
        build(options.output, python=options.python, arch=options.arch)
        size = options.output.stat().st_size
    sys.stdout.write(f"{options.directory or options.output}  {size / 2**20:.1f} MiB\n")


if __name__ == "__main__":
    main()
