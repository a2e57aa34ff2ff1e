"""Proves that who never checks a proof does not pay for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("cryptography", "httpx2", "jwt", "xml")


@pytest.mark.parametrize("module", ["agents", "identity.aws", "identity.azure", "identity.gcp"])
def test_libraries_are_read_when_a_proof_comes(module: str) -> None:
    """They take most of a second."""
    show = f"import sys, control_plane.{module}; print(*sys.modules)"
    found = subprocess.check_output([sys.executable, "-c", show], text=True).split()
    assert f"control_plane.{module}" in found
    assert not {name.partition(".")[0] for name in found} & set(HEAVY)


def test_a_local_agent_reads_nothing_of_clouds() -> None:
    show = "import sys, agent_bootstrap.__main__; print(*sys.modules)"
    found = subprocess.check_output([sys.executable, "-c", show], text=True).split()
    assert "agent_bootstrap.worker" in found
    assert "agent_bootstrap.identity" not in found
