"""Attacks on a deployment: each is refused with a problem that says what is wrong, leaves its line
in the function's log, and none is a fault of the function."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_bootstrap.identity import proof
from control_plane.core.model import Capacity, Machine, MachineState
from control_plane.serverless.shared import kept_secret
from control_plane.stores.dynamodb import INDEXES, DynamoStore
from control_plane.stores.dynamodb.client import TableClient
from control_plane.system import SystemClock
from control_plane.tokens import MachineTokens
from tests.answers import Answer, altered
from tests.api.world import offer
from tests.fakes.forged import AUDIENCE, FORGED
from tests.fakes.issuer import Issuer
from tests.fakes.metadata import identity
from tests.fakes.metadata.server import REGION, ROLE, Metadata
from tests.serverless.attacker import Attacker
from tests.serverless.deployed import NETWORK, TOKEN, Deployed

pytestmark = pytest.mark.xdist_group("serverless")

QUEUE = "attacked"
INSTANCES = ("i-0000000000000000a", "i-0000000000000000b", "i-0000000000000000c")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A deployment with a queue, machines of AWS and an issuer whose word is taken."""

    attacker: Attacker
    vouching: identity.Clouds
    issuer: Issuer
    store: DynamoStore
    tokens: MachineTokens

    def launch(self, number: int) -> None:
        """A machine whose agent has not registered."""
        bought = replace(offer(), provider="aws", region=REGION, zone=f"{REGION}a")
        machine = Machine(
            id=f"m-{QUEUE}-{number}",
            autoscaler=QUEUE,
            pool=QUEUE,
            state=MachineState.PLANNED,
            offers=(bought,),
            planned_at=datetime.now(UTC),
            provider_id=INSTANCES[number],
            options={"role": ROLE},
            identity={"account": identity.ACCOUNT},
        )
        machine = self.store.machine_put(machine, expected_version=0, fence=None)
        for state in (MachineState.LAUNCHING, MachineState.BOOTING):
            machine = replace(machine, state=state, launched_at=datetime.now(UTC))
            machine = self.store.machine_put(machine, expected_version=machine.version, fence=None)

    def registration(self, number: int, nonce: str, *, instance: str = "one") -> dict[str, Any]:
        """What the agent of a machine sends to register, with the proof of its instance."""
        metadata = Metadata()
        self.vouching.equip(metadata)
        session = self.vouching.aws_credentials(INSTANCES[number])
        role = f"/latest/meta-data/iam/security-credentials/{ROLE}"
        metadata.documents[role] = lambda _: json.dumps(session)
        try:
            made = proof("aws", nonce, "", metadata.url)
        finally:
            metadata.close()
        return {"machine_id": f"m-{QUEUE}-{number}", "instance": instance, "proof": made}


@pytest.fixture(scope="module")
def target(deployed: Deployed) -> Iterator[Target]:
    """What it makes in the table is gone afterwards: other tests look at all there ever was."""
    vouching, issuer = identity.Clouds(), Issuer()
    internet = json.dumps({".amazonaws.com": vouching.url})
    deployed.tell({"PYTHONPATH": str(NETWORK), "FAKE_INTERNET": internet})
    with deployed.restored():
        yield from _target(deployed, vouching, issuer)
    issuer.close()
    vouching.close()


def _target(deployed: Deployed, vouching: identity.Clouds, issuer: Issuer) -> Iterator[Target]:
    attacker = Attacker(deployed)
    assert attacker.ask("POST", "/v1/queues", {"name": QUEUE}).status == 201
    rule = {
        "claims": {"repository": "acme/train", "ref": "refs/heads/main"},
        "role": "submitter",
        "queues": [QUEUE],
    }
    wanted = {"issuer": issuer.url, "audience": AUDIENCE, "rules": [rule]}
    assert attacker.ask("PUT", f"/v1/federations/{QUEUE}", wanted).status == 201
    dynamodb, name = deployed.client("dynamodb"), deployed.outputs()["TableName"]
    table = TableClient(dynamodb, name, indexes=INDEXES)
    made = Target(
        attacker=attacker,
        vouching=vouching,
        issuer=issuer,
        store=DynamoStore(dynamodb, table=name, clock=SystemClock()),
        tokens=MachineTokens(kept_secret(table)),
    )
    for number in range(len(INSTANCES)):
        made.launch(number)
    yield made
    lines = Counter(attacker.lines())
    assert lines == Counter(attacker.answered), "each request has one line in the log"


@pytest.fixture
def attacker(target: Target) -> Iterator[Attacker]:
    """None of its requests may be a fault."""
    yield target.attacker
    assert all(status < 500 for _, _, status in target.attacker.answered)


# ------------------------------------------------------------------------------ tokens of CI


def exchange(attacker: Attacker, token: str, key: str, sender: str) -> Answer:
    headers = {"idempotency-key": key}
    body = json.dumps({"token": token})
    return attacker.hand("POST", "/v1/sessions", body, headers=headers, token="", sender=sender)


def test_a_forged_token_of_ci_opens_nothing(target: Target, attacker: Attacker) -> None:
    for number, (how, forge) in enumerate(FORGED.items()):
        token, sender = forge(target.issuer), f"203.0.113.{number}"
        assert exchange(attacker, token, how, sender).refused(401, "denied"), how
        used = attacker.hand("GET", "/v1/jobs", token=token, sender=sender)
        assert used.refused(401, "denied"), how
    assert attacker.is_told("refused POST /v1/sessions of 203.0.113.0: ")
    assert exchange(attacker, target.issuer.token(), "right", "203.0.113.99").status == 201


def test_a_token_of_ci_is_good_for_one_session(target: Target, attacker: Attacker) -> None:
    """A repeat with the sender's own key is given the same session: its answer may have been
    lost."""
    token, here = target.issuer.token(), {"Idempotency-Key": "mine"}
    first = attacker.ask("POST", "/v1/sessions", {"token": token}, token="", headers=here)
    again = attacker.ask("POST", "/v1/sessions", {"token": token}, token="", headers=here)
    assert (first.status, again.json) == (201, first.json)
    for key in ("theirs", ""):
        answer = exchange(attacker, token, key, "203.0.113.100")
        assert answer.refused(401, "denied")
        assert "used before" in answer.json["detail"]


def test_a_session_cannot_be_made_or_stretched(target: Target, attacker: Attacker) -> None:
    session = exchange(attacker, target.issuer.token(), "k", "203.0.113.101").json["token"]
    assert attacker.hand("GET", "/v1/jobs", token=session).status == 200
    body, _, mac = session.partition(".")
    for number, forged in enumerate(
        (
            f"{body}.{mac[:-1]}",
            f"{body}A.{mac}",
            f"{body}.",
            body,
            f".{mac}",
            f"{body}.{mac}\u00e4",
            f"{body}.{'A' * len(mac)}",
            session.upper(),
        )
    ):
        answer = attacker.hand("GET", "/v1/jobs", token=forged, sender=f"203.0.113.{110 + number}")
        assert answer.refused(401, "denied"), forged
    for method, path in (
        ("POST", "/v1/tokens"),
        ("GET", "/v1/machines"),
        ("DELETE", "/v1/queues/x"),
    ):
        assert attacker.hand(method, path, token=session).refused(403, "role-needed"), path


def test_wrong_tokens_of_one_address_are_soon_not_looked_at(attacker: Attacker) -> None:
    tries = [
        attacker.hand("GET", "/v1/jobs", token=f"orchctl_{number}", sender="203.0.113.200")
        for number in range(30)
    ]
    assert [each.status for each in tries] == [401] * 20 + [429] * 10
    assert all(each.refused() for each in tries)
    assert attacker.hand("GET", "/v1/jobs", sender="203.0.113.200").status == 200


# ------------------------------------------------------------------------------------ machines


@pytest.fixture(scope="module")
def sessions(target: Target) -> tuple[str, str]:
    """Of the agents of two machines, which have proven themselves."""
    agents = target.attacker

    def session(number: int) -> str:
        nonce = agents.ask(
            "POST", "/v1/agent/nonce", {"machine_id": f"m-{QUEUE}-{number}"}, token=""
        )
        message = target.registration(number, nonce.json["nonce"])
        answer = agents.ask("POST", "/v1/agent/register", message, token="")
        assert answer.status == 200, answer
        return str(answer.json["token"])

    return session(0), session(1)


def test_a_machine_reaches_only_what_it_holds(
    target: Target, attacker: Attacker, sessions: tuple[str, str]
) -> None:
    one, two = sessions
    submitted = attacker.ask("POST", "/v1/jobs", {"command": "true", "queue": QUEUE, "cpu": 1})
    job_id = submitted.json["id"]
    (job,) = target.store.job_claim(
        f"m-{QUEUE}-0", [QUEUE], Capacity(cpus=8, memory_mib=16_384), limit=1, now=datetime.now(UTC)
    )
    assert job.id == job_id
    here, epoch = f"/v1/agent/jobs/{job_id}", {"epoch": job.epoch}
    ending = {**epoch, "outcome": "succeeded", "exit_code": 0}
    where = f"epoch={job.epoch}&offset=0"
    assert attacker.ask("POST", f"{here}/start", epoch, token=two).refused(409, "stale-epoch")
    assert attacker.ask("POST", f"{here}/finish", ending, token=two).refused(409, "stale-epoch")
    assert attacker.ask("POST", f"{here}/logs?{where}", b"x", token=two).refused(409, "stale-epoch")
    assert attacker.ask("GET", f"{here}/source?{where}", token=two).refused(409, "stale-epoch")
    artifact = f"{here}/artifacts/model.bin?{where}"
    assert attacker.ask("PUT", artifact, b"x", token=two).refused(409, "stale-epoch")
    late = {**ending, "epoch": job.epoch + 1}
    assert attacker.ask("POST", f"{here}/finish", late, token=one).refused(409, "stale-epoch")
    assert attacker.ask("GET", f"/v1/jobs/{job_id}").json["state"] == "leased"
    assert attacker.ask("POST", f"{here}/start", epoch, token=one).status == 200
    assert attacker.ask("POST", f"{here}/finish", ending, token=one).status == 200


def test_a_session_of_a_machine_cannot_be_made(
    attacker: Attacker, sessions: tuple[str, str]
) -> None:
    one, _ = sessions
    name, _, mac = one.partition(".")
    for forged in (
        f"m-{QUEUE}-1.{mac}",
        f"m-nobody.{mac}",
        one[:-1],
        f"{one}0",
        f"{name}\u00e4.{mac}",
        f".{mac}",
        ".",
        f"{'m' * 3000}.{mac}",
        f"{name}.",
        f"{name}.{'0' * len(mac)}",
        TOKEN,
    ):
        for path in ("beat", "claim", "leave"):
            body = json.dumps({"why": "idle"})
            assert attacker.hand("POST", f"/v1/agent/{path}", body, token=forged).refused(401)
    assert attacker.hand("GET", "/v1/jobs", token=one, sender="203.0.113.120").refused(401)


def test_a_proof_counts_for_its_machine_its_nonce_and_one_agent(
    target: Target, attacker: Attacker
) -> None:
    def register(message: object) -> Answer:
        return attacker.ask("POST", "/v1/agent/register", message, token="")

    hello = {"machine_id": f"m-{QUEUE}-2"}
    nonce = attacker.ask("POST", "/v1/agent/nonce", hello, token="").json["nonce"]
    right = target.registration(2, nonce)
    old = target.tokens.nonce(f"m-{QUEUE}-2", datetime.fromtimestamp(0, UTC))
    others = target.tokens.nonce(f"m-{QUEUE}-1", datetime.now(UTC))
    wrong: Mapping[str, object] = {
        "used long ago": target.registration(2, old),
        "another machine's nonce": target.registration(2, others),
        "another machine's proof": {**right, "proof": target.registration(1, nonce)["proof"]},
        "in another machine's name": {**right, "machine_id": f"m-{QUEUE}-1"},
        "of a machine that never was": {**right, "machine_id": "m-nobody"},
        "a fresh nonce on an old signature": {
            **right,
            "proof": {**target.registration(2, old)["proof"], "nonce": nonce},
        },
        "a signature that nobody made": {**right, "proof": _unsigned(right["proof"])},
        "asked of somebody else": {
            **right,
            "proof": {**right["proof"], "url": "https://sts.evil.example/"},
        },
        "a one-time token": {**right, "proof": {"kind": "one-time", "token": nonce}},
        "nothing": {**right, "proof": {}},
    }
    for how, message in wrong.items():
        assert register(message).refused(401, "denied"), how
    first = register(right)
    assert first.status == 200
    assert register(right).json["token"] == first.json["token"], "the same agent, once more"
    assert register({**right, "instance": "two"}).refused(409, "conflict")


def _unsigned(made: Mapping[str, str]) -> Mapping[str, str]:
    signed, _, signature = made["headers"].partition("Signature=")
    return {**made, "headers": f"{signed}Signature={'0' * 64}{signature[64:]}"}


# ------------------------------------------------------------------------- cursors and bodies


def test_a_cursor_that_was_tampered_with_opens_nothing(attacker: Attacker) -> None:
    for _ in range(2):
        viewer = {"name": "x", "role": "viewer", "queues": ["*"]}
        assert attacker.ask("POST", "/v1/tokens", viewer).status == 201
    cursor = attacker.ask("GET", "/v1/events?limit=1").json["cursor"]
    assert attacker.ask("GET", f"/v1/events?limit=1&cursor={cursor}").status == 200
    for each in altered(cursor):
        answer = attacker.ask("GET", f"/v1/events?limit=1&cursor={each}")
        assert answer.refused(422, "invalid-input"), each
    for path in ("/v1/queues", "/v1/jobs", "/v1/machines", "/v1/events?kind=access"):
        joint = "&" if "?" in path else "?"
        answer = attacker.ask("GET", f"{path}{joint}cursor={cursor}")
        assert answer.refused(422, "invalid-input"), path


POSTED = ("/v1/jobs", "/v1/queues", "/v1/tokens", "/v1/sessions", "/v1/agent/register")


def test_deep_and_large_bodies_are_refused(attacker: Attacker) -> None:
    for path in POSTED:
        size = 30_000 if path == "/v1/sessions" else 100_000
        for body in (b"[" * size, b'{"command":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}"):
            answer = attacker.ask("POST", path, body)
            assert answer.refused(), path
            assert answer.status in (400, 422), path
    large = b'{"token": "' + b"x" * 2**16 + b'"}'
    assert attacker.ask("POST", "/v1/sessions", large, token="").refused(413, "too-large")
    notice = "x" * (2**20 + 1)
    push = attacker.hand("POST", "/v1/notices/azure", notice, query="token=x", token="")
    assert push.refused(401), "who sends it is asked first"
    for path in POSTED:
        lying = {"content-length": "9" * 12}
        assert attacker.hand("POST", path, "{}", headers=lying).refused(413, "too-large"), path


ODD = (
    b"\xff\xfe",
    b'{"command": "\\ud800"}',
    b'{"command": "a\\u0000b"}',
    b'{"command": 1e999}',
    b'{"priority": 1' + b"0" * 5000 + b"}",
    b"NaN",
    b"",
)


def test_odd_bodies_are_refused(attacker: Attacker) -> None:
    for body in ODD:
        sent = base64.b64encode(body).decode()
        assert attacker.hand("POST", "/v1/jobs", sent, base64_body=True).refused(), body


def test_a_body_that_is_not_what_it_is_called_is_refused(attacker: Attacker) -> None:
    good = json.dumps({"name": "odd"})
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "a/b;;=",
    ):
        headers = {"content-type": kind}
        assert attacker.hand("POST", "/v1/queues", good, headers=headers).refused(422), kind
    for body in ("!!!not base64", "abc", "e30", "\u00e4"):
        answer = attacker.hand("POST", "/v1/queues", body, base64_body=True)
        assert answer.refused(400, "malformed"), body
    assert attacker.hand("POST", "/v1/queues", "\ud800").refused(400, "malformed")


# ------------------------------------------------------------------------- paths and headers


PATHS = (
    "/v1/jobs/../tokens",
    "/v1/jobs/%2e%2e/tokens",
    "/v1/jobs/..%2ftokens",
    "/v1/queues/a%2f..%2f..%2ftokens",
    "/v1/tokens/",
    "/v1/tokens%00",
    "/v1/TOKENS",
    "/v1/health/../tokens",
    "/v1/agent/../tokens",
    "/v1/notices/../tokens",
    "/v1/tokens;x=1",
    "/v1/tokens%3f",
    "/login/../v1/tokens",
    "/v1/jobs/j-1/artifacts/..%2f..%2f..%2fsecret",
    "/v1/jobs/j-1/artifacts/%2e%2e/%2e%2e/prices",
    "/v1/jobs/%00/logs",
)


def test_no_spelling_of_a_path_gets_round_the_roles(target: Target, attacker: Attacker) -> None:
    session = exchange(attacker, target.issuer.token(), "k", "203.0.113.130").json["token"]
    for path in PATHS:
        for token in (session, ""):
            answer = attacker.ask("GET", path, token=token)
            assert answer.refused(), path
            assert answer.status in (401, 403, 404, 422), path
            assert b"prefix" not in answer.body, path


def test_a_file_of_a_job_stays_where_it_belongs(
    attacker: Attacker, sessions: tuple[str, str]
) -> None:
    one, _ = sessions
    for name in (
        "../../../x",
        "..",
        "a/../../b",
        "/etc/passwd",
        "a//b",
        "a\\b",
        "a\nb",
        "\u202e.txt",
    ):
        path = f"/v1/agent/jobs/j-1/artifacts/{name}"
        assert attacker.hand("PUT", path, "x", query="epoch=1", token=one).refused(), name
    for job_id in ("..", "%2e%2e", "J-1", "j-1\n", "j" * 500, "\u0661"):
        path = f"/v1/agent/jobs/{job_id}/source"
        assert attacker.hand("GET", path, query="epoch=1", token=one).refused(), job_id


CLAIMED: Sequence[Mapping[str, str]] = (
    {"authorization": f"Bearer {TOKEN},Bearer wrong"},
    {"authorization": f"Bearer {TOKEN}\r\nX-Evil: 1"},
    {"authorization": f"Bearer {TOKEN}\u0000"},
    {"x-forwarded-user": "admin", "x-original-url": "/v1/health"},
    {"x-http-method-override": "GET"},
    {"cookie": "orchctl_session=9999999999." + "0" * 64},
    {"cookie": "orchctl_session=" + "9" * 5000},
    {"authorization": "Bearer " + "x" * 20_000},
    {"authorization": "Bearer orchctl_ci." + "A" * 4000 + ".x"},
    {"authorization": "Basic YWRtaW46YWRtaW4="},
    {"authorization": "bearer"},
    {"authorization": ""},
)
"""What is sent instead of the admin's token."""


def test_no_header_gets_round_the_roles(attacker: Attacker) -> None:
    path = f"/v1/queues/{QUEUE}"
    for number, headers in enumerate(CLAIMED):
        sender = f"203.0.113.{140 + number}"
        answer = attacker.hand("DELETE", path, headers=headers, token="", sender=sender)
        assert answer.refused(401, "denied"), headers
    assert attacker.hand("GET", path).status == 200, "it is still there"


def test_a_header_that_cannot_be_read_is_refused(attacker: Attacker) -> None:
    for headers in (
        {"host": "a:b"},
        {"host": "[::1]:80"},
        {"host": "[]"},
        {"host": "orchctl.example/v1/health?"},
        {"x-forwarded-port": "443, evil"},
        {"accept": "\ud800"},
    ):
        assert attacker.hand("GET", "/v1/queues", headers=headers).refused(400, "malformed"), (
            headers
        )
    assert attacker.hand("GET", "/v1/queues", query="x=\ud800").refused(400, "malformed")


def test_nothing_of_a_request_comes_back_in_a_header(attacker: Attacker) -> None:
    for path in ("/v1/queues/x\r\nSet-Cookie: a=b", "/v1/queues/x%0d%0aSet-Cookie:%20a=b"):
        assert _is_clean(attacker.hand("GET", path)), path
    assert _is_clean(attacker.hand("GET", "/v1/jobs", query="queue=x%0d%0aX-Evil:%201"))
    for key in ("a\r\nX-Evil: 1", "a\tb", "\u00e4", "x" * 300):
        for path in ("/v1/jobs", "/v1/queues", "/v1/reconcile", "/v1/sessions"):
            answer = attacker.hand("POST", path, "{}", headers={"idempotency-key": key})
            assert _is_clean(answer), (path, key)


def _is_clean(answer: Answer) -> bool:
    found = "".join(f"{name}: {value}" for name, value in answer.headers.items()).lower()
    return answer.refused() and not any(word in found for word in ("evil", "set-cookie", "\n"))


# ----------------------------------------------------------------------------- all of it at once


REQUESTS = 300
METHODS = (
    "GET",
    "GET",
    "GET",
    "POST",
    "POST",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "HEAD",
    "BREW",
    "",
)
PLACES = (
    *("/", "", "*", "/login", "/static/{}", "/{}", "/v1/{}", "/v1/health", "/v1/openapi.json"),
    *("/v1/jobs", "/v1/jobs/{}", "/v1/jobs/{}/{}", "/v1/jobs/j-1/artifacts/{}/{}", "/v1/jobs/j-1"),
    *("/v1/queues", "/v1/queues/{}", "/v1/queues/{}/{}", "/v1/queues/odd/limits", "/v1/costs"),
    *("/v1/tokens", "/v1/tokens/{}", "/v1/federations/{}", "/v1/sessions", "/v1/whoami"),
    *("/v1/autoscalers", "/v1/autoscalers/{}", "/v1/autoscalers/odd/{}", "/v1/offers", "/jobs/{}"),
    *("/v1/machines", "/v1/machines/{}", "/v1/machines/m-1/{}", "/v1/events", "/v1/metrics"),
    *("/v1/blobs/{}", "/v1/reconcile", "/v1/notices/{}", "/v1/agent/{}", "/v1/agent/jobs/{}/{}"),
)
WORDS = (
    *("", ".", "..", "x", "j-1", "odd", "clear", "pause", "logs", "artifacts", "explain", "beat"),
    *("claim", "register", "nonce", "finish", "azure", "gcp", "aws", "%00", "%ff", "%2e%2e%2f"),
    *("\x00", "\r\n", "\u202e", "\ud800", "\U0001f4a9", "a" * 5000, "-1", "1e9", "null", "true"),
    *("0" * 64, "f" * 64, "{{7*7}}", "' OR 1=1 --", "$(id)", "<script>", "NaN", "[]", "{}"),
)
HEADERS = (
    *("accept", "content-type", "content-length", "content-encoding", "cookie", "host", "origin"),
    *("idempotency-key", "if-match", "if-none-match", "range", "transfer-encoding", "expect"),
    *("x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "sec-fetch-site", "upgrade"),
)
FIELDS = ("name", "command", "queue", "document", "token", "rules", "machine_id", "limit", "epoch")
ASKED = ("limit", "cursor", "queue", "epoch", "offset", "since", "by", "kind", "token", "dry_run")
VALUES: tuple[Any, ...] = (*WORDS, -1, 1e308, None, True, [], {})


def test_odd_requests_are_never_a_fault(attacker: Attacker) -> None:
    chance = random.Random(20)
    answers = [_odd(attacker, chance, number) for number in range(REQUESTS)]
    statuses = Counter(each.status for each in answers)
    assert max(statuses) < 500, statuses
    asked = attacker.answered[-REQUESTS:]
    for (method, _, status), answer in zip(asked, answers, strict=True):
        assert method == "HEAD" or status < 400 or answer.refused(), answer
    assert len(statuses) > 6, f"they come to many ends: {statuses}"


def _odd(attacker: Attacker, chance: random.Random, number: int) -> Answer:
    place = chance.choice(PLACES)
    asked = [f"{chance.choice(ASKED)}={chance.choice(WORDS)}" for _ in range(chance.randrange(3))]
    said = {chance.choice(HEADERS): chance.choice(WORDS) for _ in range(chance.randrange(2))}
    return attacker.hand(
        chance.choice(METHODS),
        place.format(*chance.choices(WORDS, k=2)),
        _odd_body(chance),
        query="&".join(asked),
        headers=said,
        token=chance.choice((*(TOKEN,) * 8, "", chance.choice(WORDS))),
        sender=f"192.0.2.{number % 250}",
        base64_body=chance.random() < 0.1,
    )


def _odd_body(chance: random.Random) -> str:
    told: Any = {name: chance.choice(VALUES) for name in chance.sample(FIELDS, k=2)}
    for _ in range(chance.randrange(2)):
        told = chance.choice(([told], {chance.choice(FIELDS): told}))
    text = json.dumps(told)
    return chance.choice((text, text, text[:-1], chance.choice(WORDS), ""))
