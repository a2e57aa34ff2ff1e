"""A job's files: a git checkout, an archive, or an archive over a checkout.

Nothing an archive holds is written outside the job's directory, and no text from a job reaches a
shell.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Callable, List

from agent_bootstrap.wire import SourceRef

MEMBERS_MAX = 500_000
BYTES_MAX = 64 << 30
"""An archive beyond these bounds is a mistake or an attack; either would fill the machine."""

COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")

Execute = Callable[[List[str], Path], int]
"""Runs a command in a directory, output to the job's log; returns its exit code."""


class Unprepared(Exception):
    """The job cannot be started; the text tells its owner why."""


def check_out(source: SourceRef, work: Path, execute: Execute) -> None:
    """Clone a remote and check a commit out into an empty directory. Raises `Unprepared`."""
    if not COMMIT.fullmatch(source.commit):
        raise Unprepared("the commit to check out must be a commit hash")
    clone = ["git", "clone", "--quiet", "--no-checkout", "--", source.remote, str(work)]
    check = ["git", "checkout", "--quiet", "--detach", source.commit, "--"]
    for step, name in ((clone, "clone"), (check, "checkout")):
        if execute(step, work) != 0:
            raise Unprepared("git %s failed" % name)


def verify(archive: Path, sha256: str) -> None:
    """Raises `Unprepared` when the archive is not the one the job was submitted with."""
    if file_sha256(archive) != sha256:
        raise Unprepared("the source archive has another SHA-256 than the job says")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive: Path, work: Path) -> None:
    """Unpack a tar.gz over a directory, files before links. Raises `Unprepared` for a member that
    leaves the directory, a link out of it, or anything that is not file, directory or link."""
    root = Path(os.path.realpath(str(work)))
    try:
        with tarfile.open(str(archive), "r:gz") as tar:
            members = _checked(tar)
            for member in members:
                if not member.issym():
                    _extract(tar, member, root)
        links = [each for each in members if each.issym()]
        for link in links:
            _link(link, root)
        for link in links:
            _inside(root, root / link.name, link.name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Unprepared("the source archive cannot be unpacked: %s" % error) from error


def _checked(tar: tarfile.TarFile) -> List[tarfile.TarInfo]:
    """The members, after a look at their names, kinds and sizes."""
    members: List[tarfile.TarInfo] = []
    size = 0
    for member in tar:
        members.append(member)
        size += member.size
        if len(members) > MEMBERS_MAX or size > BYTES_MAX:
            raise Unprepared("the source archive is too large")
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise Unprepared("the source archive leaves its directory: %s" % member.name)
        if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
            raise Unprepared("the source archive holds a special file: %s" % member.name)
    return members


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    target = root / member.name
    if member.isdir():
        _inside(root, target, member.name)
        target.mkdir(parents=True, exist_ok=True)
        return
    _clear(root, target, member.name)
    if member.islnk():
        # A copy instead of a second name for the same file: the job sees no difference.
        original = root / member.linkname
        _inside(root, original, member.name)
        shutil.copyfile(str(original), str(target))
    else:
        data = tar.extractfile(member)
        assert data is not None, "a regular file has content"
        with target.open("wb") as file:
            shutil.copyfileobj(data, file)
    target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)


def _link(member: tarfile.TarInfo, root: Path) -> None:
    target = root / member.name
    _clear(root, target, member.name)
    os.symlink(member.linkname, str(target))


def _clear(root: Path, target: Path, name: str) -> None:
    """Make room for one entry. An existing link is replaced, never written through."""
    _inside(root, target.parent, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(str(target)) and not (target.is_dir() and not target.is_symlink()):
        target.unlink()


def _inside(root: Path, path: Path, name: str) -> None:
    real = os.path.realpath(str(path))
    if real != str(root) and not real.startswith(str(root) + os.sep):
        raise Unprepared("the source archive leaves its directory: %s" % name)
