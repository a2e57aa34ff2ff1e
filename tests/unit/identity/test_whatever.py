"""Proves that no proof at all breaks a verifier: it is taken, refused, or told to come again."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.model import Machine
from control_plane.errors import Denied, Unavailable
from control_plane.identity.aws import AwsIdentity
from control_plane.identity.azure import AzureIdentity
from control_plane.identity.gcp import GcpIdentity
from control_plane.identity.verifier import Verifier
from control_plane.identity.web import Web
from tests.fakes.metadata.identity import Clouds
from tests.unit.identity import test_aws, test_azure, test_gcp
from tests.unit.identity.conftest import NONCE, NOW, ON_AWS, ON_AZURE, ON_GCP, SERVER

ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=126), max_size=60)


@dataclass
class Case:
    """A machine, who checks it, and the proof that it would send."""

    machine: Machine
    verifier: Verifier
    proof: dict[str, str]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Case]]:
    clouds = Clouds(lambda: NOW)
    web = Web(clouds.transport())
    roots: Path = clouds.azure.write_roots(tmp_path_factory.mktemp("roots") / "roots.pem")
    yield [
        Case(ON_AWS, AwsIdentity(web, clouds.now), test_aws.proof(clouds)),
        Case(ON_GCP, GcpIdentity(web, clouds.now, server_url=SERVER), test_gcp.claimed(clouds)),
        Case(ON_AZURE, AzureIdentity(web, clouds.now, roots), test_azure.signed(clouds)),
    ]
    clouds.close()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_text_in_any_part(cases: list[Case], data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(cases))
    name = data.draw(st.sampled_from(sorted(set(case.proof) - {"kind", "nonce"})))
    with pytest.raises(Denied):
        case.verifier.check(case.machine, {**case.proof, name: data.draw(ASCII)}, NONCE)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.data())
@settings(max_examples=600, deadline=None)
def test_a_piece_changed_anywhere(cases: list[Case], data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(cases))
    name = data.draw(st.sampled_from(sorted(set(case.proof) - {"kind", "nonce"})))
    text = case.proof[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 4)))
    changed = text[:start] + data.draw(ASCII) + text[end:]
    with suppress(Denied, Unavailable):
        case.verifier.check(case.machine, {**case.proof, name: changed}, NONCE)


def test_a_letter_of_a_token_changed(cases: list[Case]) -> None:
    """It is refused, unless it says the same in other letters."""
    case = cases[1]
    token = case.proof["token"]
    for place, letter in enumerate(token):
        changed = token[:place] + ("B" if letter == "A" else "A") + token[place + 1 :]
        try:
            case.verifier.check(case.machine, {**case.proof, "token": changed}, NONCE)
        except Denied:
            continue
        assert _bytes(changed) == _bytes(token)


def _bytes(token: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]
