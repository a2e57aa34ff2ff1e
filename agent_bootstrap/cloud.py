"""What a machine of a cloud does by itself: ask its metadata service, and delete itself.

Standard library and nothing of ours, because start-up texts carry this file whole: a machine whose
agent never came deletes itself too, by `python3 - CLOUD METADATA_URL API_URL < cloud.py`.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from email.message import Message
from typing import Dict, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

GCP_HEADERS = {"Metadata-Flavor": "Google"}
AZURE_HEADERS = {"Metadata": "true"}
"""Without these a metadata service refuses: a forged request from a web page cannot set them."""

APIS = {"gcp": "https://compute.googleapis.com", "azure": "https://management.azure.com"}
"""Where machines are deleted. One of AWS needs no call: it is gone when it shuts down."""

AZURE_INSTANCE = "/metadata/instance/compute/%s?api-version=2021-02-01&format=text"

TRY_S = 60.0
"""For a delete to be accepted. Not given up at once, because a machine of Azure that only shuts
down still costs its full price; less than the start-up text lets systemd wait for it."""

PAUSE_S = 2.0


class Answer(NamedTuple):
    """What came back, whatever its status."""

    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace").strip()


class Refused(Exception):
    """The cloud said no: asking again will not help."""


class Later(Exception):
    """No answer, or one that says: later."""


def call(
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    body: Optional[bytes] = None,
    timeout_s: float = 5.0,
) -> Answer:
    """One request to one host: no proxy is asked and no redirect followed. Raises `OSError` when
    there is no answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    target = parts.path + ("?" + parts.query if parts.query else "")
    try:
        connection.request(method, target, body=body, headers=dict(headers))
        with connection.getresponse() as response:
            return Answer(response.status, response.headers, response.read())
    except http.client.HTTPException as error:
        raise OSError("%s: %s" % (type(error).__name__, error)) from error
    finally:
        connection.close()


def delete_self(cloud: str, metadata_url: str, api_url: str, try_s: float = TRY_S) -> None:
    """Have the cloud delete the machine this runs on, with the machine's own identity. Returns when
    the cloud has accepted; raises `Refused`, or `Later` after `try_s` seconds without success."""
    request = {"gcp": _gcp_request, "azure": _azure_request}[cloud]
    until = time.monotonic() + try_s
    while True:
        try:
            url, headers = request(metadata_url, api_url)
            _check(call("DELETE", url, headers, timeout_s=20.0), accepted=(200, 202, 204, 404))
            return
        except (OSError, Later) as error:
            if time.monotonic() >= until:
                raise Later(str(error)) from error
        time.sleep(PAUSE_S)


def _gcp_request(metadata_url: str, api_url: str) -> Tuple[str, Dict[str, str]]:
    root = metadata_url + "/computeMetadata/v1/"

    def ask(path: str) -> str:
        return _check(call("GET", root + path, GCP_HEADERS)).text

    # The zone comes as projects/NUMBER/zones/ZONE.
    place = (ask("project/project-id"), ask("instance/zone").rpartition("/")[2])
    url = "%s/compute/v1/projects/%s/zones/%s" % (api_url, *place)
    token = ask("instance/service-accounts/default/token")
    return url + "/instances/" + ask("instance/name"), _bearer(token)


def _azure_request(metadata_url: str, api_url: str) -> Tuple[str, Dict[str, str]]:
    def ask(path: str) -> str:
        return _check(call("GET", metadata_url + path, AZURE_HEADERS)).text

    resource = ask(AZURE_INSTANCE % "resourceId")
    token = ask(
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=%s/" % APIS["azure"]
    )
    url = "%s%s?api-version=2026-04-01&forceDeletion=true" % (api_url, resource)
    return url, _bearer(token)


def _bearer(token_answer: str) -> Dict[str, str]:
    try:
        return {"Authorization": "Bearer " + json.loads(token_answer)["access_token"]}
    except (ValueError, KeyError, TypeError) as error:
        raise Later("the token cannot be read") from error


def _check(answer: Answer, accepted: Tuple[int, ...] = (200,)) -> Answer:
    if answer.status in accepted:
        return answer
    text = "%d %s" % (answer.status, answer.text[:500])
    if answer.status >= 500 or answer.status in (408, 409, 429):
        raise Later(text)
    raise Refused(text)


if __name__ == "__main__":
    try:
        delete_self(sys.argv[1], sys.argv[2], sys.argv[3])
    except (Refused, Later) as failure:
        sys.exit("orchctl: this machine is not deleted: %s" % failure)
