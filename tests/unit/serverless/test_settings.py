"""What a deployment has to tell its functions."""

from __future__ import annotations

import pytest

from control_plane.errors import InvalidInput
from control_plane.serverless.settings import ServerlessSettings

GIVEN = {
    "ORCHCTL_TABLE": "orchctl",
    "ORCHCTL_BUCKET": "blobs",
    "ORCHCTL_PUBLIC_URL": "https://api.example.com/",
    "ORCHCTL_INSTALLATION": "prod",
    "ORCHCTL_ADMIN_TOKEN_SHA256": "0" * 64,
}


def test_settings_come_from_the_environment() -> None:
    found = ServerlessSettings.from_environment({**GIVEN, "HOME": "/"})
    assert found == ServerlessSettings(
        table="orchctl",
        bucket="blobs",
        public_url="https://api.example.com",
        installation="prod",
        admin_token_sha256="0" * 64,
    )


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        ServerlessSettings.from_environment({**GIVEN, name: ""})
