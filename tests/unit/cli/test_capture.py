"""Capture against real git repositories: what travels, and that the same files make the same bytes.

"Travels" is checked the way a machine will see it: clone, check out, unpack over it.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from orchctl import capture as capturing
from orchctl.capture import Captured, capture
from orchctl.errors import InvalidInput

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _no_settings_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.com")


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=directory, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with two files, not pushed anywhere."""
    path = tmp_path / "vision"
    path.mkdir()
    git(path, "init", "--quiet", "-b", "main")
    (path / "train.py").write_text("print(1)\nprint(2)\n")
    (path / "weights.bin").write_bytes(bytes(range(256)))
    (path / ".gitignore").write_text("*.log\ndata/\n")
    git(path, "add", ".")
    git(path, "commit", "--quiet", "-m", "first")
    return path


@pytest.fixture
def pushed(checkout: Path, tmp_path: Path) -> Path:
    """The same, pushed to a bare repository `acme/vision.git`."""
    remote = tmp_path / "acme" / "vision.git"
    git(tmp_path, "init", "--quiet", "--bare", "-b", "main", str(remote))
    git(checkout, "remote", "add", "origin", str(remote))
    git(checkout, "push", "--quiet", "origin", "main")
    return checkout


def members(captured: Captured) -> Files:
    if not captured.archive:
        return {}
    with tarfile.open(fileobj=io.BytesIO(captured.archive)) as archive:
        regular = [each for each in archive if each.isfile()]
        return {each.name: archive.extractfile(each).read() for each in regular}  # type: ignore[union-attr]


def rebuilt(captured: Captured, target: Path) -> Files:
    """What a machine would have in the job's directory."""
    if captured.kind == "git":
        git(target.parent, "clone", "--quiet", captured.remote, target.name)
        git(target, "checkout", "--quiet", captured.commit)
    target.mkdir(exist_ok=True)
    if captured.archive:
        with tarfile.open(fileobj=io.BytesIO(captured.archive)) as archive:
            archive.extractall(target, filter="data")
    return tree(target)


def tree(root: Path) -> Files:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(root).parts
    }


def test_an_unchanged_pushed_checkout_is_a_commit_and_nothing_else(
    pushed: Path, tmp_path: Path
) -> None:
    captured = capture(pushed)
    assert (captured.kind, captured.archive, captured.sha256) == ("git", b"", "")
    assert captured.commit == git(pushed, "rev-parse", "HEAD")
    assert captured.summary == f"acme/vision @ {captured.commit[:7]}"
    assert rebuilt(captured, tmp_path / "there") == tree(pushed)


def test_changes_and_new_files_travel_over_the_commit(pushed: Path, tmp_path: Path) -> None:
    (pushed / "train.py").write_text("print(1)\nprint(3)\nprint(4)\n")
    (pushed / "weights.bin").write_bytes(b"\x00\x01\xff" * 100)
    (pushed / "pkg/inner").mkdir(parents=True)
    (pushed / "pkg/inner/näme with space.py").write_text("new = True\n")
    (pushed / "staged.py").write_text("staged = True\n")
    git(pushed, "add", "staged.py")
    (pushed / "noise.log").write_text("ignored")
    (pushed / "data").mkdir()
    (pushed / "data/big").write_text("ignored")

    captured = capture(pushed)

    assert captured.kind == "git"
    assert set(members(captured)) == {
        "train.py",
        "weights.bin",
        "staged.py",
        "pkg/inner/näme with space.py",
    }
    assert captured.summary.endswith(" + 4 changed lines, 1 new file")
    expected = {
        name: data
        for name, data in tree(pushed).items()
        if name != "noise.log" and not name.startswith("data/")
    }
    assert rebuilt(captured, tmp_path / "there") == expected


def test_a_deleted_file_is_gone_there_too(pushed: Path, tmp_path: Path) -> None:
    (pushed / "weights.bin").unlink()
    captured = capture(pushed)
    assert captured.kind == "archive"
    assert rebuilt(captured, tmp_path / "there") == tree(pushed)


def test_a_commit_nobody_has_ships_the_files(pushed: Path, tmp_path: Path) -> None:
    (pushed / "train.py").write_text("print(5)\n")
    git(pushed, "commit", "--quiet", "-am", "second")
    captured = capture(pushed)
    assert (captured.kind, captured.remote, captured.commit) == ("archive", "", "")
    assert rebuilt(captured, tmp_path / "there") == tree(pushed)


def test_without_a_remote_the_files_travel(checkout: Path, tmp_path: Path) -> None:
    (checkout / "noise.log").write_text("ignored")
    (checkout / "new.py").write_text("new")
    captured = capture(checkout)
    assert captured.kind == "archive"
    assert set(members(captured)) == {"train.py", "weights.bin", ".gitignore", "new.py"}
    assert captured.summary.startswith("vision: 4 files, ")


def test_a_fresh_repository_without_a_commit_ships_its_files(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").write_text("a")
    assert set(members(capture(tmp_path))) == {"a.py"}


def test_shipping_can_be_asked_for(pushed: Path) -> None:
    assert capture(pushed, ship=True).kind == "archive"


def test_from_a_subdirectory_the_whole_checkout_travels_and_the_job_runs_there(
    pushed: Path,
) -> None:
    inner = pushed / "my work"
    inner.mkdir()
    (inner / "job.py").write_text("x")
    captured = capture(inner)
    assert set(members(captured)) == {"my work/job.py"}
    assert captured.at("python job.py") == "cd 'my work' && python job.py"
    assert capture(pushed).at("ls") == "ls"


def test_a_plain_directory_travels_without_what_never_should(tmp_path: Path) -> None:
    for name in ("a.py", "b/c.py", ".venv/lib/x", "node_modules/y/z", "b/__pycache__/c.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("secret\n")
    (tmp_path / "secret").write_text("token")
    assert set(members(capture(tmp_path))) == {"a.py", "b/c.py", ".gitignore"}


def test_without_git_the_directory_still_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text("a")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/x").write_text("x")
    monkeypatch.setenv("PATH", "")
    assert set(members(capture(tmp_path))) == {"a.py"}


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    archives = []
    for name, when in (("one", 1_000_000_000), ("two", 1_700_000_000)):
        root = tmp_path / name
        (root / "d").mkdir(parents=True)
        for file in ("b", "a", "d/c") if name == "one" else ("d/c", "a", "b"):
            (root / file).write_text(file)
            os.utime(root / file, (when, when))
        (root / "b").chmod(0o700 if name == "one" else 0o755)
        (root / "a").chmod(0o600 if name == "one" else 0o664)
        archives.append(capturing.pack(root, ["b", "a", "d/c", "a"]))
    assert archives[0] == archives[1]


def test_links_inside_travel_and_links_that_leave_do_not(tmp_path: Path) -> None:
    root = tmp_path / "here"
    root.mkdir()
    (root / "a").write_text("a")
    (root / "inside").symlink_to("a")
    (root / "outside").symlink_to("../elsewhere")
    (root / "absolute").symlink_to(root / "a")
    os.link(root / "a", root / "second")
    captured = capture(root)
    with tarfile.open(fileobj=io.BytesIO(captured.archive)) as archive:
        kinds = {each.name: each.type for each in archive}
    assert kinds == {"a": tarfile.REGTYPE, "inside": tarfile.SYMTYPE, "second": tarfile.REGTYPE}
    assert members(captured)["second"] == b"a"


def test_too_much_is_refused_with_the_largest_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capturing, "SIZE_MAX_BYTES", 1024 * 1024)
    with (tmp_path / "model.pt").open("wb") as file:
        file.truncate(3 * 1024 * 1024)
    (tmp_path / "a.py").write_text("a")
    with pytest.raises(InvalidInput) as caught:
        capture(tmp_path)
    assert str(caught.value) == "the files to send come to 3.0 MiB; the limit is 1.0 MiB"
    assert caught.value.why.startswith("largest: model.pt (3.0 MiB)")
    assert ".gitignore" in caught.value.fix


def test_a_token_in_the_remotes_address_stays_here(pushed: Path) -> None:
    url = "https://ada:ghp_secret@example.com/acme/vision.git"
    git(pushed, "remote", "set-url", "origin", url)
    captured = capture(pushed)
    assert captured.remote == "https://example.com/acme/vision.git"
    assert "ghp_secret" not in repr(captured)


# ----------------------------------------------------------------------------------- packages


def test_requirements_are_read_with_what_they_include(tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("numpy>=2\n")
    (tmp_path / "requirements.txt").write_text(
        "# ours\n\ntorch==2.9  # pinned\n-r base.txt\nurllib3 ; python_version < '4' \\\n"
        " and platform_system != 'Windows'\ngit+https://example.com/x#egg=x\n"
    )
    packages = capturing.found_in(tmp_path)
    assert packages.lines[:2] == ("torch==2.9", "numpy>=2")
    assert packages.lines[2].split() == (
        "urllib3 ; python_version < '4' and platform_system != 'Windows'".split()  # noqa: SIM905
    )
    assert packages.lines[3] == "git+https://example.com/x#egg=x"
    assert packages.python == ""


def test_no_requirements_file_means_no_environment(tmp_path: Path) -> None:
    assert capturing.found_in(tmp_path) == capturing.Packages()
    with pytest.raises(InvalidInput, match="cannot be read"):
        capturing.from_file(tmp_path / "absent.txt")


@pytest.mark.parametrize("line", ["-e .", "--editable ../lib", "-c limits.txt", "./wheel.whl"])
def test_what_means_something_here_only_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(line + "\n")
    with pytest.raises(InvalidInput, match="this machine only"):
        capturing.found_in(tmp_path)


def test_a_lock_pins_what_is_installed_here() -> None:
    packages = capturing.locked()
    assert any(line.startswith("pytest==") for line in packages.lines)
    assert list(packages.lines) == sorted(packages.lines)
    assert packages.python.startswith("3.")


def test_a_lock_is_of_the_activated_environment_without_local_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "lib/python3.12/site-packages"
    for name, origin in (("My_Pkg", ""), ("local", '{"url": "file:///home/ada/local"}')):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if origin:
            (info / "direct_url.json").write_text(origin)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    assert capturing.locked() == capturing.Packages(lines=("my-pkg==1.0",), python="3.12")
