"""What machines prove themselves with. Both tokens are derived from one server secret, so a crash
between making and using one loses nothing, and nothing secret is stored with a machine's record.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache, partial

from control_plane.core.model import Machine
from control_plane.errors import Denied


class MachineTokens:
    """Makes and checks the tokens of machines."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("the server secret needs at least 32 bytes")
        self._secret = secret
        # An agent sends its session with every request.
        self._session_mac = lru_cache(maxsize=16_384)(partial(self._mac, "session"))

    def one_time(self, machine: Machine) -> str:
        """What a local or ssh machine exchanges for its session; bound to this launch attempt."""
        return self._mac("one-time", machine.launch_key)

    def session(self, machine_id: str, instance: str) -> str:
        """What an agent sends with every request; good while its machine's record is open."""
        return f"{machine_id}.{self._session_mac(machine_id, instance)}"

    def check_one_time(self, machine: Machine, token: str) -> None:
        """Raise `Denied` unless this is the token of the machine's current launch attempt."""
        if not hmac.compare_digest(self.one_time(machine).encode(), token.encode()):
            raise Denied("this machine's proof does not match its launch record")

    @staticmethod
    def machine_id(token: str) -> str:
        """Which machine a session token claims to be; proves nothing yet."""
        return token.partition(".")[0]

    def check_session(self, machine: Machine, token: str) -> None:
        """Raise `Denied` unless this is the session of the agent registered for the machine."""
        expected = self.session(machine.id, machine.instance)
        if not machine.instance or not hmac.compare_digest(expected.encode(), token.encode()):
            raise Denied("this is not the session of that machine's agent")

    def _mac(self, *parts: str) -> str:
        # Parts are joined by a character that no id may hold, so two lists never collide.
        message = "\n".join(parts).encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
