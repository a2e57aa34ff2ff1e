"""What machines prove themselves with. Tokens and nonces are derived from one server secret, so a
crash between making and using one loses nothing, and nothing secret is stored with a machine's
record.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from functools import lru_cache, partial

from control_plane.core.model import Machine
from control_plane.errors import Denied

NONCE_DIGITS = 10
"""The longest nonce that all three clouds sign: Azure's documents take ten digits."""
ID_MAX = 200
"""Characters of a machine's id, as in what agents send (`api/messages.py`)."""
NONCE_S = 300
"""A nonce is good for the rest of its window of time and for the next one."""


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

    def nonce(self, machine_id: str, now: datetime) -> str:
        """What the proof of a machine of a cloud must carry, made whether or not there is such a
        machine. No secret: it shows that the proof is fresh and made for this machine."""
        return self._nonce(machine_id, _window(now))

    def check_nonce(self, machine_id: str, nonce: str, now: datetime) -> None:
        """Raise `Denied` unless this nonce was given to the machine lately."""
        # The next window too: whoever gave the nonce may have a clock that is a little ahead.
        windows = range(_window(now) - 1, _window(now) + 2)
        good = [self._nonce(machine_id, window) for window in windows]
        if not any(hmac.compare_digest(each.encode(), nonce.encode()) for each in good):
            raise Denied("this nonce was not given to this machine, or is too old")

    @staticmethod
    def machine_id(token: str) -> str:
        """Which machine a session token claims to be; proves nothing yet. Raises `Denied` for what
        no machine can be called: not every store can be asked for that."""
        name = token.partition(".")[0]
        if not 0 < len(name) <= ID_MAX:
            raise Denied("this is not the session of a machine")
        return name

    def check_session(self, machine: Machine, token: str) -> None:
        """Raise `Denied` unless this is the session of the agent registered for the machine."""
        expected = self.session(machine.id, machine.instance)
        if not machine.instance or not hmac.compare_digest(expected.encode(), token.encode()):
            raise Denied("this is not the session of that machine's agent")

    def _nonce(self, machine_id: str, window: int) -> str:
        number = int(self._mac("nonce", machine_id, str(window)), 16)
        return f"{number % 10**NONCE_DIGITS:0{NONCE_DIGITS}}"

    def _mac(self, *parts: str) -> str:
        # Parts are joined by a character that no id may hold, so two lists never collide.
        message = "\n".join(parts).encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def _window(now: datetime) -> int:
    return int(now.timestamp()) // NONCE_S
