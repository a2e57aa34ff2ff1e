"""The pages on webhooks say what the program does."""

from __future__ import annotations

import json
import re
from typing import Any

from control_plane.alerts import DAY_MAX, STORM
from control_plane.api.edge import HOOKS_MAX_BYTES
from control_plane.core.alerts import AlertKind
from control_plane.core.hooks import Occurrence
from control_plane.serverless.parameter_store import ParameterStoreSecrets
from control_plane.webhooks import courier, payloads, signatures
from control_plane.webhooks.hooks import environment
from control_plane.webhooks.post import TOTAL_S
from control_plane.webhooks.secrets import EnvironmentSecrets
from tests.conformance.builders import hook
from tests.docs.pages import ROOT

IN = (ROOT / "docs" / "how-to" / "start-jobs-from-github.md").read_text(encoding="utf-8")
OUT = (ROOT / "docs" / "how-to" / "alerts-by-webhook.md").read_text(encoding="utf-8")


def test_a_job_is_told_what_the_page_says() -> None:
    told = set(re.findall(r"^\| `(ORCHCTL_\w+)` \|", IN, re.MULTILINE))
    assert told == set(environment(hook(), Occurrence(event="push")))


def test_the_limits_are_those_of_the_program() -> None:
    assert f"over {HOOKS_MAX_BYTES // 2**20} MiB" in IN
    assert f"are {DAY_MAX} messages a day" in " ".join(OUT.split())
    assert TOTAL_S == 10.0
    assert "within ten seconds" in OUT
    assert courier.PAUSES_S == (30, 120, 600, 1800, 7200, 21_600)
    assert courier.JITTER == 0.2


def test_every_alert_is_on_the_page_and_is_told() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", OUT, re.MULTILINE)
    assert set(rows) - {"on"} == set(AlertKind)
    assert f"take {['', '', '', '', '', 'five'][STORM]} machines" in OUT


def test_the_variables_of_the_page_are_those_of_its_document() -> None:
    variables = dict(re.findall(r"^export (ORCHCTL_SECRET_\w+)=(\S+)$", OUT, re.MULTILINE))
    secrets = EnvironmentSecrets(variables)
    references = set(re.findall(r"(?:slack|webhook): (secret://[\w-]+)", OUT))
    assert {secrets.resolve(each) for each in references} == set(variables.values())


def test_the_parameter_of_the_page_is_the_one_that_a_deployment_reads() -> None:
    class Parameters:
        def get_parameter(self, *, Name: str, WithDecryption: bool) -> Any:  # noqa: N803 - AWS's own
            assert WithDecryption
            (value,) = re.findall(rf"--name {re.escape(Name)} --value (\S+)$", OUT, re.MULTILINE)
            return {"Parameter": {"Value": value}}

    found = ParameterStoreSecrets("prod", EnvironmentSecrets({}), Parameters)
    assert found.resolve("secret://pager") == "https://example.com/orchctl"


def test_the_message_of_the_page_is_one_that_is_taken() -> None:
    body = re.findall(r"^(\{\"type\": \"push\".+\})$", IN, re.MULTILINE)[0].replace("…", "a" * 40)
    told = payloads.of_standard(json.loads(body))
    assert (told.event, told.repository) == ("push", "acme/vision")
    assert '"msg_1.1700000000.BODY"' in IN
    assert signatures.PREFIX in IN
