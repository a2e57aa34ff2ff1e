"""AWS: the machine signs the question who it is, and we ask it in its place.

Only AWS can tell whether the signature is good, and its answer names account, role and, for the
credentials of an instance profile, the instance. Source: AWS Signature Version 4 and the STS API
reference, GetCallerIdentity. What must hold besides: the role's trust policy names only
`ec2.amazonaws.com`, so that nobody else can open a session of that role under an instance's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from control_plane.core.model import Machine
from control_plane.errors import Denied, Unavailable
from control_plane.identity.verifier import CLOCK_SKEW, json_object, known, part
from control_plane.identity.web import Answer, Web

INSTANCE_PROFILE = "orchctl-machine"
"""That of machines whose document names none."""

BODY = "Action=GetCallerIdentity&Version=2011-06-15"
HEADERS = frozenset(
    {"authorization", "content-type", "x-amz-date", "x-amz-security-token", "x-orchctl-nonce"}
)
"""All that may be sent to AWS in a machine's name, besides Host."""
SIGNED = "content-type;host;x-amz-date;x-amz-security-token;x-orchctl-nonce"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[A-Za-z0-9]+/(?P<day>\d{8})/(?P<region>[a-z0-9-]+)"
    r"/sts/aws4_request, SignedHeaders=(?P<signed>[a-z0-9;-]+), Signature=[0-9a-f]{64}"
)
_PLAIN = re.compile(r"[\x20-\x7e]{1,16384}")
_ARN = re.compile(
    r"arn:aws:sts::(?P<account>\d{12}):assumed-role/(?P<role>[^/]+)/(?P<session>[^/]+)"
)


class AwsIdentity:
    """`Verifier` of EC2 instances. Their role is the document's option `role`, else the one that
    has the name of its `instance_profile`."""

    def __init__(self, web: Web, now: Callable[[], datetime]) -> None:
        self._web = web
        self._now = now

    def check(self, machine: Machine, proof: Mapping[str, str], nonce: str) -> None:
        """As `Verifier.check`."""
        url = f"https://sts.{machine.offer.region}.amazonaws.com/"
        if part(proof, "url") != url:
            raise Denied(f"the signed question is not for {url}")
        if part(proof, "body") != BODY:
            raise Denied("the signed question is not GetCallerIdentity")
        headers = _headers(part(proof, "headers"))
        _check_signed(headers, machine.offer.region, nonce)
        self._check_date(headers["x-amz-date"])
        _check_arn(_arn(self._web.post(url, BODY.encode(), headers)), machine)

    def _check_date(self, text: str) -> None:
        try:
            signed_at = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError as error:
            raise Denied("the question's date is not a date") from error
        if abs(self._now() - signed_at) > CLOCK_SKEW:
            raise Denied(f"the question was signed at {signed_at:%H:%M:%S}, not now")


def _check_arn(arn: str, machine: Machine) -> None:
    who = _ARN.fullmatch(arn)
    if who is None:
        raise Denied("the question was signed by somebody who is not a role's session")
    if who["account"] != known(machine, "account"):
        raise Denied("the question was signed in another account")
    if who["role"] != _role(machine):
        raise Denied(f"the question was signed by another role, {who['role']}")
    if who["session"] != machine.provider_id:
        raise Denied("the question was signed by another instance")


def _role(machine: Machine) -> str:
    """The role of the machine's instance profile."""
    profile = machine.options.get("instance_profile", INSTANCE_PROFILE).rpartition("/")[2]
    return machine.options.get("role", "") or profile


def _headers(text: str) -> dict[str, str]:
    named = json_object(text, "the question's headers")
    headers = {name.lower(): value for name, value in named.items()}
    if len(headers) < len(named):
        raise Denied("a header of the question stands twice")
    if missing := HEADERS - set(headers):
        raise Denied(f"the question lacks headers: {', '.join(sorted(missing))}")
    if set(headers) - HEADERS:
        raise Denied("the question has headers that it must not have")
    if not all(isinstance(value, str) and _PLAIN.fullmatch(value) for value in headers.values()):
        raise Denied("a header of the question is not plain text")
    return headers


def _check_signed(headers: Mapping[str, str], region: str, nonce: str) -> None:
    if headers["x-orchctl-nonce"] != nonce:
        raise Denied("the question carries another nonce")
    authorization = _AUTHORIZATION.fullmatch(headers["authorization"])
    if authorization is None:
        raise Denied("the question is not signed by Signature Version 4 for STS")
    if authorization["signed"] != SIGNED:
        raise Denied("the question's signature does not cover what it must, such as the nonce")
    if authorization["region"] != region:
        raise Denied("the question is signed for another region")


def _arn(answer: Answer) -> str:
    if answer.status == 429 or answer.status >= 500:
        raise Unavailable(f"AWS STS answered {answer.status}")
    if answer.status != 200:
        raise Denied(f"AWS STS refused the question: {answer.status}{_code(answer.body)}")
    found = _texts(answer.body, "GetCallerIdentityResult/{*}Arn")
    if len(found) != 1:
        raise Denied("AWS STS did not say who signed the question")
    return found[0]


def _code(body: bytes) -> str:
    return "".join(f" {code[:64]}" for code in _texts(body, "Error/{*}Code")[:1])


def _texts(body: bytes, path: str) -> list[str]:
    from xml.etree.ElementTree import ParseError, fromstring

    try:
        root = fromstring(body)
    except ParseError:
        return []
    return [each.text or "" for each in root.findall("{*}" + path)]
