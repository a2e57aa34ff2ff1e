"""Runs as a plugin of Terraform: `python -m tests.fakes.terraform_provider NAME`.

With `--dev` it goes on from command to command and prints how Terraform finds it, until standard
input ends, which it does when whoever holds the other end dies.
"""

from __future__ import annotations

import os
import sys
import threading

import tf.provider
import tf.runner

from tests.fakes.terraform_provider.schema import load
from tests.fakes.terraform_provider.servicer import Servicer


def _end_with_the_holder() -> None:
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    _, name, *words = sys.argv
    if "--dev" in words:
        threading.Thread(target=_end_with_the_holder, daemon=True).start()
    # The package serves providers that are written in its own terms; ours is a schema.
    tf.provider.ProviderServicer = Servicer
    tf.runner.run_provider(load(name), [name, *words])
