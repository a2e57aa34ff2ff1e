"""The seam between registering and the clouds' ways of saying who a machine is.

How a proof is made: `agent_bootstrap/identity.py`. Sources of all steps: the clouds' own pages on
verifying identity, named at each verifier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from control_plane.core.model import Machine
from control_plane.errors import Denied, Unavailable

if TYPE_CHECKING:
    from jwt.types import Options

CLOCK_SKEW = timedelta(minutes=5)
"""How far the clocks of a machine, a cloud and this server may be apart. AWS allows as much."""

SIGNATURE_ONLY: Options = {
    "verify_aud": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_iss": False,
    "verify_jti": False,
    "verify_nbf": False,
    "verify_sub": False,
}
"""What PyJWT leaves to us: claims are checked one by one, against our own clock."""


class Verifier(Protocol):
    """Checks the proofs of the machines of one cloud. Any number of threads may use it."""

    def check(self, machine: Machine, proof: Mapping[str, str], nonce: str) -> None:
        """Return when the proof shows that its sender is this machine, and that it was made for
        this nonce. What the proof is compared with is in the machine's record: what the cloud
        answered to our launch, or shows under our label. So no cloud is asked about the machine.

        Raises `Denied` with the step that failed, and `Unavailable` when nothing can be said now,
        since a cloud does not answer or the record is not complete. Then the agent comes again."""


def part(proof: Mapping[str, str], name: str) -> str:
    """A part of a proof. Raises `Denied` when it is missing."""
    if not proof.get(name):
        raise Denied(f"the proof has no {name}")
    return proof[name]


def known(machine: Machine, name: str) -> str:
    """What the cloud said of a machine, see `Machine.identity`. Raises `Unavailable` when it is not
    in the record."""
    if not machine.identity.get(name):
        raise Unavailable(f"the {name} of machine {machine.id} is not known yet")
    return machine.identity[name]


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object that names nothing twice. Raises `Denied`."""
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Denied(f"{what} is not usable JSON") from error
    if not isinstance(found, dict):
        raise Denied(f"{what} is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found
