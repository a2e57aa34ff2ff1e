"""The addresses of alerts' receivers, in a deployment: from the account's parameters on the AWS
emulator, for this deployment alone."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from control_plane.errors import NotFound, Unavailable
from control_plane.serverless.parameter_store import ParameterStoreSecrets
from control_plane.webhooks.secrets import EnvironmentSecrets
from tests.emulators.ministack import Ministack

REGION = "eu-central-1"


def connected(endpoint: str, account: str, **more: Any) -> Any:
    return botocore.session.get_session().create_client(
        "ssm",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id=account,
        aws_secret_access_key="any",
        **more,
    )


@pytest.fixture
def ssm(ministack: Ministack) -> Any:
    return connected(ministack.endpoint, ministack.new_account())


def secrets(client: Any, **environment: str) -> ParameterStoreSecrets:
    return ParameterStoreSecrets("prod", EnvironmentSecrets(environment), lambda: client)


def put(client: Any, name: str, value: str) -> None:
    client.put_parameter(Name=name, Value=value, Type="SecureString")


def test_a_reference_is_an_encrypted_parameter_of_this_deployment(ssm: Any) -> None:
    put(ssm, "/orchctl/prod/pager", " https://example.com/orchctl\n")
    put(ssm, "/orchctl/staging/slack", "https://example.com/other")
    found = secrets(ssm)
    assert found.resolve("secret://pager") == "https://example.com/orchctl"
    with pytest.raises(NotFound) as missing:
        found.resolve("secret://slack")
    assert "--name /orchctl/prod/slack" in missing.value.fix


def test_what_the_function_was_given_comes_first_and_asks_nobody() -> None:
    def nobody() -> Any:
        raise AssertionError("no client is needed")

    given = EnvironmentSecrets({"ORCHCTL_SECRET_PAGER": "https://example.com/given"})
    found = ParameterStoreSecrets("prod", given, nobody)
    assert found.resolve("secret://pager") == "https://example.com/given"


@pytest.mark.parametrize("reference", ["secret://a..//b", "secret://" + "x" * 200])
def test_a_reference_that_no_parameter_can_have_is_not_found(ssm: Any, reference: str) -> None:
    with pytest.raises(NotFound):
        secrets(ssm).resolve(reference)


def test_a_store_that_does_not_answer_is_asked_again_later() -> None:
    client = connected(
        "http://127.0.0.1:9",
        "123456789012",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=1),
    )
    with pytest.raises(Unavailable, match="/orchctl/prod/pager cannot be read"):
        secrets(client).resolve("secret://pager")
