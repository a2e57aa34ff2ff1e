"""What looking at any cloud needs: a deadline for each look, and checks in place of errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from importlib.metadata import version

from control_plane.core.model import ErrorClass
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Check

DEADLINE_S = 30.0
"""Above the deadlines of single calls, which a listing makes several of."""
SKEW_MAX_S = 30.0
"""Signatures and tokens are refused minutes off; half a minute is still harmless."""
AGAIN = "run the command again; if this stays, look at the network between here and the cloud"

Fix = Callable[[ProviderError], str]
"""What helps against a refusal."""


@dataclass
class Wrong(Exception):
    """Something was found that is not as it must be, and what makes it so."""

    detail: str
    fix: str


def look(
    name: str, find: Callable[[], str], fix: Fix, *, deadline_s: float = DEADLINE_S
) -> Iterator[Check]:
    """One check, of what `find` says or raises. None where it says nothing: then what it needs has
    failed before."""
    looked = threading.Event()
    found = [Check(name=name, ok=False, detail=f"no answer within {deadline_s:g} s", fix=AGAIN)]

    def run() -> None:
        found.append(_found(name, find, fix))
        looked.set()

    # A call that hangs must not keep the process from ending, as the threads of a pool would.
    threading.Thread(target=run, name="examine", daemon=True).start()
    looked.wait(deadline_s)
    last = found[-1]
    if not last.ok or last.detail:
        yield last


def _found(name: str, find: Callable[[], str], fix: Fix) -> Check:
    wrong = Check(name=name, ok=False, detail="", fix=AGAIN)
    try:
        return Check(name=name, ok=True, detail=find())
    except Wrong as error:
        return replace(wrong, detail=error.detail, fix=error.fix)
    except ProviderError as error:
        return replace(wrong, detail=str(error), fix=fix(error) or AGAIN)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        return replace(wrong, detail=f"{type(error).__name__}: {error}")


@contextmanager
def told_before() -> Iterator[None]:
    """A right that is missing here was missing when permissions were looked at."""
    try:
        yield
    except ProviderError as error:
        if error.error_class is not ErrorClass.AUTH:
            raise


def merged(clouds: Sequence[CloudPolicy]) -> Sequence[CloudPolicy]:
    """Settings that differ in nothing but their regions as one: several pools may name the same."""
    found: list[CloudPolicy] = []
    for cloud in clouds:
        same = next((each for each in found if each.options == cloud.options), None)
        if same is None:
            found.append(cloud)
        else:
            regions = tuple(dict.fromkeys((*same.regions, *cloud.regions)))
            found[found.index(same)] = replace(same, regions=regions)
    return found


def sdk(extra: str, package: str, *modules: str) -> Check:
    """Whether a cloud's SDK is installed, which an extra of ours brings."""
    try:
        for module in modules:
            import_module(module)
        return Check(name="sdk", ok=True, detail=f"{package} {version(package)}")
    except ImportError as error:
        fix = f"pip install 'orchctl[{extra}]'"
        return Check(name="sdk", ok=False, detail=str(error), fix=fix)


def unknown(name: str, why: str) -> Check:
    """What no look can tell: it stands in nobody's way, and is said."""
    return Check(name=name, ok=True, detail=f"not known: {why}")


def clock(date: str, now: datetime) -> Iterator[Check]:
    """The `Date` of an answer against our time; nothing where the cloud told none."""
    try:
        skew_s = abs((parsedate_to_datetime(date) - now).total_seconds())
    except (TypeError, ValueError):
        return
    good = skew_s <= SKEW_MAX_S
    fix = "" if good else "sudo timedatectl set-ntp true"
    yield Check(name="clock", ok=good, detail=f"{skew_s:.0f} s from the cloud's", fix=fix)
