"""One POST to an address that somebody else has chosen: over TLS, to the public network, no further
than that.

The name is looked up once, and what was looked at is what is connected to: a name that changes its
mind in between leads nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import SplitResult, urlsplit

from control_plane.errors import InvalidInput, Unavailable

CONNECT_S = 5.0
"""Also between two pieces of an answer."""
TOTAL_S = 10.0
BODY_MAX_BYTES = 64 * 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Sequence[str]]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Behind these, networks without IPv4 put the addresses of it (RFC 6052)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Sends. Any number of threads may use it."""

    local: bool = False
    """Whether this computer may be addressed too, by plain HTTP as well: for a control plane that
    runs beside its receiver."""
    trust: ssl.SSLContext | None = None
    """Whose certificates are believed; None = those that this system believes."""
    lookup: Lookup = lambda host, port: _looked_up(host, port)
    """The addresses of a name."""

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The status that the receiver answers with; redirects are answers like any other, and the
        rest of an answer is not read. Raises `InvalidInput` for an address or a body that is not
        sent anything, `Unavailable` when nothing comes back."""
        parts = _parts(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if len(body) > BODY_MAX_BYTES:
            raise InvalidInput(f"a message has at most {BODY_MAX_BYTES // 1024} KiB")
        host = str(parts.hostname)
        try:
            address = self._address(parts, self.lookup(host, port))
            plain = socket.create_connection((address, port), CONNECT_S)
            with plain, _cut_after(plain, TOTAL_S):
                return self._ask(plain, parts, body, headers)
        except (OSError, HTTPException, UnicodeError) as error:
            # Not the error's text, which may hold the address: that is a secret.
            raise Unavailable(f"the receiver does not answer: {type(error).__name__}") from None

    def _address(self, parts: SplitResult, found: Sequence[str]) -> str:
        """Where to connect to. Raises `InvalidInput` unless all that the name stands for is right:
        one that stands for both could lead us by the other."""
        addresses = [_inner(ipaddress.ip_address(each.partition("%")[0])) for each in found]
        if not addresses:
            raise Unavailable("the receiver's name stands for nothing")
        here = self.local and all(each.is_loopback for each in addresses)
        if parts.scheme != "https" and not here:
            raise InvalidInput("the receiver's address is not `https`")
        if not here and not all(each.is_global and not each.is_multicast for each in addresses):
            raise InvalidInput("the receiver's address is not of the public network")
        return found[0]

    def _ask(
        self, plain: socket.socket, parts: SplitResult, body: bytes, headers: Mapping[str, str]
    ) -> int:
        connection = HTTPConnection(parts.netloc)
        connection.sock = plain
        if parts.scheme == "https":
            trust = self.trust or ssl.create_default_context()
            connection.sock = trust.wrap_socket(plain, server_hostname=parts.hostname)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, body, {**headers, "Connection": "close"})
            return connection.getresponse().status
        finally:
            connection.close()


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        known = False
    plain = url.isascii() and url.isprintable() and " " not in url
    if not known or not plain or not parts.hostname or parts.username is not None:
        raise InvalidInput("the receiver's address is no `https://HOST/PATH`")
    return parts


def _looked_up(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


@contextmanager
def _cut_after(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Cut a connection after a time, however slowly the other side talks."""
    # A handle of its own: TLS takes the other one over.
    handle = connection.dup()
    timer = threading.Timer(seconds, _cut, [handle])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        handle.close()


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
