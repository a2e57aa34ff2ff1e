"""Proves each step of checking a document in which Azure names a machine and the nonce."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.x509.oid import ExtendedKeyUsageOID

from control_plane.errors import Denied, Unavailable
from control_plane.identity import azure as module
from control_plane.identity.azure import ROOTS, AzureIdentity
from control_plane.identity.web import Web
from tests.fakes.metadata.identity import Clouds, Fault, Issuer, certify, spare_key
from tests.unit.identity.conftest import NONCE, NOW, ON_AZURE, Moment, other

PAGE = "www.microsoft.com"
SAYS = {"account": "subscriptionId", "vm_id": "vmId"}
"""What a document calls the parts of a machine's identity."""


def signed(clouds: Clouds, by: Issuer | None = None, **changes: Any) -> dict[str, str]:
    """A proof with other content, signed by Azure or somebody else; None takes a part out."""
    content = clouds.azure_content(NONCE) | changes
    kept = {name: value for name, value in content.items() if value is not None}
    return sent(clouds.azure.sign(json.dumps(kept).encode(), by=by))


def sent(document: bytes) -> dict[str, str]:
    """What an agent sends."""
    return {"kind": "azure", "nonce": NONCE, "signature": base64.b64encode(document).decode()}


def test_a_machine_proves_who_it_is(azure: AzureIdentity, clouds: Clouds) -> None:
    azure.check(ON_AZURE, signed(clouds), NONCE)
    assert [path for _, _, path in clouds.seen] == [
        "/pkiops/certs/ca02.crt",
        "/pkiops/certs/bridge.crt",
    ]


def test_numbers_are_the_same_in_large_letters(azure: AzureIdentity, clouds: Clouds) -> None:
    content = clouds.azure_content(NONCE)
    azure.check(ON_AZURE, signed(clouds, vmId=content["vmId"].upper()), NONCE)
    large = {name: value.upper() for name, value in ON_AZURE.identity.items()}
    azure.check(other(ON_AZURE, identity=large), signed(clouds), NONCE)


# --------------------------------------------------------------------------------- the content


def stamp(**changes: str | None) -> dict[str, Any]:
    """Other times in the document."""
    times = {"createdOn": "03/10/26 12:00:00 -0000", "expiresOn": "03/10/26 18:00:00 -0000"}
    return {"timeStamp": times | changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nonce": "9876543210"}, "another nonce"),
        ({"nonce": 123456789}, "another nonce"),
        ({"nonce": None}, "another nonce"),
        ({"nonce": "20260310-120000"}, "another nonce"),
        ({"subscriptionId": "99999999-2222-3333-4444-555555555555"}, "another subscription"),
        ({"subscriptionId": None}, "another subscription"),
        ({"subscriptionId": ["x"]}, "another subscription"),
        ({"vmId": "99999999-74ef-476e-8182-f6d2ba4166a6"}, "another machine's"),
        ({"vmId": ""}, "another machine's"),
        ({"vmId": None}, "another machine's"),
        ({"timeStamp": None}, "no times"),
        ({"timeStamp": "now"}, "no times"),
        (stamp(expiresOn="03/10/26 11:54:59 -0000"), "has expired"),
        (stamp(createdOn="03/10/26 12:05:01 -0000"), "from the future"),
        (stamp(expiresOn="later"), "not a time"),
        (stamp(expiresOn=None), "not a time"),
        (stamp(createdOn="03/10/26 12:00:00"), "not a time"),
    ],
)
def test_content_that_is_not_of_this_machine_now(
    azure: AzureIdentity, clouds: Clouds, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(Denied, match=words):
        azure.check(ON_AZURE, signed(clouds, **changes), NONCE)


def test_clocks_may_differ_a_little(azure: AzureIdentity, clouds: Clouds) -> None:
    azure.check(ON_AZURE, signed(clouds, **stamp(expiresOn="03/10/26 11:55:00 -0000")), NONCE)
    azure.check(ON_AZURE, signed(clouds, **stamp(createdOn="03/10/26 12:05:00 -0000")), NONCE)


def test_times_are_read_with_their_zone(azure: AzureIdentity, clouds: Clouds) -> None:
    azure.check(ON_AZURE, signed(clouds, **stamp(expiresOn="03/10/26 11:00:00 -0200")), NONCE)
    with pytest.raises(Denied, match="expired"):
        azure.check(ON_AZURE, signed(clouds, **stamp(expiresOn="03/10/26 13:00:00 +0200")), NONCE)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"[]", b'{"nonce": "1", "nonce": "2"}', b"[" * 5000]
)
def test_content_that_is_no_document(azure: AzureIdentity, clouds: Clouds, content: bytes) -> None:
    with pytest.raises(Denied, match=r"the document is not|cannot be read"):
        azure.check(ON_AZURE, sent(clouds.azure.sign(content)), NONCE)


@pytest.mark.parametrize("name", ["nonce", "subscriptionId", "vmId"])
def test_what_is_refused_by_its_content_asks_nobody(
    azure: AzureIdentity, clouds: Clouds, name: str
) -> None:
    with pytest.raises(Denied):
        azure.check(ON_AZURE, signed(clouds, None, **{name: "9876543210"}), NONCE)
    assert not clouds.seen


@pytest.mark.parametrize("name", ["account", "vm_id"])
def test_a_record_without_a_number_is_not_complete(
    azure: AzureIdentity, clouds: Clouds, name: str
) -> None:
    """Not even when the document says as little."""
    half = other(ON_AZURE, identity={**ON_AZURE.identity, name: ""})
    with pytest.raises(Unavailable, match=f"{name} of machine m-7k2m9 is not known"):
        azure.check(half, signed(clouds, None, **{SAYS[name]: ""}), NONCE)


# ---------------------------------------------------------------------------------- the signer


@pytest.mark.parametrize(
    "name",
    [
        "evil.metadata.azure.com.evil.com",
        "metadata.azure.com.evil.com",
        "evilmetadata.azure.com",
        "metadata.azure.com.",
        "a.b.metadata.azure.com",
        "*.metadata.azure.com",
        "-.metadata.azure.com",
        "x" * 64 + ".metadata.azure.com",
        "azure.com",
        "metadata.azure.us",
        "",
    ],
)
def test_a_signer_of_another_name(azure: AzureIdentity, clouds: Clouds, name: str) -> None:
    named = clouds.azure.leaf("metadata.azure.com", names=(name,) if name else ("x.example",))
    with pytest.raises(Denied, match="not Azure's metadata service"):
        azure.check(ON_AZURE, signed(clouds, named), NONCE)
    assert not clouds.seen


@pytest.mark.parametrize("name", ["metadata.azure.com", "westeurope.metadata.azure.com"])
def test_the_service_has_a_name_in_each_region(
    azure: AzureIdentity, clouds: Clouds, name: str
) -> None:
    azure.check(ON_AZURE, signed(clouds, clouds.azure.leaf(name, names=(name,))), NONCE)


def test_a_name_in_the_subject_alone_is_none(azure: AzureIdentity, clouds: Clouds) -> None:
    """It is not checked by issuers."""
    named = clouds.azure.leaf("metadata.azure.com", names=("shop.example",))
    with pytest.raises(Denied, match="not Azure's metadata service"):
        azure.check(ON_AZURE, signed(clouds, named), NONCE)


def test_a_root_of_somebody_elses(azure: AzureIdentity, clouds: Clouds) -> None:
    """With the names of the true ones, so that only keys tell them apart."""
    root = certify("Test Root G2", spare_key(0), None)
    bridge = certify("Test TLS RSA Root G2", spare_key(1), root)
    issuer = certify("Test TLS CA 02", spare_key(2), bridge, above="bridge.crt")
    signer = certify("metadata.azure.com", spare_key(3), issuer, ca=False, above="ca02.crt")
    with pytest.raises(Denied, match="no trusted root vouches"):
        azure.check(ON_AZURE, signed(clouds, signer), NONCE)
    short = certify("metadata.azure.com", spare_key(3), root, ca=False)
    with pytest.raises(Denied, match="no trusted root vouches"):
        azure.check(ON_AZURE, signed(clouds, short), NONCE)
    assert clouds.azure.signer.certificate.issuer == signer.certificate.issuer


def test_a_signer_that_vouches_for_itself(azure: AzureIdentity, clouds: Clouds) -> None:
    itself = certify("metadata.azure.com", spare_key(0), None, ca=False)
    with pytest.raises(Denied, match="has no AuthorityInformationAccess"):
        azure.check(ON_AZURE, signed(clouds, itself), NONCE)


def test_an_issuer_that_may_not_be_one(azure: AzureIdentity, clouds: Clouds) -> None:
    """Whoever owns any certificate of a public issuer could else make one for every name."""
    own = certify("shop.example", spare_key(0), clouds.azure.root, ca=False)
    signer = certify("metadata.azure.com", spare_key(1), own, ca=False, above="own.crt")
    clouds.azure.more_pages["own.crt"] = own
    with pytest.raises(Denied, match="no trusted root vouches"):
        azure.check(ON_AZURE, signed(clouds, signer), NONCE)


@pytest.mark.parametrize(
    "usage", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION]
)
def test_a_certificate_for_something_else(
    azure: AzureIdentity, clouds: Clouds, usage: x509.ObjectIdentifier
) -> None:
    mail = clouds.azure.leaf("metadata.azure.com", usage=usage)
    with pytest.raises(Denied, match="no trusted root vouches"):
        azure.check(ON_AZURE, signed(clouds, mail), NONCE)


def test_a_signer_that_has_expired(azure: AzureIdentity, clouds: Clouds, moment: Moment) -> None:
    old = clouds.azure.leaf("metadata.azure.com", until=NOW + timedelta(days=1))
    azure.check(ON_AZURE, signed(clouds, old), NONCE)
    moment.pass_by(days=2)
    with pytest.raises(Denied, match="no trusted root vouches"):
        azure.check(ON_AZURE, signed(clouds, old), NONCE)


# ---------------------------------------------------------------------- fetching the issuers


@pytest.mark.parametrize(
    "above_url",
    [
        "http://evil.example/pkiops/certs/",
        "http://169.254.169.254/pkiops/certs/",
        "http://127.0.0.1/pkiops/certs/",
        "http://www.microsoft.com.evil.example/pkiops/certs/",
        "http://www.microsoft.com@evil.example/pkiops/certs/",
        "http://me@www.microsoft.com/pkiops/certs/",
        "http://www.microsoft.com:8080/pkiops/certs/",
        "http://WWW.microsoft.com/pkiops/certs/",
        "http://www.microsoft.com/other/",
        "http://www.microsoft.com/pkiops/certs/../../other/",
        "http://www.microsoft.com/pkiops/certs/deeper/",
        "ldap://www.microsoft.com/pkiops/certs/",
        "file:///pkiops/certs/",
        "http://[/pkiops/certs/",
        "http://www.microsoft.com/pkiops/certs/x?y=",
        "http://www.microsoft.com/pkiops/certs/#",
    ],
)
def test_no_address_is_asked_but_microsofts(
    azure: AzureIdentity, clouds: Clouds, above_url: str
) -> None:
    """A certificate can name any address: it must not make this server ask there."""
    signer = clouds.azure.leaf("metadata.azure.com", above_url=above_url)
    with pytest.raises(Denied, match="not one of Microsoft's"):
        azure.check(ON_AZURE, signed(clouds, signer), NONCE)
    assert not clouds.seen


def test_issuers_are_remembered(azure: AzureIdentity, clouds: Clouds) -> None:
    for _ in range(3):
        azure.check(ON_AZURE, signed(clouds), NONCE)
    assert len(clouds.seen) == 2


def test_not_too_many_issuers_are_remembered(
    azure: AzureIdentity, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 1)
    for _ in range(2):
        azure.check(ON_AZURE, signed(clouds), NONCE)
    assert len(clouds.seen) == 4


@pytest.mark.parametrize(
    "fault",
    [Fault(404), Fault(500), Fault(301, {"Location": "/x"}), Fault(200, {}, b"<html>")],
)
def test_a_microsoft_in_trouble_says_nothing(
    azure: AzureIdentity, clouds: Clouds, fault: Fault
) -> None:
    clouds.faults[PAGE] = fault
    with pytest.raises(Unavailable):
        azure.check(ON_AZURE, signed(clouds), NONCE)
    clouds.faults.clear()
    azure.check(ON_AZURE, signed(clouds), NONCE)


def test_issuers_that_name_each_other_for_ever(azure: AzureIdentity, clouds: Clouds) -> None:
    loop = certify("Loop", spare_key(0), certify("Loop", spare_key(0), None), above="loop.crt")
    clouds.azure.more_pages["loop.crt"] = loop
    signer = certify("metadata.azure.com", spare_key(1), loop, ca=False, above="loop.crt")
    with pytest.raises(Denied, match="no trusted root is near"):
        azure.check(ON_AZURE, signed(clouds, signer), NONCE)
    assert len(clouds.seen) == 1


# ------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("signature", ["", "!", "AAA", "\u00e9", "AA=="])
def test_a_signature_that_is_none(azure: AzureIdentity, signature: str) -> None:
    with pytest.raises(Denied, match=r"signature|signed document"):
        azure.check(ON_AZURE, {"kind": "azure", "signature": signature}, NONCE)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_what_counts_cannot_be_changed(azure: AzureIdentity, clouds: Clouds) -> None:
    """Whatever a changed byte makes of the certificate, the content or the signature. Only of what
    stands around them a little is read by nobody."""
    document = base64.b64decode(signed(clouds)["signature"])
    certificate = clouds.azure.signer.certificate
    content = json.dumps(clouds.azure_content(NONCE)).encode()
    counts = set(range(len(document) - 256, len(document)))
    for each in (certificate.tbs_certificate_bytes, certificate.signature, content):
        counts |= set(range(document.index(each), document.index(each) + len(each)))
    assert len(counts) > len(document) * 0.8
    for place in counts:
        changed = document[:place] + bytes([document[place] ^ 1]) + document[place + 1 :]
        # A changed address of an issuer is asked, on Microsoft's page, and not found.
        with pytest.raises((Denied, Unavailable)):
            azure.check(ON_AZURE, sent(changed), NONCE)


def test_the_roots_are_those_of_microsofts_page() -> None:
    """SHA-1 thumbprints, as the page "Azure Certificate Authority details" lists them."""
    roots = x509.load_pem_x509_certificates(ROOTS.read_bytes())
    assert {root.fingerprint(SHA1()).hex().upper() for root in roots} == {
        "DF3C24F9BFD666761B268073FE06D1CC8D4F82A4",
        "7E04DE896A3E666D00E687D33FFAD93BE83D349E",
        "17F3DE5E9F0F19E98EF61F32266E20C407AE30EE",
        "A78849DC5D7C758C8CDE399856B3AAD0B2A57135",
        "999A64C37FF47D9FAB95F14769891460EEC4C3C5",
        "73A5E64A3BFF8316FF0EDCCC618A906E4EAE4D74",
    }
    for root in roots:
        assert root.issuer == root.subject
        root.verify_directly_issued_by(root)
        assert root.not_valid_after_utc > datetime(2037, 1, 1, tzinfo=UTC)


def test_roots_of_the_program_do_not_vouch_for_ours(
    web: Web, moment: Moment, clouds: Clouds
) -> None:
    azure = AzureIdentity(web, moment.now)
    with pytest.raises(Denied):
        azure.check(ON_AZURE, signed(clouds), NONCE)
