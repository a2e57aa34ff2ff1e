"""Stands for where Google and Microsoft give out tokens for credentials that a function has."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.loopback import Loopback

TENANT = "11111111-2222-4333-8444-555555555555"
MICROSOFT = "login.microsoftonline.com"


class Tokens(Loopback):
    """Listens at `url`; gives Microsoft's clients the token that the fake of ARM wants."""

    def __init__(self, azure_token: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authority = f"https://{MICROSOFT}/{TENANT}"
                self._say(
                    {
                        "issuer": f"{authority}/v2.0",
                        "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
                        "token_endpoint": f"{authority}/oauth2/v2.0/token",
                        "tenant_discovery_endpoint": f"{authority}/v2.0/openid-configuration",
                        "metadata": [],
                    }
                )

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                microsoft = self.headers["Host"] == MICROSOFT
                token = azure_token if microsoft else "a-token-of-google"
                self._say({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

            def _say(self, told: object) -> None:
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        super().__init__(Handler)


def google_account(file: Path) -> Path:
    """A service account's key, as a file that Google's SDK finds."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "acme-ml",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": "orchctl@acme-ml.iam.gserviceaccount.com",
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )
    )
    return file
