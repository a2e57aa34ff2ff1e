"""What the clouds alone can make, and the public servers that vouch for it.

`Clouds` holds the keys: credentials that AWS STS knows, tokens that Google signs, documents that
Azure's metadata service signs. Its server answers as STS, as Google's key page and as Microsoft's
certificate page, by the name a request is for; `transport` leads requests for those names to it.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import jwt
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, Hash
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from tests.fakes.metadata.server import (
    INSTANCE,
    NAME,
    PROJECT,
    RESOURCE,
    ROLE,
    ZONE,
    Metadata,
    Query,
)
from tests.loopback import Loopback

GOOGLE_KID = "google-key-1"
ACCOUNT = "123456789012"
INSTANCE_NUMBER = "4711081500000000001"
VM_ID = "02aab8a4-74ef-476e-8182-f6d2ba4166a6"
EMAIL = f"machines@{PROJECT}.iam.gserviceaccount.com"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Session:
    """One set of credentials that STS knows."""

    access_key: str
    secret: str
    token: str
    arn: str


@dataclass
class Fault:
    """How a public server answers instead, until it is taken out again."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Clouds(Loopback):
    """Everything that vouches for machines, on one port of the loopback interface."""

    def __init__(self, now: Callable[[], datetime] = _utc_now) -> None:
        self.now = now
        self.google_key = _key(0)
        self.google_kid = GOOGLE_KID
        self.sessions: dict[str, Session] = {}
        self.faults: dict[str, Fault] = {}
        """By host name."""
        self.seen: list[tuple[str, str, str]] = []
        """Method, host and path of every request."""
        super().__init__(_handler(self))

    def transport(self) -> httpx2.BaseTransport:
        """Leads requests here that are for the clouds' public servers."""
        return Rerouted(self.url)

    @cached_property
    def azure(self) -> AzureSigner:
        """Azure's metadata service; it takes a moment to make."""
        return AzureSigner()

    def equip(self, metadata: Metadata) -> None:
        """Let a machine's metadata service answer what its identity is proven with."""
        role = f"/latest/meta-data/iam/security-credentials/{ROLE}"
        account = "/computeMetadata/v1/instance/service-accounts/default"
        metadata.documents |= {
            role: lambda _: json.dumps(self.aws_credentials(INSTANCE)),
            f"{account}/identity": self._gcp_identity,
            "/metadata/attested/document": self._azure_attested,
        }

    # ------------------------------------------------------------------------------------ AWS

    def aws_credentials(
        self, instance_id: str, *, role: str = ROLE, account: str = ACCOUNT
    ) -> dict[str, str]:
        """What `iam/security-credentials/ROLE` of an instance answers."""
        session = Session(
            access_key="ASIA" + secrets.token_hex(8).upper(),
            secret=secrets.token_urlsafe(30),
            token=base64.b64encode(secrets.token_bytes(300)).decode(),
            arn=f"arn:aws:sts::{account}:assumed-role/{role}/{instance_id}",
        )
        self.sessions[session.access_key] = session
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": session.access_key,
            "SecretAccessKey": session.secret,
            "Token": session.token,
            "LastUpdated": f"{self.now():%Y-%m-%dT%H:%M:%SZ}",
            "Expiration": f"{self.now() + timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}",
        }

    def sts(self, host: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """AWS STS: GetCallerIdentity, for whoever has signed rightly."""
        low = {name.lower(): value for name, value in headers.items()}
        try:
            session = self.sessions[low["authorization"].split("Credential=")[1].split("/")[0]]
            good = low["x-amz-security-token"] == session.token
            good = good and low["authorization"] == _signed_again(host, low, body, session)
        except (KeyError, IndexError):
            return 403, _sts_error("InvalidClientTokenId")
        if not good:
            return 403, _sts_error("SignatureDoesNotMatch")
        signed_at = datetime.strptime(low["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(self.now() - signed_at) > timedelta(minutes=15):
            return 403, _sts_error("RequestExpired")
        if body != b"Action=GetCallerIdentity&Version=2011-06-15":
            return 400, _sts_error("InvalidAction")
        return 200, _sts_answer(session)

    # ------------------------------------------------------------------------------------ GCP

    def gcp_claims(
        self,
        audience: str,
        *,
        project: str = PROJECT,
        zone: str = ZONE,
        name: str = NAME,
        email: str = EMAIL,
    ) -> dict[str, Any]:
        """What Google says of an instance in a token of format `full`."""
        now = int(self.now().timestamp())
        return {
            "iss": "https://accounts.google.com",
            "aud": audience,
            "iat": now,
            "exp": now + 3600,
            "sub": "1234567890",
            "azp": "1234567890",
            "email": email,
            "email_verified": True,
            "google": {
                "compute_engine": {
                    "project_id": project,
                    "project_number": 99,
                    "zone": zone,
                    "instance_id": INSTANCE_NUMBER,
                    "instance_name": name,
                    "instance_creation_timestamp": now - 60,
                }
            },
        }

    def gcp_push_claims(self, audience: str, email: str) -> dict[str, Any]:
        """What Google says of the service account in whose name Pub/Sub pushes."""
        now = int(self.now().timestamp())
        return {
            "iss": "https://accounts.google.com",
            "aud": audience,
            "iat": now,
            "exp": now + 3600,
            "sub": "113774264463038321964",
            "azp": "113774264463038321964",
            "email": email,
            "email_verified": True,
        }

    def gcp_token(self, claims: Mapping[str, Any], **header: Any) -> str:
        """These claims, signed by Google."""
        return jwt.encode(
            dict(claims),
            self.google_key,
            algorithm="RS256",
            headers={"kid": self.google_kid, **header},
        )

    def _gcp_identity(self, query: Query) -> str:
        assert query["format"] == "full", "else the token names no instance"
        return self.gcp_token(self.gcp_claims(query["audience"]))

    def google_keys(self) -> bytes:
        """Google's page of public keys."""
        algorithm = jwt.algorithms.RSAAlgorithm
        entry = algorithm.to_jwk(self.google_key.public_key(), as_dict=True)
        entry |= {"kid": self.google_kid, "use": "sig", "alg": "RS256"}
        return json.dumps({"keys": [entry]}).encode()

    # ---------------------------------------------------------------------------------- Azure

    def azure_content(
        self, nonce: str, *, vm_id: str = VM_ID, subscription: str = RESOURCE.split("/")[2]
    ) -> dict[str, Any]:
        """What Azure says of a virtual machine in an attested document."""
        return {
            "licenseType": "",
            "nonce": nonce,
            "plan": {"name": "", "product": "", "publisher": ""},
            "sku": "2204",
            "subscriptionId": subscription,
            "timeStamp": {
                "createdOn": f"{self.now():%m/%d/%y %H:%M:%S} -0000",
                "expiresOn": f"{self.now() + timedelta(hours=6):%m/%d/%y %H:%M:%S} -0000",
            },
            "vmId": vm_id,
        }

    def azure_document(self, content: Mapping[str, Any]) -> dict[str, str]:
        """What `attested/document` answers: this content, signed by Azure's metadata service."""
        signed = self.azure.sign(json.dumps(content, separators=(",", ":")).encode())
        return {"encoding": "pkcs7", "signature": base64.b64encode(signed).decode()}

    def _azure_attested(self, query: Query) -> str:
        return json.dumps(self.azure_document(self.azure_content(query["nonce"])))

    # ------------------------------------------------------------------------------ answering

    def answer(
        self, method: str, host: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Fault:
        self.seen.append((method, host, path))
        if host in self.faults:
            return self.faults[host]
        if host.startswith("sts.") and method == "POST" and path == "/":
            status, text = self.sts(host, headers, body)
            return Fault(status, {"Content-Type": "text/xml"}, text)
        if (method, host, path) == ("GET", "www.googleapis.com", "/oauth2/v3/certs"):
            return Fault(200, {}, self.google_keys())
        if method == "GET" and host == "www.microsoft.com" and path in self.azure.pages():
            return Fault(200, {}, self.azure.pages()[path])
        return Fault(404)


def _signed_again(host: str, low: Mapping[str, str], body: bytes, session: Session) -> str:
    """The `Authorization` that botocore gives to this request: STS accepts no other."""
    names = low["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    request = AWSRequest(method="POST", url=f"https://{host}/", data=body)
    for name in names:
        request.headers[name] = low[name]
    request.context["timestamp"] = low["x-amz-date"]
    credentials = Credentials(session.access_key, session.secret, session.token)
    signer = SigV4Auth(credentials, "sts", host.split(".")[1])
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, "
        f"SignedHeaders={';'.join(names)}, Signature={signer.signature(text, request)}"
    )


def _sts_answer(session: Session) -> bytes:
    return (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">\n'
        "  <GetCallerIdentityResult>\n"
        f"    <Arn>{session.arn}</Arn>\n"
        f"    <UserId>AROAEXAMPLE:{session.arn.rpartition('/')[2]}</UserId>\n"
        f"    <Account>{session.arn.split(':')[4]}</Account>\n"
        "  </GetCallerIdentityResult>\n"
        "  <ResponseMetadata><RequestId>01234567-89ab</RequestId></ResponseMetadata>\n"
        "</GetCallerIdentityResponse>\n"
    ).encode()


def _sts_error(code: str) -> bytes:
    return (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>'
        f"<Type>Sender</Type><Code>{code}</Code><Message>no</Message>"
        "</Error><RequestId>01234567-89ab</RequestId></ErrorResponse>"
    ).encode()


class Rerouted(httpx2.HTTPTransport):
    """Leads all requests to one address."""

    def __init__(self, url: str) -> None:
        super().__init__(
            verify=False
        )  # nothing here speaks TLS, and reading its roots takes a while
        self._url = httpx2.URL(url)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        # The name it is for stays in its Host header.
        request.url = request.url.copy_with(scheme="http", host=self._url.host, port=self._url.port)
        return super().handle_request(request)


def _handler(clouds: Clouds) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            host = self.headers["Host"].partition(":")[0]
            answer = clouds.answer(self.command, host, self.path, dict(self.headers), body)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = _serve  # noqa: N815 - the names that http.server looks up

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


# ---------------------------------------------------------------------------- Azure's signatures


@cache
def _key(number: int) -> rsa.RSAPrivateKey:
    """Made once for a whole run of tests: each takes a tenth of a second."""
    del number
    return rsa.generate_private_key(65537, 2048)


def spare_key(number: int) -> rsa.RSAPrivateKey:
    """A key that no cloud has."""
    return _key(100 + number)


@dataclass
class Issuer:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey


class AzureSigner:
    """Azure's metadata service: its certificate, and who vouches for it."""

    def __init__(self) -> None:
        self.root = certify("Test Root G2", _key(1), None)
        self.bridge = certify("Test TLS RSA Root G2", _key(2), self.root)
        self.issuer = certify("Test TLS CA 02", _key(3), self.bridge, above="bridge.crt")
        self.signer = self.leaf()
        self.more_pages: dict[str, Issuer] = {}
        """Of Microsoft's page of certificates, by file name."""

    def leaf(self, name: str = "eastus.metadata.azure.com", **more: Any) -> Issuer:
        """A certificate for a name, such as the metadata service has."""
        return certify(name, _key(4), self.issuer, ca=False, above="ca02.crt", **more)

    def pages(self) -> dict[str, bytes]:
        """Microsoft's page of certificates."""
        there = {"ca02.crt": self.issuer, "bridge.crt": self.bridge, **self.more_pages}
        return {
            f"/pkiops/certs/{name}": each.certificate.public_bytes(Encoding.DER)
            for name, each in there.items()
        }

    def write_roots(self, path: Path) -> Path:
        """The root as a file that a verifier is set up with."""
        path.write_bytes(self.root.certificate.public_bytes(Encoding.PEM))
        return path

    def sign(self, content: bytes, *, by: Issuer | None = None, **more: Any) -> bytes:
        """A PKCS 7 document as Azure makes them."""
        return signed_data(content, by or self.signer, **more)


def certify(
    name: str,
    key: rsa.RSAPrivateKey,
    issuer: Issuer | None,
    *,
    ca: bool = True,
    above: str = "",
    above_url: str = "http://www.microsoft.com/pkiops/certs/",
    names: tuple[str, ...] | None = None,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    until: datetime | None = None,
) -> Issuer:
    """A certificate as public issuers make them; without an issuer a root."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing_key = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2024, 1, 1, tzinfo=UTC))
        .not_valid_after(until or datetime(2040, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
        .add_extension(_key_usage(ca=ca), critical=True)
    )
    if issuer:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if not ca:
        found = [x509.DNSName(each) for each in names or (name, "metadata.azure.com")]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    if above:
        place = x509.UniformResourceIdentifier(above_url + above)
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return Issuer(builder.sign(signing_key, SHA384()), key)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


DATA = bytes.fromhex("06092a864886f70d010701")
SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("06092a864886f70d010904")
PLAIN_SHA256 = bytes.fromhex("0609608648016503040201")
RSA = bytes.fromhex("06092a864886f70d010101")
RSA_WITH_SHA256 = bytes.fromhex("06092a864886f70d01010b")


def der(tag: int, *parts: bytes) -> bytes:
    """One element of DER."""
    value = b"".join(parts)
    if len(value) < 0x80:
        return bytes([tag, len(value)]) + value
    size = len(value).to_bytes((len(value).bit_length() + 7) // 8)
    return bytes([tag, 0x80 + len(size)]) + size + value


def signed_data(
    content: bytes,
    by: Issuer,
    *,
    digest: bytes = RSA_WITH_SHA256,
    algorithm: bytes = RSA,
    covers: bytes | None = None,
    with_attributes: bool = False,
    attribute_kind: bytes = DATA,
    certificate: x509.Certificate | None = None,
    kind: bytes = DATA,
) -> bytes:
    """Signed data (RFC 5652) as Azure makes it: the leaf certificate only, no attributes, and the
    signature's algorithm in the digest's place. `covers`: what is signed in place of the content.
    `certificate`: what is sent along in place of the signer's."""
    sent = certificate or by.certificate
    attributes = _attributes(covers or content, attribute_kind) if with_attributes else b""
    covered = der(0x31, attributes) if with_attributes else covers or content
    signature = by.key.sign(covered, padding.PKCS1v15(), SHA256())
    named = der(
        0x30,
        by.certificate.issuer.public_bytes(),
        der(0x02, _number(by.certificate.serial_number)),
    )
    signer = der(
        0x30,
        der(0x02, b"\x01"),
        named,
        der(0x30, digest, b"\x05\x00"),
        der(0xA0, attributes) if with_attributes else b"",
        der(0x30, algorithm, b"\x05\x00"),
        der(0x04, signature),
    )
    data = der(
        0x30,
        der(0x02, b"\x01"),
        der(0x31, der(0x30, digest, b"\x05\x00")),
        der(0x30, kind, der(0xA0, der(0x04, content))),
        der(0xA0, sent.public_bytes(Encoding.DER)),
        der(0x31, signer),
    )
    return der(0x30, SIGNED_DATA, der(0xA0, data))


def _attributes(content: bytes, kind: bytes) -> bytes:
    digest = Hash(SHA256())
    digest.update(content)
    return der(0x30, CONTENT_TYPE, der(0x31, kind)) + der(
        0x30, MESSAGE_DIGEST, der(0x31, der(0x04, digest.finalize()))
    )


def _number(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1)
