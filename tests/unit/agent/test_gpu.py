"""Proves that what a driver prints becomes the catalogue's figures, and that nothing here fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_bootstrap import gpu
from agent_bootstrap.gpu import Gpu


@pytest.mark.parametrize(
    ("driver", "catalogue"),
    [
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10G", "A10G"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA RTX A6000", "A6000"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000Ada"),
        ("", ""),
    ],
)
def test_a_drivers_name_becomes_the_catalogues(driver: str, catalogue: str) -> None:
    assert gpu.short_name(driver) == catalogue


def test_lines_that_are_not_cards_are_left_out() -> None:
    text = "0, NVIDIA L4, 23034\nNVIDIA-SMI has failed\n1, NVIDIA L4, [N/A]\n\n"
    assert gpu.parse_query(text) == [Gpu(0, "NVIDIA L4", 23034)]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `nvidia-smi` that a test fills, and nothing else of the machine."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "_by_library", list)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0, NVIDIA L4, 23034\\n1, NVIDIA L4, 23034\\n'\n")
    tool.chmod(0o755)
    return tool


def test_cards_are_found_and_described(tool: Path, tmp_path: Path) -> None:
    found = gpu.found(gpu.gpus(), tmp_path)
    assert (found.gpus, found.gpu_name, found.gpu_memory_gib) == (2, "L4", 22)
    assert min(found.cpus, found.memory_mib) > 0


@pytest.mark.parametrize(("setting", "indices"), [("1", [1]), ("", []), ("GPU-8f2", [0, 1])])
def test_a_part_of_the_machine_is_respected(
    tool: Path, monkeypatch: pytest.MonkeyPatch, setting: str, indices: list[int]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [card.index for card in gpu.gpus()] == indices


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 9\n", "not a program", None])
def test_a_broken_or_missing_driver_means_no_gpus(tool: Path, text: str | None) -> None:
    tool.unlink()
    if text is not None:
        tool.write_text(text)
        tool.chmod(0o755)
    assert gpu.gpus() == []
