"""What a machine has: GPUs by the driver's own tool, the rest by the standard library.

Whatever cannot be found out counts as not there; nothing here fails.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from agent_bootstrap.wire import Found

QUERY = [
    "nvidia-smi",
    "--query-gpu=index,name,memory.total",
    "--format=csv,noheader,nounits",
]

QUERY_TIMEOUT_S = 30
"""The first query after boot loads the driver, which takes seconds on machines with many cards."""

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Gpu:
    """One card, by the number that `CUDA_DEVICE_ORDER=PCI_BUS_ID` gives it."""

    index: int
    name: str
    memory_mib: int


def gpus() -> List[Gpu]:
    """The cards this process may use."""
    cards = _by_tool() or _by_library()
    return _visible(cards, os.environ.get("CUDA_VISIBLE_DEVICES"))


def found(cards: List[Gpu], directory: Path) -> Found:
    """The machine in figures; `directory` is on the disk that jobs will use."""
    return Found(
        gpus=len(cards),
        gpu_name=short_name(cards[0].name) if cards else "",
        gpu_memory_gib=min((round(card.memory_mib / 1024) for card in cards), default=0),
        cpus=_cpus(),
        memory_mib=_memory_mib(),
        disk_gib=_disk_gib(directory),
    )


def short_name(name: str) -> str:
    """A driver's name as the catalogue writes it: `NVIDIA A100-SXM4-40GB` is `A100`,
    `NVIDIA GeForce RTX 4090` is `RTX4090`, `NVIDIA RTX A6000` is `A6000`."""
    words = [
        word
        for word in re.split(r"[ -]", name)
        if word not in ("NVIDIA", "Tesla", "GeForce", "Quadro", "Generation")
    ]
    if len(words) > 1 and words[0] == "RTX":
        return words[1] if words[1].startswith("A") else "".join(words)
    return words[0] if words else ""


def parse_query(text: str) -> List[Gpu]:
    """The tool's lines `index, name, memory in MiB`; others are left out."""
    cards = []
    for line in text.splitlines():
        match = re.fullmatch(r"(\d+), (.+), (\d+)", line.strip())
        if match:
            cards.append(Gpu(int(match[1]), match[2], int(match[3])))
    return cards


def _by_tool() -> List[Gpu]:
    try:
        answer = subprocess.run(
            QUERY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=QUERY_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_query(answer.stdout.decode("utf-8", "replace"))


def _by_library() -> List[Gpu]:
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())
        ]
        return [
            Gpu(index, _text(nvml.nvmlDeviceGetName(handle)), _nvml_memory_mib(nvml, handle))
            for index, handle in enumerate(handles)
        ]
    except Exception:  # noqa: BLE001 - no library, no driver, no card: there are no GPUs
        return []


def _nvml_memory_mib(nvml: object, handle: object) -> int:
    info = nvml.nvmlDeviceGetMemoryInfo(handle)  # type: ignore[attr-defined]
    return int(info.total) // MIB


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _visible(cards: List[Gpu], setting: Optional[str]) -> List[Gpu]:
    """Somebody may have given the agent a part of the machine; a list of numbers is understood."""
    if setting is None or not re.fullmatch(r"[\d, ]*", setting):
        return cards
    allowed = {int(each) for each in re.findall(r"\d+", setting)}
    return [card for card in cards if card.index in allowed]


def _cpus() -> int:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = _words("/sys/fs/cgroup/cpu.max")
    if len(limit) == 2 and limit[0].isdigit():
        count = min(count or 1, max(1, int(limit[0]) // int(limit[1])))
    return count or 1


def _memory_mib() -> int:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    limit = _words("/sys/fs/cgroup/memory.max")
    if limit and limit[0].isdigit():
        size = min(size, int(limit[0]))
    return size // MIB


def _disk_gib(directory: Path) -> int:
    try:
        return shutil.disk_usage(str(directory)).free // GIB
    except OSError:
        return 0


def _words(path: str) -> List[str]:
    try:
        return Path(path).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
