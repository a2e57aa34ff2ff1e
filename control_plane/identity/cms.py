"""Signed content in the Cryptographic Message Syntax (RFC 5652), as far as Azure uses it: one
signer, RSA with SHA-256, its certificate inside.

Read by hand, since Azure names the signature's algorithm where the digest's belongs
(sha256WithRSAEncryption for SHA-256), which strict readers refuse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control_plane.errors import Denied

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET = 0x02, 0x04, 0x06, 0x30, 0x31
_TAGGED_0 = 0xA0

_DATA = bytes.fromhex("2a864886f70d010701")
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_CONTENT_TYPE = bytes.fromhex("2a864886f70d010903")
_MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")
_SHA256 = bytes.fromhex("608648016503040201")
_RSA = bytes.fromhex("2a864886f70d010101")
_RSA_WITH_SHA256 = bytes.fromhex("2a864886f70d01010b")
"""Object identifiers, as they stand in the bytes."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Content, and the certificate whose key has signed it. Nothing is known of the certificate
    yet: anybody can make one."""

    content: bytes
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class _Element:
    """One element of DER."""

    tag: int
    value: bytes
    whole: bytes

    def parts(self) -> list[_Element]:
        return list(_elements(self.value))


def read(data: bytes) -> Signed:
    """What was signed and by whom, after the signature was checked. Raises `Denied`."""
    # Here, since reading the library takes a tenth of a second.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import InvalidVersion

    try:
        return _read(data)
    except (ValueError, IndexError, UnsupportedAlgorithm, InvalidVersion) as error:
        raise Denied(f"the signed document cannot be read: {error}") from error


def _read(data: bytes) -> Signed:
    (info,) = _elements(data)
    kind, (signed,) = _typed(info)
    if kind != _SIGNED_DATA:
        raise ValueError("it is not signed data")
    _version, _digests, content_info, *rest = _expect(signed, _SEQUENCE).parts()
    signers = _expect(rest[-1], _SET).parts()
    if len(signers) != 1:
        raise ValueError("it has not one signer")
    kind, (octets,) = _typed(content_info)
    if kind != _DATA:
        raise ValueError("its content is not data")
    content = _expect(octets, _OCTETS).value
    certificates = [each for part in rest[:-1] if part.tag == _TAGGED_0 for each in part.parts()]
    return Signed(content, _check(content, signers[0], certificates))


def _check(content: bytes, signer: _Element, certificates: Sequence[_Element]) -> Certificate:
    """The certificate whose key signed the content."""
    _version, sid, digest, *rest = _expect(signer, _SEQUENCE).parts()
    attributes = rest.pop(0) if rest[0].tag == _TAGGED_0 else None
    algorithm, signature = rest[0], _expect(rest[1], _OCTETS).value
    if digest.parts()[0].value not in (_SHA256, _RSA_WITH_SHA256):
        raise ValueError("its digest is not SHA-256")
    if algorithm.parts()[0].value not in (_RSA, _RSA_WITH_SHA256):
        raise ValueError("it is not signed by RSA")
    certificate = _named(sid, certificates)
    signed = content if attributes is None else _attributes(attributes, content)
    _check_signature(certificate, signature, signed)
    return certificate


def _named(sid: _Element, certificates: Sequence[_Element]) -> Certificate:
    """The certificate that the signer names by issuer and serial number."""
    from cryptography import x509

    issuer, serial = _expect(sid, _SEQUENCE).parts()
    number = int.from_bytes(_expect(serial, _INTEGER).value, signed=True)
    for each in certificates:
        certificate = x509.load_der_x509_certificate(each.whole)
        named = certificate.issuer.public_bytes() == issuer.whole
        if named and certificate.serial_number == number:
            return certificate
    raise ValueError("the signer's certificate is not in it")


def _attributes(attributes: _Element, content: bytes) -> bytes:
    """What is signed in place of the content: attributes, among them the content's digest."""
    values = {}
    for attribute in attributes.parts():
        kind, found = _expect(attribute, _SEQUENCE).parts()
        values[_expect(kind, _OID).value] = [each.value for each in found.parts()]
    if values.get(_CONTENT_TYPE) != [_DATA]:
        raise ValueError("its signature is not for data")
    if values.get(_MESSAGE_DIGEST) != [hashlib.sha256(content).digest()]:
        raise ValueError("its signature is for other content")
    # RFC 5652, 5.4: signed as a SET, whatever tag they stand under.
    return bytes([_SET]) + attributes.whole[1:]


def _check_signature(certificate: Certificate, signature: bytes, signed: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the signer's key is not RSA")
    try:
        key.verify(signature, signed, PKCS1v15(), SHA256())
    except InvalidSignature as error:
        raise ValueError("its signature is wrong") from error


# ---------------------------------------------------------------------------------------- DER


def _elements(data: bytes) -> Iterator[_Element]:
    """The elements that stand in a row here."""
    place = 0
    while place < len(data):
        start, end = _extent(data, place)
        if end > len(data):
            raise ValueError("it breaks off")
        yield _Element(data[place], data[start:end], data[place:end])
        place = end


def _extent(data: bytes, place: int) -> tuple[int, int]:
    """Where an element's value starts and ends."""
    first, start = data[place + 1], place + 2
    if first < 0x80:
        return start, start + first
    size = first - 0x80
    return start + size, start + size + int.from_bytes(data[start : start + size])


def _expect(element: _Element, tag: int) -> _Element:
    if element.tag != tag:
        raise ValueError("it is put together in another way")
    return element


def _typed(element: _Element) -> tuple[bytes, list[_Element]]:
    """An object identifier and the content that it types."""
    kind, content = _expect(element, _SEQUENCE).parts()
    return _expect(kind, _OID).value, _expect(content, _TAGGED_0).parts()
