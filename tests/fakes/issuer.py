"""A CI system's issuer of OpenID Connect tokens, over HTTP: discovery, keys, and where a job of
GitHub Actions asks for its token. It signs whatever a test wants, right or wrong.

Shapes: OpenID Connect Discovery 1.0; GitHub, "OpenID Connect reference"; GitLab, "ID tokens".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

GITHUB = {
    "sub": "repo:acme/train:ref:refs/heads/main",
    "repository": "acme/train",
    "repository_id": "74",
    "repository_owner": "acme",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "environment": "gpu",
    "job_workflow_ref": "acme/train/.github/workflows/gpu.yml@refs/heads/main",
    "run_id": "42",
}
GITLAB = {
    "sub": "project_path:acme/train:ref_type:branch:ref:main",
    "project_path": "acme/train",
    "namespace_path": "acme",
    "ref": "main",
    "ref_type": "branch",
    "ref_protected": "true",
    "pipeline_source": "push",
}


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Making one takes a while, so tests share them."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def real_now() -> datetime:
    return datetime.now(UTC)


class Issuer:
    """Serves on loopback until it is closed."""

    def __init__(self, now: Callable[[], datetime] = real_now) -> None:
        self.now = now
        self.keys: dict[str, Any] = {"one": rsa_key(), "curve": ec_key()}
        """What it shows, by key id."""
        self.asked: list[str] = []
        """Paths, in order."""
        self.status = 200
        self.body: bytes | None = None
        """Sent instead of every right answer."""
        self.go = threading.Event()
        """Answers wait for it."""
        self.go.set()
        self.request_token = "ask-with-this"
        self.github: Mapping[str, Any] = GITHUB
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token of GitHub; None leaves one out."""
        at = int(self.now().timestamp())
        claims = {
            **GITHUB,
            "iss": self.url,
            "aud": "https://orchctl.example",
            "iat": at,
            "nbf": at - 5,
            "exp": at + 300,
            "jti": str(uuid.uuid4()),
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, kid: str = "one", key: Any = None, alg: str = "", **changes: Any) -> str:
        """A signed token."""
        key = key or self.keys[kid]
        alg = alg or ("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256")
        return jwt.encode(self.claims(**changes), key, alg, {"kid": kid})

    def handmade(self, header: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> str:
        """A token with any header and any signature."""
        what = f"{_text(header)}.{_text(self.claims())}"
        return f"{what}.{_base64(sign(what.encode()))}"

    def signed_with_public_key(self) -> str:
        """The public key, which everybody has, taken for a shared secret."""
        public = self.keys["one"].public_key()
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        header = {"alg": "HS256", "typ": "JWT", "kid": "one"}
        return self.handmade(header, lambda what: hmac.digest(pem, what, hashlib.sha256))

    def unsigned(self, alg: str = "none") -> str:
        return self.handmade({"alg": alg, "typ": "JWT", "kid": "one"}, lambda what: b"")

    def answer(self, path: str, query: str, token: str) -> tuple[int, Any]:
        """Status and JSON."""
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        if path == "/jwks":
            return 200, {"keys": [_public(kid, key) for kid, key in self.keys.items()]}
        if path == "/token" and token == f"bearer {self.request_token}":
            audience = parse_qs(query)["audience"][0]
            return 200, {"value": self.token(aud=audience, **self.github)}
        return 404, {}


def _public(kid: str, key: Any) -> dict[str, Any]:
    if isinstance(key, dict):  # as it is
        return {"kid": kid, **key}
    kind = jwt.algorithms.ECAlgorithm if hasattr(key, "curve") else jwt.algorithms.RSAAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


def _text(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _handler(issuer: Issuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            issuer.asked.append(parts.path)
            issuer.go.wait(60)
            token = self.headers.get("Authorization", "")
            status, answer = issuer.answer(parts.path, parts.query, token)
            body = json.dumps(answer).encode() if issuer.body is None else issuer.body
            self.send_response(status if issuer.status == 200 else issuer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    return Handler
