"""What this computer has to offer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from control_plane.core.model import Capacity

_MIB, _GIB = 1024**2, 1024**3
_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_VENDOR_WORDS = {"NVIDIA", "Tesla", "GeForce", "Quadro"}


def processor_capacity(root: Path) -> Capacity:
    """CPUs, memory and the disk that `root` lies on; no GPUs."""
    return Capacity(
        cpus=max(1, os.cpu_count() or 1),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB,
        disk_gib=shutil.disk_usage(root).free // _GIB,
    )


def gpu_lines() -> tuple[str, ...]:
    """`name, MiB` of each GPU as nvidia-smi prints them; empty where there is none."""
    try:
        shown = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line for line in shown.stdout.splitlines() if line.strip())


def gpus(lines: tuple[str, ...]) -> tuple[int, str, int]:
    """How many GPUs, their catalogue name, and the GiB on each (the smallest counts)."""
    if not lines:
        return 0, "", 0
    rows = [line.rpartition(",") for line in lines]
    memory_gib = min(round(int(memory) / 1024) for _, _, memory in rows)
    return len(rows), gpu_name(rows[0][0]), memory_gib


def gpu_name(marketed: str) -> str:
    """`NVIDIA A100-SXM4-80GB` -> `A100-80GB`, `Tesla T4` -> `T4`: as the catalogue writes it."""
    words = [word for word in marketed.split() if word not in _VENDOR_WORDS]
    if "NVL" in words:
        return f"{words[0]}-NVL"
    if words[0] == "RTX":
        return "-".join(words[:3])
    model, *parts = words[0].split("-")
    # The A100 and V100 are sold with two sizes of memory; the catalogue names the larger one.
    larger = {"A100": "80GB", "V100": "32GB"}.get(model)
    return f"{model}-{larger}" if larger in parts else model
