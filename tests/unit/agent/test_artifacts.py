"""Proves which files a pattern means, and that none outside the job's directory is ever meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_bootstrap import artifacts


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    for name in ("a.txt", "b.bin", "out/1.txt", "out/deep/2.txt", ".hidden"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    (tmp_path / "secret.txt").write_text("no")
    (work / "latest").symlink_to("out/1.txt")
    (work / "run").symlink_to("out")
    (work / "leak.txt").symlink_to(tmp_path / "secret.txt")
    (work / "up").symlink_to("..")
    return work


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.txt", ["a.txt"]),
        ("out", ["out/1.txt", "out/deep/2.txt"]),
        ("out/", ["out/1.txt", "out/deep/2.txt"]),
        ("out/**/*.txt", ["out/1.txt", "out/deep/2.txt"]),
        ("./a.txt", ["a.txt"]),
        (".hidden", [".hidden"]),
        ("latest", ["latest"]),
        ("run/1.txt", ["run/1.txt"]),
        ("missing", []),
        ("", []),
        ("leak.txt", []),
        ("up/*", []),
        ("up/work/a.txt", []),
        ("../*", []),
        ("/etc/hostname", []),
    ],
)
def test_a_pattern_means(work: Path, pattern: str, names: list[str]) -> None:
    assert artifacts.find(work, [pattern]) == names


def test_patterns_add_up_without_doubles(work: Path) -> None:
    assert artifacts.find(work, ["out", "out/1.txt", "a.*"]) == [
        "a.txt",
        "out/1.txt",
        "out/deep/2.txt",
    ]
