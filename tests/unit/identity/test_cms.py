"""Proves the reader of signed documents against two other writers of them, and that no change to a
document is taken for the document."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.errors import Denied
from control_plane.identity import cms
from tests.fakes.metadata.identity import (
    DATA,
    PLAIN_SHA256,
    RSA_WITH_SHA256,
    SIGNED_DATA,
    AzureSigner,
    der,
    signed_data,
    spare_key,
)
from tests.requires import missing

CONTENT = b'{"nonce": "0123456789"}'
AZURE = AzureSigner()
"""Nothing in here changes it."""
DOCUMENT = AZURE.sign(CONTENT)


def test_a_document_as_azure_makes_it() -> None:
    """With the signature's algorithm where the digest's belongs, and no attributes."""
    signed = cms.read(DOCUMENT)
    assert signed == cms.Signed(CONTENT, AZURE.signer.certificate)


def test_openssl_reads_the_same_in_it(tmp_path: Path) -> None:
    (tmp_path / "document").write_bytes(DOCUMENT)
    command = "cms -verify -inform DER -in document -noverify"
    assert openssl(command, tmp_path) == CONTENT


@pytest.mark.parametrize("digest", [PLAIN_SHA256, RSA_WITH_SHA256])
@pytest.mark.parametrize("with_attributes", [True, False])
def test_the_quirk_may_go_away(digest: bytes, with_attributes: bool) -> None:
    document = AZURE.sign(
        CONTENT, digest=digest, algorithm=RSA_WITH_SHA256, with_attributes=with_attributes
    )
    assert cms.read(document).content == CONTENT


@pytest.mark.parametrize("options", [[], [pkcs7.PKCS7Options.NoAttributes]])
def test_a_document_that_cryptography_made(options: list[pkcs7.PKCS7Options]) -> None:
    assert cms.read(made(SHA256(), *options)).content == CONTENT


def made(digest: SHA256 | SHA512, *options: pkcs7.PKCS7Options) -> bytes:
    """The same content, signed by a library."""
    builder = pkcs7.PKCS7SignatureBuilder().set_data(CONTENT)
    signer = AZURE.signer
    return builder.add_signer(signer.certificate, signer.key, digest).sign(
        Encoding.DER, [pkcs7.PKCS7Options.Binary, *options]
    )


@pytest.mark.parametrize("flag", ["-noattr", ""])
def test_a_document_that_openssl_made(tmp_path: Path, flag: str) -> None:
    signer = AZURE.signer
    (tmp_path / "content").write_bytes(CONTENT)
    (tmp_path / "signer.pem").write_bytes(signer.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    command = "cms -sign -binary -nodetach -md sha256 -outform DER -in content -out out"
    openssl(f"{command} -signer signer.pem -inkey key.pem {flag}", tmp_path)
    assert cms.read((tmp_path / "out").read_bytes()).content == CONTENT


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"covers": b"other"}, "signature is wrong"),
        ({"covers": b"other", "with_attributes": True}, "signature is for other content"),
        ({"digest": bytes.fromhex("06052b0e03021a")}, "digest is not SHA-256"),
        ({"algorithm": bytes.fromhex("06082a8648ce3d040302")}, "not signed by RSA"),
        ({"certificate": AZURE.issuer.certificate}, "certificate is not in it"),
        ({"kind": SIGNED_DATA}, "content is not data"),
        ({"with_attributes": True, "attribute_kind": SIGNED_DATA}, "signature is not for data"),
    ],
)
def test_a_document_that_is_not_as_it_must_be(how: dict[str, Any], words: str) -> None:
    with pytest.raises(Denied, match=words):
        cms.read(AZURE.sign(CONTENT, **how))


def test_content_changed_afterwards() -> None:
    changed = DOCUMENT.replace(b"0123456789", b"9876543210")
    assert changed != DOCUMENT
    with pytest.raises(Denied, match="signature is wrong"):
        cms.read(changed)


def test_a_signature_of_another_key() -> None:
    """Under the name and number of the true certificate."""
    false = AZURE.leaf()
    false.key = spare_key(0)
    with pytest.raises(Denied, match="signature is wrong"):
        cms.read(signed_data(CONTENT, false))


def test_a_digest_that_is_too_weak_or_unknown() -> None:
    with pytest.raises(Denied, match="digest is not SHA-256"):
        cms.read(made(SHA512()))


def test_a_signer_with_another_kind_of_key() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(AZURE.signer.certificate.not_valid_before_utc)
        .not_valid_after(AZURE.signer.certificate.not_valid_after_utc)
        .sign(key, SHA256())
    )
    other = AZURE.leaf()
    other.certificate = certificate
    with pytest.raises(Denied, match="key is not RSA"):
        cms.read(signed_data(CONTENT, other))


@pytest.mark.parametrize("count", [0, 2])
def test_it_has_one_signer(count: int) -> None:
    info = cms._elements(DOCUMENT)
    _, wrapped = next(iter(info)).parts()
    (data,) = wrapped.parts()
    *head, signers = data.parts()
    several = der(0x31, *[each.whole for each in signers.parts()] * count)
    changed = der(0x30, *[each.whole for each in head], several)
    with pytest.raises(Denied, match="not one signer"):
        cms.read(der(0x30, SIGNED_DATA, der(0xA0, changed)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x80\x00\x00",
        b"\x30\x85\x01\x00\x00\x00\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x00",
        der(0x30, DATA, der(0xA0)),
        der(0x30, SIGNED_DATA, der(0xA0)),
        der(0x30, SIGNED_DATA, der(0xA0, der(0x30))),
        DOCUMENT + b"\x30\x00",
    ],
)
def test_bytes_that_are_no_document(data: bytes) -> None:
    with pytest.raises(Denied, match="cannot be read"):
        cms.read(data)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (SIGNED_DATA, DATA, "not signed data"),
        (der(0x04, CONTENT), der(0x0C, CONTENT), "put together in another way"),
    ],
)
def test_a_document_of_another_kind(old: bytes, new: bytes, words: str) -> None:
    assert DOCUMENT.count(old) == 1
    with pytest.raises(Denied, match=words):
        cms.read(DOCUMENT.replace(old, new))


def test_a_document_that_breaks_off() -> None:
    for size in range(1, len(DOCUMENT)):
        with pytest.raises(Denied, match=r"breaks off|out of range"):
            cms.read(DOCUMENT[:size])


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_at_all(data: bytes) -> None:
    with pytest.raises(Denied):
        cms.read(data)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_changed_byte_is_refused_or_changes_nothing() -> None:
    """What is read is either the content as signed, or nothing."""
    for place, old in enumerate(DOCUMENT):
        for value in (0, 0x30, 0x7F, 0x80, 0xFF, old ^ 1, old ^ 0x20):
            changed = DOCUMENT[:place] + bytes([value]) + DOCUMENT[place + 1 :]
            try:
                signed = cms.read(changed)
            except Denied:
                continue
            assert signed.content == CONTENT
            assert signed.certificate.public_key() == AZURE.signer.key.public_key()


def openssl(command: str, directory: Path) -> bytes:
    """What the program prints."""
    program = shutil.which("openssl") or missing("no openssl on the path")
    done = subprocess.run(
        [program, *command.split()], cwd=directory, check=True, capture_output=True
    )
    return done.stdout
