"""The Python side of orchctl: submit jobs and see what runs, from any program.

    import orchctl
    client = orchctl.Client()
    job = client.jobs.submit(command="python train.py", queue="default", gpu="L4:1")

Names are loaded on first use, so importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchctl import errors
    from orchctl.client import Client
    from orchctl.remotely import execute_remotely

__all__ = ["Client", "errors", "execute_remotely"]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("orchctl.errors")
    homes = {"Client": "orchctl.client", "execute_remotely": "orchctl.remotely"}
    if name in homes:
        return getattr(import_module(homes[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
