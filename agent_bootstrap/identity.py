"""Proof of which machine this is, without a secret: what a cloud says of it to nobody else.

Each proof carries a nonce that the control plane chose, so one that was overheard is worth nothing
later. Only the metadata service of the machine is asked; what goes out is the proof alone, never a
credential. How each is checked: `control_plane/identity/`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any, Dict, Mapping
from urllib.parse import quote, urlsplit

from agent_bootstrap.cloud import AZURE_HEADERS, GCP_HEADERS, call

STS_BODY = b"Action=GetCallerIdentity&Version=2011-06-15"
STS_CONTENT_TYPE = "application/x-www-form-urlencoded; charset=utf-8"


def proof(cloud: str, nonce: str, server_url: str, metadata_url: str) -> Dict[str, str]:
    """What `register` sends from a machine of this cloud: `aws`, `gcp` or `azure`.

    Raises `OSError` when the metadata service does not answer or has no proof (yet), `ValueError`
    when it answers nonsense or the cloud has another name: both may pass, right after boot."""
    makers = {"aws": _aws, "gcp": _gcp, "azure": _azure}
    if cloud not in makers:
        raise ValueError("no such cloud: " + cloud)
    try:
        made = makers[cloud](nonce, server_url.rstrip("/"), metadata_url.rstrip("/"))
    except KeyError as error:
        raise ValueError("the metadata service told no %s" % error) from error
    return {"kind": cloud, "nonce": nonce, **made}


# ------------------------------------------------------------------------------------------ AWS

MACHINE_TAG = "orchctl-machine"


def machine_of_tag(metadata_url: str) -> str:
    """The id that the control plane gave this machine of AWS, from the machine's own tag: for one
    whose start-up text is that of others too. Raises as `proof`."""
    root = metadata_url.rstrip("/") + "/latest/"
    return _ask("GET", root + "meta-data/tags/instance/" + MACHINE_TAG, _session(root))


def _session(root: str) -> Dict[str, str]:
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    return {"X-aws-ec2-metadata-token": _ask("PUT", root + "api/token", ttl)}


def _aws(nonce: str, _server_url: str, metadata_url: str) -> Dict[str, str]:
    """A signed question to AWS who we are, for the control plane to ask in our place."""
    root = metadata_url + "/latest/"
    session = _session(root)
    region = _ask("GET", root + "meta-data/placement/region", session)
    roles = root + "meta-data/iam/security-credentials/"
    role = _ask("GET", roles, session).split()[:1]
    if not role:
        raise ValueError("this machine has no role")
    credentials = _object(_ask("GET", roles + quote(role[0]), session))
    url = "https://sts.%s.amazonaws.com/" % region
    headers = signed_headers(url, nonce, credentials, time.time())
    return {"url": url, "body": STS_BODY.decode(), "headers": json.dumps(headers)}


def signed_headers(
    url: str, nonce: str, credentials: Mapping[str, Any], at: float
) -> Dict[str, str]:
    """All headers but Host of a POST of `STS_BODY` to this URL, the nonce among them, signed at
    this time (seconds since 1970) by AWS Signature Version 4."""
    host = urlsplit(url).netloc
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    headers = {
        "Content-Type": STS_CONTENT_TYPE,
        "X-Amz-Date": moment,
        "X-Amz-Security-Token": str(credentials["Token"]),
        "X-Orchctl-Nonce": nonce,
    }
    low = {name.lower(): value for name, value in headers.items()}
    low["host"] = host
    names = ";".join(sorted(low))
    lines = "".join("%s:%s\n" % (name, low[name]) for name in sorted(low))
    request = "POST\n/\n\n%s\n%s\n%s" % (lines, names, _sha256(STS_BODY))
    scope = "%s/%s/sts/aws4_request" % (moment[:8], host.split(".")[1])
    text = "AWS4-HMAC-SHA256\n%s\n%s\n%s" % (moment, scope, _sha256(request.encode()))
    key = ("AWS4" + str(credentials["SecretAccessKey"])).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = "%s/%s" % (credentials["AccessKeyId"], scope)
    headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=%s, SignedHeaders=%s, Signature=%s" % (
        credential,
        names,
        signature,
    )
    return headers


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------------ GCP


def _gcp(nonce: str, server_url: str, metadata_url: str) -> Dict[str, str]:
    """A token in which Google names this machine, for this control plane and nonce only."""
    path = "/computeMetadata/v1/instance/service-accounts/default/identity"
    query = "?audience=%s&format=full" % quote(server_url + "/" + nonce, safe="")
    token = _ask("GET", metadata_url + path + query, GCP_HEADERS)
    return {"token": token}


# ---------------------------------------------------------------------------------------- Azure


def _azure(nonce: str, _server_url: str, metadata_url: str) -> Dict[str, str]:
    """A document in which Azure names this machine and the nonce, signed."""
    path = "/metadata/attested/document?api-version=2025-04-07&nonce=" + quote(nonce, safe="")
    document = _object(_ask("GET", metadata_url + path, AZURE_HEADERS))
    return {"signature": str(document["signature"])}


# ------------------------------------------------------------------------------------- metadata


def _ask(method: str, url: str, headers: Mapping[str, str]) -> str:
    answer = call(method, url, headers)
    if answer.status != 200:
        raise OSError("%s: the metadata service answered %d" % (url, answer.status))
    return answer.text


def _object(text: str) -> Dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("the metadata service answered no JSON object")
    return found
