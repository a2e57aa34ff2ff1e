"""Quantities as people write them: durations, money, sizes, ranges, GPUs; and back to text.

One function reads each kind, and all that it refuses it refuses with one sentence that shows the
valid forms. `GB` and `GiB` mean the same here, 1024-based: clouds print the one and mean the other.
Own names such as `parse_disk_gib` say the unit of what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

from control_plane.core.policy import GpuRange, Range
from control_plane.errors import InvalidInput

DURATION_FORMS = "write a whole number and a unit, such as `90s`, `5m`, `10h` or `1d`"
MONEY_FORMS = "write a number and the currency, such as `20 USD`"
SIZE_FORMS = "write a number and a unit, such as `512MB`, `16GB` or `1TB`"
COUNT_RANGE_FORMS = "write `4..` for at least 4, `..8` for at most 8, `2..8` or `4`"
SIZE_RANGE_FORMS = "write `16GB..` for at least 16 GB, `..64GB`, `16GB..64GB` or `16GB`"
GPU_FORMS = (
    "write the model, the memory of each card if it matters, and how many, such as `L4:1`, "
    "`A100:1..8`, `H100:80GB:8` or `nvidia:24GB..:1`"
)
GPU_NEED_FORMS = (
    "write the model, the memory of each card if it matters, and how many, such as `L4:1`, "
    "`H100:80GB:8` or `nvidia:24GB:1`"
)

_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_MIB = {"MB": 1, "GB": 1024, "TB": 1024 * 1024}
_DURATION = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")
_MONEY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?USD(?: ?/ ?(hour|day|month))?")
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([MGT])i?B")
_COUNT = re.compile(r"[0-9]{1,6}")
_GPU_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_LIKE_DURATION = re.compile(r"([0-9]+) ?([smhd])(?:|ecs?|econds?|ins?|inutes?|rs?|ours?|ays?)")
_LIKE_GPU = re.compile(r"([1-9][0-9]?) ?[x*]? ?([A-Za-z][A-Za-z0-9-]*)")
_LIKE_MONEY = re.compile(r"(?:\$|USD) ?([0-9]+(?:\.[0-9]+)?)|([0-9]+(?:\.[0-9]+)?)(?: ?\$| ?usd)?")

_LARGE_CARDS = {"A100": (40, "A100-80GB"), "V100": (16, "V100-32GB")}
"""Models sold with two sizes of memory: the catalogue's plain name means the smaller card, of this
many GiB; whoever asks for more means the other name."""

_ANY_GPU = frozenset({"NVIDIA", "ANY"})


class UnitError(InvalidInput):
    """A quantity nobody can read. Its message is one sentence that shows the valid forms."""

    def __init__(self, what: str, forms: str, *, fix: str = "") -> None:
        super().__init__(f"{what}: {forms}", fix=fix)
        self.what = what
        self.forms = forms


# ------------------------------------------------------------------------------ reading


def parse_duration_s(text: str) -> int:
    """Seconds of `90s`, `5m`, `1h30m`, `1d`; raises `UnitError`."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not match[0] or len(match[0]) > 20:
        raise UnitError(
            f"{_quoted(text)} is not a duration", DURATION_FORMS, fix=_like_duration(text)
        )
    return sum(
        int(number) * seconds
        for number, seconds in zip(match.groups("0"), _SECONDS.values(), strict=True)
    )


def parse_money_usd(text: str, *, per: str = "") -> Decimal:
    """US dollars of `20 USD`, and of `1.50 USD/hour` where `per` is `hour`.

    The period may be left out; a different one is refused. Raises `UnitError`.
    """
    forms = f"{MONEY_FORMS} or `20 USD/{per}`" if per else MONEY_FORMS
    match = _MONEY.fullmatch(text.strip())
    if not match:
        raise UnitError(
            f"{_quoted(text)} is not an amount of US dollars", forms, fix=_like_money(text)
        )
    if match[2] not in (None, per):
        what = f"{_quoted(text)} is per {match[2]}"
        raise UnitError(f"{what}, this is per {per}" if per else f"{what}, this is a total", forms)
    return Decimal(match[1])


def parse_memory_mib(text: str) -> int:
    """MiB of `16GB`, `1.5 GiB`, `512MB`; raises `UnitError`."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UnitError(f"{_quoted(text)} is not a size", SIZE_FORMS, fix=_like_size(text))
    return int(Decimal(match[1]) * _MIB[f"{match[2]}B"])


def parse_disk_gib(text: str) -> int:
    """GiB of `200 GiB`, `100GB`, `1TB`, a part of one counting as a whole; raises `UnitError`."""
    return -(-parse_memory_mib(text) // 1024)


def parse_count_range(text: str) -> Range:
    """`4..`, `..8`, `2..8` or `4` (exactly four); raises `UnitError`."""
    return _range(text, _count, "a range of whole numbers", COUNT_RANGE_FORMS)


def parse_memory_range_mib(text: str) -> Range:
    """`16GB..`, `..64GB`, `16GB..64GB` or `16GB`, in MiB; raises `UnitError`."""
    return _range(text, parse_memory_mib, "a range of sizes", SIZE_RANGE_FORMS)


def parse_gpu_range(text: str) -> GpuRange:
    """The GPUs of a pool: `L4:1`, `A100:1..8`, `H100:80GB:8`, `nvidia:24GB..:1`.

    Model, memory per card and count, in this order, each of which may be left out (any NVIDIA
    model, any memory, one card). Raises `UnitError`.
    """
    parts = [part.strip() for part in text.split(":")]
    name = parts.pop(0).upper() if _GPU_NAME.fullmatch(parts[0]) else ""
    try:
        memory = _gib(parts.pop(0)) if parts and "B" in parts[0].upper() else Range()
        count = parse_count_range(parts.pop(0)) if parts else Range(low=1, high=1)
    except UnitError:
        count = Range()
    if parts or count.low < 1:
        raise UnitError(f"{_quoted(text)} is not a kind of GPU", GPU_FORMS, fix=_like_gpu(text))
    return GpuRange(name=_catalogue_name(name, memory.low), count=count, memory_gib=memory)


def parse_gpu_need(text: str) -> tuple[str, int, int]:
    """The GPUs of one job as `(name, count, memory_gib)`: `L4:1`, `H100:80GB:8`, `nvidia:24GB:1`.

    An empty name is any NVIDIA GPU; memory is at least what each card must have, 0 = not stated.
    Raises `UnitError`.
    """
    try:
        wanted = parse_gpu_range(text)
    except UnitError as error:
        raise UnitError(error.what, GPU_NEED_FORMS, fix=error.fix) from None
    if wanted.count.high != wanted.count.low:
        raise UnitError(f"{_quoted(text)} does not say how many GPUs", GPU_NEED_FORMS)
    return wanted.name, wanted.count.low, wanted.memory_gib.low


def _range(text: str, one: Callable[[str], int], noun: str, forms: str) -> Range:
    low, dots, high = (part.strip() for part in text.partition(".."))
    try:
        found = Range(low=one(low) if low else 0, high=one(high) if high else None)
    except UnitError:
        raise UnitError(f"{_quoted(text)} is not {noun}", forms) from None
    if not dots:
        found = Range(low=found.low, high=found.low)
    if not (low or high):
        raise UnitError(f"{_quoted(text)} is not {noun}", forms)
    if found.high is not None and found.high < found.low:
        raise UnitError(f"{_quoted(text)} ends before it begins", forms)
    return found


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise UnitError(f"{_quoted(text)} is not a whole number", COUNT_RANGE_FORMS)
    return int(text)


def _gib(text: str) -> Range:
    mib = parse_memory_range_mib(text)
    return Range(low=-(-mib.low // 1024), high=None if mib.high is None else -(-mib.high // 1024))


def _catalogue_name(name: str, memory_gib: int) -> str:
    if name in _ANY_GPU:
        return ""
    small_gib, large = _LARGE_CARDS.get(name, (memory_gib, name))
    return large if memory_gib > small_gib else name


def _quoted(text: str) -> str:
    shown = " ".join(text.split())
    if not shown:
        return "an empty text"
    return f"`{shown}`" if len(shown) <= 40 else f"`{shown[:37]}…`"


def _like_duration(text: str) -> str:
    if _COUNT.fullmatch(text.strip()):
        return f"did you mean `{text.strip()}s`?"
    match = _LIKE_DURATION.fullmatch(text.strip().lower())
    return f"did you mean `{match[1]}{match[2]}`?" if match else ""


def _like_gpu(text: str) -> str:
    match = _LIKE_GPU.fullmatch(text.strip())
    return f"did you mean `{match[2].upper()}:{match[1]}`?" if match else ""


def _like_money(text: str) -> str:
    amount, _, per = text.strip().partition("/")
    match = _LIKE_MONEY.fullmatch(amount.strip())
    if not match:
        return ""
    return f"did you mean `{match[1] or match[2]} USD{f'/{per.strip()}' if per else ''}`?"


def _like_size(text: str) -> str:
    plain = text.strip().upper().replace("I", "")
    for guess in (plain, f"{plain}B", f"{plain}GB"):
        if _SIZE.fullmatch(guess):
            return f"did you mean `{guess}`?"
    return ""


# ------------------------------------------------------------------------------ writing


def duration_text(seconds: int) -> str:
    """The shortest form that `parse_duration_s` reads back: `90s`, `5m`, `1d`."""
    for unit, size in _SECONDS.items():
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return "0s"


def amount_text(usd: Decimal) -> str:
    """The figure alone: `20`, `1.50`, `0.0042`."""
    whole = usd.to_integral_value()
    if usd == whole:
        return f"{whole:f}"
    shown = f"{usd.normalize():f}"
    return shown if len(shown.partition(".")[2]) > 1 else f"{shown}0"


def usd_text(usd: Decimal, *, per: str = "") -> str:
    """`20 USD`, `1.50 USD/hour`; every decimal that is there, none that says nothing."""
    return f"{amount_text(usd)} USD{f'/{per}' if per else ''}"


def memory_text(mib: int) -> str:
    """The shortest form that `parse_memory_mib` reads back: `16GB`, `1536MB`."""
    for unit, size in reversed(_MIB.items()):
        if mib and mib % size == 0:
            return f"{mib // size}{unit}"
    return f"{mib}MB"


def disk_text(gib: int) -> str:
    """`100GB`, `1TB`."""
    return memory_text(gib * 1024)


def range_text(held: Range, one: Callable[[int], str] = str) -> str:
    """`4..`, `2..8`, `..8`, `4`."""
    if held.high is None:
        return f"{one(held.low)}.."
    if held.high == held.low:
        return one(held.low)
    return f"{one(held.low) if held.low else ''}..{one(held.high)}"


def gpu_text(gpu: GpuRange) -> str:
    """The form that `parse_gpu_range` reads back: `L4:1`, `nvidia:24GB..:1`."""
    memory = [] if gpu.memory_gib == Range() else [range_text(gpu.memory_gib, disk_text)]
    return ":".join([gpu.name or "nvidia", *memory, range_text(gpu.count)])
