"""A directory as something a machine can run: git commit and changes, or the files themselves.

Where a git remote has the commit, only what differs from it travels: the archive holds the changed
and the new files, whole, to be unpacked over a checkout of that commit. Otherwise (no git, no
remote, a commit that was never pushed, or a deleted file, which an archive cannot say) the archive
holds the directory. Ignored files never travel. The same files always make the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from os import environ
from pathlib import Path

from orchctl.errors import InvalidInput
from orchctl.output import count

SIZE_MAX_BYTES = 60 * 1024 * 1024
"""Of all captured files together, packed always below the 64 MiB that the server takes. Code is far
smaller; what is larger is data or a model that slipped past .gitignore."""

_NEVER = frozenset({".git", ".venv", "node_modules", "__pycache__"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """The files of a job, ready to be sent."""

    kind: str
    """`git` or `archive`."""
    archive: bytes
    """tar.gz; empty for an unchanged checkout."""
    sha256: str
    remote: str = ""
    commit: str = ""
    subdirectory: str = ""
    """Where in the captured tree the user stood; empty = at its top."""
    summary: str
    """For people."""

    def at(self, command: str) -> str:
        """The command line, run where the user stood."""
        return f"cd {shlex.quote(self.subdirectory)} && {command}" if self.subdirectory else command


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """What a job's Python environment holds."""

    lines: tuple[str, ...] = ()
    """Requirement lines; empty = no environment is built."""
    python: str = ""
    """Python version the lines were made for; empty = any."""


def capture(directory: Path, *, ship: bool = False) -> Captured:
    """Capture the git checkout that `directory` is in, or the directory itself outside git. With
    `ship` the files themselves travel even where a remote has them. Raises `InvalidInput` for more
    than `SIZE_MAX_BYTES`."""
    directory = directory.resolve()
    root = _git_root(directory)
    if root is None:
        return _whole(directory, directory, label=directory.name)
    label = _label(root)
    published = None if ship else _published(root)
    if published is None or _git(root, "diff", "--name-only", "--diff-filter=D", "HEAD"):
        return _whole(root, directory, label=label)
    return _changes(root, directory, remote=published, label=label)


def _changes(root: Path, directory: Path, *, remote: str, label: str) -> Captured:
    commit = _git(root, "rev-parse", "HEAD").strip()
    changed = _listed(root, "diff", "--name-only", "-z", "HEAD")
    new = _listed(root, "ls-files", "-z", "--others", "--exclude-standard")
    archive = pack(root, [*changed, *new]) if changed or new else b""
    parts = [count(_changed_lines(root), "changed line")] if changed else []
    parts += [count(len(new), "new file")] if new else []
    return Captured(
        kind="git",
        archive=archive,
        sha256=hashlib.sha256(archive).hexdigest() if archive else "",
        remote=remote,
        commit=commit,
        subdirectory=_subdirectory(root, directory),
        summary=f"{label} @ {commit[:7]}" + (f" + {', '.join(parts)}" if parts else ""),
    )


def _whole(root: Path, directory: Path, *, label: str) -> Captured:
    names = _files(root)
    archive = pack(root, names)
    return Captured(
        kind="archive",
        archive=archive,
        sha256=hashlib.sha256(archive).hexdigest(),
        subdirectory=_subdirectory(root, directory),
        summary=f"{label}: {count(len(names), 'file')}, {len(archive) / 1024:.0f} KiB",
    )


# ------------------------------------------------------------------------------- the archive


def pack(root: Path, names: Iterable[str]) -> bytes:
    """Files below `root` as tar.gz: sorted, without times and owners, so that equal files make
    equal bytes. Raises `InvalidInput` for more than `SIZE_MAX_BYTES`."""
    chosen = sorted(set(names))
    _check_size(root, chosen)
    raw = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in chosen:
            _add(archive, root / name, name)
    return raw.getvalue()


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = archive.gettarinfo(path, name)
    member.mtime = 0
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    if member.islnk():  # a second name of a file in the archive: send it as a file of its own
        member.type, member.size = tarfile.REGTYPE, path.stat().st_size
    if member.isreg():
        member.mode = 0o755 if member.mode & 0o100 else 0o644
        with path.open("rb") as file:
            archive.addfile(member, file)
    else:
        archive.addfile(member)


def _check_size(root: Path, names: Sequence[str]) -> None:
    sizes = {name: (root / name).lstat().st_size for name in names}
    total = sum(sizes.values())
    if total <= SIZE_MAX_BYTES:
        return
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:3]
    listed = ", ".join(f"{name} ({_mib(sizes[name])})" for name in largest)
    raise InvalidInput(
        f"the files to send come to {_mib(total)}; the limit is {_mib(SIZE_MAX_BYTES)}",
        why=f"largest: {listed}",
        fix="add what the job does not need to .gitignore, or pass --no-capture",
    )


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"


# ---------------------------------------------------------------------------------- the files


def _files(root: Path) -> list[str]:
    listing = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if not shutil.which("git"):
        walked = (each.relative_to(root).as_posix() for each in root.rglob("*"))
        return [name for name in walked if _travels(root, name)]
    if _git_root(root) == root:
        return _listed(root, *listing)
    # Outside a repository git still applies .gitignore, given an empty repository elsewhere.
    with tempfile.TemporaryDirectory() as empty:
        _git(root, "init", "--quiet", "--bare", empty)
        return _listed(root, f"--git-dir={empty}", "--work-tree=.", *listing)


def _listed(root: Path, *listing: str) -> list[str]:
    names = dict.fromkeys(_git(root, *listing).split("\0"))
    return [name for name in names if name and _travels(root, name)]


def _travels(root: Path, name: str) -> bool:
    path = root / name
    if path.is_symlink():
        # A link that leaves the directory would point at nothing there, and unpacking refuses it.
        return not path.readlink().is_absolute() and path.resolve().is_relative_to(root)
    return path.is_file() and _NEVER.isdisjoint(Path(name).parts)


def _subdirectory(root: Path, directory: Path) -> str:
    relative = directory.relative_to(root).as_posix()
    return "" if relative == "." else relative


# ---------------------------------------------------------------------------------------- git


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "core.quotePath=false", *arguments],
        cwd=directory,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise InvalidInput(
            f"git {arguments[0]} failed in {directory}",
            why=done.stderr.decode(errors="replace").strip(),
            fix="repair the repository, or pass --no-capture",
        )
    return done.stdout.decode("utf-8", "surrogateescape")


def _git_try(directory: Path, *arguments: str) -> str:
    try:
        return _git(directory, *arguments).strip()
    except (InvalidInput, FileNotFoundError):
        return ""


def _git_root(directory: Path) -> Path | None:
    top = _git_try(directory, "rev-parse", "--show-toplevel")
    return Path(top).resolve() if top else None


def _published(root: Path) -> str | None:
    """The address of a remote that has the checked-out commit; None = it was never pushed."""
    branches = _git_try(
        root, "for-each-ref", "--contains", "HEAD", "--format=%(refname)", "refs/remotes"
    )
    holders = {line.split("/")[2] for line in branches.splitlines()}
    for remote in sorted(holders, key=lambda name: (name != "origin", name)):
        if url := _git_try(root, "remote", "get-url", remote):
            return _without_secret(url)
    return None


def _without_secret(url: str) -> str:
    """A token in a remote's address belongs to this user, not into a job's record."""
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", url) if url.startswith("http") else url


def _label(root: Path) -> str:
    url = _git_try(root, "remote", "get-url", "origin")
    parts = re.split(r"[/:]", url.removesuffix(".git").rstrip("/")) if url else [root.name]
    return "/".join(part for part in parts[-2:] if part)


def _changed_lines(root: Path) -> int:
    counts = (line.split("\t")[:2] for line in _git(root, "diff", "--numstat", "HEAD").splitlines())
    return sum(int(count) for pair in counts for count in pair if count.isdigit())


# ----------------------------------------------------------------------------------- packages


def found_in(directory: Path) -> Packages:
    """What `requirements.txt` of a directory asks for; nothing where there is none."""
    path = directory / "requirements.txt"
    return from_file(path) if path.is_file() else Packages()


def from_file(path: Path) -> Packages:
    """The lines of a requirements file, with the files it includes. Raises `InvalidInput` for what
    only makes sense on this machine."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read", why=error.strerror or str(error)) from error
    return Packages(lines=tuple(_requirements(path, text)))


def _requirements(path: Path, text: str) -> Iterable[str]:
    for raw in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if included := re.match(r"(?:-r|--requirement)[\s=]+(\S+)$", line):
            yield from from_file(path.parent / included[1]).lines
        elif re.match(r"(-e|--editable|-c|--constraint|\.)", line):
            raise InvalidInput(
                f"{path}: `{line}` means something on this machine only",
                fix="leave it out, or pass --packages lock or --packages none",
            )
        elif line:
            yield line


def locked() -> Packages:
    """The packages installed in the active environment, each at its version, and its Python. What
    was installed from a directory here is left out: no machine can fetch it."""
    sites = _sites()
    found = distributions(path=[str(site) for site in sites]) if sites else distributions()
    lines = {f"{_normal(each.metadata['Name'])}=={each.version}" for each in found if _public(each)}
    return Packages(lines=tuple(sorted(lines)), python=_python_of(sites))


def _sites() -> list[Path]:
    """Package folders of an activated virtual environment that is not the one we run in."""
    active = environ.get("VIRTUAL_ENV", "")
    if not active or Path(active).resolve() == Path(sys.prefix).resolve():
        return []
    return sorted(Path(active).glob("lib/python*/site-packages"))


def _python_of(sites: Sequence[Path]) -> str:
    if sites:
        return sites[0].parent.name.removeprefix("python")
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _public(distribution: Distribution) -> bool:
    origin = distribution.read_text("direct_url.json") or ""
    return "file://" not in origin


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
