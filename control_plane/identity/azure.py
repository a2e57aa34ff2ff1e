"""Azure: a document that names the machine and our nonce, signed by the metadata service.

Only the signer's certificate comes with it; those between it and a root are fetched from
Microsoft. Source: Azure Instance Metadata Service, "Attested data" and its guidance on validating
the signature; Azure Certificate Authority details (roots, where certificates are fetched).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from control_plane.core.model import Machine
from control_plane.errors import Denied, Unavailable
from control_plane.identity import cms
from control_plane.identity.verifier import CLOCK_SKEW, json_object, known, part
from control_plane.identity.web import Web

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, ExtensionType

E = TypeVar("E", bound="ExtensionType")

ROOTS = Path(__file__).with_name("azure_roots.pem")
ISSUERS = "www.microsoft.com/pkiops/certs/"
"""Where Microsoft offers the certificates of its issuers. Whoever makes a certificate can name any
address in it; no other is asked."""
HOPS_MAX = 4
"""Certificates between the signer and a root. Today there are two at most."""
KEPT_MAX = 64
"""Fetched certificates that are remembered; there are some ten."""

_NAME = re.compile(r"([a-z0-9]{1,63}\.)?metadata\.azure\.com")
_ISSUER = re.compile(rf"https?://({re.escape(ISSUERS)}[A-Za-z0-9%._-]+)")
_TIME = "%m/%d/%y %H:%M:%S %z"


class AzureIdentity:
    """`Verifier` of Azure virtual machines."""

    def __init__(self, web: Web, now: Callable[[], datetime], roots: Path = ROOTS) -> None:
        """`roots` are certificates in PEM."""
        self._web = web
        self._now = now
        self._roots = roots
        self._issuers: dict[str, Certificate] = {}

    def check(self, machine: Machine, proof: Mapping[str, str], nonce: str) -> None:
        """As `Verifier.check`."""
        signed = cms.read(_decoded(part(proof, "signature")))
        document = json_object(signed.content, "the document")
        if document.get("nonce") != nonce:
            raise Denied("the document carries another nonce")
        self._check_times(document.get("timeStamp"))
        if not _same(document.get("subscriptionId"), known(machine, "account")):
            raise Denied("the document is of another subscription")
        if not _same(document.get("vmId"), known(machine, "vm_id")):
            raise Denied("the document is another machine's")
        # Last, because it may take requests: who does not know the machine causes none.
        self._check_chain(signed.certificate)

    def _check_times(self, times: object) -> None:
        if not isinstance(times, dict):
            raise Denied("the document has no times")
        if self._now() > _time(times.get("expiresOn")) + CLOCK_SKEW:
            raise Denied("the document has expired")
        if self._now() < _time(times.get("createdOn")) - CLOCK_SKEW:
            raise Denied("the document is from the future")

    def _check_chain(self, signer: Certificate) -> None:
        """That a public root vouches for the signer under a name of Azure's metadata service."""
        from cryptography import x509
        from cryptography.x509 import verification

        name = _metadata_name(signer)
        roots = _roots(self._roots)
        builder = verification.PolicyBuilder().store(verification.Store(roots)).time(self._now())
        # The rules for certificates of web servers: only for these are names checked by their
        # issuers. A certificate of the same roots for mail or code may hold any name.
        verifier = builder.build_server_verifier(x509.DNSName(name))
        try:
            verifier.verify(signer, self._between(signer, roots))
        except verification.VerificationError as error:
            raise Denied(f"no trusted root vouches for the document's signer: {error}") from error

    def _between(self, signer: Certificate, roots: list[Certificate]) -> list[Certificate]:
        """The certificates from the signer's issuer up to below a root."""
        trusted = {root.subject for root in roots}
        found: list[Certificate] = []
        current = signer
        while current.issuer not in trusted:
            if len(found) == HOPS_MAX:
                raise Denied("no trusted root is near the document's signer")
            current = self._issuer(current)
            found.append(current)
        return found

    def _issuer(self, certificate: Certificate) -> Certificate:
        url = _issuer_url(certificate)
        issuer = self._issuers.get(url)
        if issuer is None:
            issuer = _certificate(self._web.get(url))
            if len(self._issuers) >= KEPT_MAX:
                self._issuers.clear()
            self._issuers[url] = issuer
        return issuer


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Denied("the signature is not base64") from error


def _time(text: object) -> datetime:
    """`11/22/26 12:00:00 -0000`."""
    try:
        return datetime.strptime(str(text), _TIME).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Denied("a time of the document is not a time") from error


def _same(found: object, expected: str) -> bool:
    """Azure writes the same number in large and small letters."""
    return isinstance(found, str) and found.lower() == expected.lower()


def _metadata_name(certificate: Certificate) -> str:
    """The name of Azure's metadata service that a certificate is for. Raises `Denied`."""
    from cryptography import x509

    names = _extension(certificate, x509.SubjectAlternativeName)
    for name in names.get_values_for_type(x509.DNSName):
        if _NAME.fullmatch(name.lower()):
            return name.lower()
    raise Denied("the document's signer is not Azure's metadata service")


def _issuer_url(certificate: Certificate) -> str:
    """Where Microsoft offers the certificate of this one's issuer. Raises `Denied`."""
    from cryptography import x509
    from cryptography.x509.oid import AuthorityInformationAccessOID

    for access in _extension(certificate, x509.AuthorityInformationAccess):
        place = str(access.access_location.value)
        found = _ISSUER.fullmatch(place)
        if found and access.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
            return f"https://{found[1]}"
    raise Denied("a certificate's issuer is not one of Microsoft's")


def _extension(certificate: Certificate, kind: type[E]) -> E:
    """A part of a certificate that it must have. Raises `Denied`."""
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise Denied("the document's signer has an unreadable certificate") from error
    except x509.ExtensionNotFound as error:
        raise Denied(f"a certificate has no {kind.__name__}") from error


def _certificate(data: bytes) -> Certificate:
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(data)
    except ValueError as error:
        raise Unavailable("an issuer's certificate cannot be read") from error


@cache
def _roots(path: Path) -> list[Certificate]:
    from cryptography import x509

    return x509.load_pem_x509_certificates(path.read_bytes())
