"""Which orchctl this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed() -> str:
    """The version of the installed package; empty when it runs without being installed."""
    try:
        return version("orchctl")
    except PackageNotFoundError:
        return ""
