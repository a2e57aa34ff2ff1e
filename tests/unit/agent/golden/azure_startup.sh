#!/bin/sh
# Makes this machine one of orchctl's: first the timers that end it, then the agent, and when the
# agent ends, the machine's own end. May run at every boot.
set -u

server=http://127.0.0.1:8080
machine=m-7k2m9
sha256=abababababababababababababababababababababababababababababababab
boot_timeout=600
max_lifetime=86400
metadata=http://169.254.169.254
# For whoever looks at a process: whose it is.
export ORCHCTL_FLEET=research
export ORCHCTL_POOL=cpu
export HOME="${HOME:-/root}"
place=/var/lib/orchctl
text=$place/startup.sh
python=python3

say() { echo "orchctl: $1" >&2; }

end_machine() {
  trap '' TERM INT HUP
  say "this machine ends: $1"
  "$python" -I - azure "$metadata" https://management.azure.com <<'END_OF_PROGRAM'
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
END_OF_PROGRAM
  shutdown -h now || poweroff -f
  exit
}

# This text again with a word, after some seconds. Outside of systemd it outlives who started it.
later() {
  if [ -d /run/systemd/system ]; then
    armed="systemctl --quiet is-active orchctl-$1.timer"
    # Twice, because at a second boot two of this text may come here at once.
    $armed || systemd-run --quiet --unit="orchctl-$1" --on-active="$2" \
      --timer-property=AccuracySec=1s /bin/sh "$text" "$1" || $armed && return
  fi
  (trap '' TERM INT HUP; sleep "$2"; exec /bin/sh "$text" "$1") &
}

fetch() {
  "$python" -I - "$server/v1/agent/bundle.pyz" "$sha256" <<'END'
import hashlib, sys, urllib.request
url, sha256 = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    agent = opener.open(url, timeout=20).read()
except (OSError, ValueError) as error:
    sys.exit("orchctl: %s: %s" % (url, error))
if hashlib.sha256(agent).hexdigest() != sha256:
    print("orchctl: the agent has another SHA-256 than it must have: not run", file=sys.stderr)
    sys.exit(7)
open("agent.pyz", "wb").write(agent)
END
}

agent=
run() {
  trap '[ -n "$agent" ] || exit 143; kill -TERM "$agent" 2>/dev/null' TERM INT HUP
  rm -f registered
  pause=1
  until fetch; do
    [ $? -ne 7 ] || return 7
    sleep "$pause"
    [ "$pause" -ge 30 ] || pause=$((pause * 2))
  done
  "$python" -I agent.pyz --server "$server" --machine "$machine" --cloud azure \
    --metadata "$metadata" --boot-timeout "$boot_timeout" --max-lifetime "$max_lifetime" \
    --version "$sha256" &
  agent=$!
  while :; do
    wait "$agent"
    code=$?
    # A signal ends the wait, not the agent.
    kill -0 "$agent" 2>/dev/null || return "$code"
  done
}

settle() {
  mkdir -p "$place" && chmod 700 "$place" || return
  # In two steps, because an earlier boot's copy may be running.
  [ "$0" = "$text" ] || { cp "$0" "$text.new" && mv "$text.new" "$text"; } || return
  cd "$place"
}
settle || end_machine "there is no place for its files"

case ${1:-boot} in
  late) [ -e registered ] || end_machine "its agent has not registered" ; exit ;;
  end) end_machine "its agent has ended, or its time is over" ;;
esac

later late "$boot_timeout"
# Its life counts from its first boot.
[ -s born ] || date +%s >born
whole=$((max_lifetime + 60))
left=$(($(cat born) + whole - $(date +%s)))
[ "$left" -gt 0 ] || end_machine "its time is over"
[ "$left" -le "$whole" ] || left=$whole # a clock was wrong
later end "$left"

if [ "${1:-boot}" = boot ] && [ -d /run/systemd/system ]; then
  cat >/etc/systemd/system/orchctl.service <<END
[Unit]
Description=orchctl agent; this machine ends with it
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/bin/sh $text run
ExecStopPost=/bin/sh $text end
StandardOutput=journal+console
KillMode=mixed
TimeoutStopSec=120
# A job that runs out of memory must not end the machine, nor be held to a number of threads.
OOMPolicy=continue
TasksMax=infinity

[Install]
WantedBy=multi-user.target
END
  systemctl daemon-reload && systemctl --quiet enable orchctl.service &&
    systemctl --no-block start orchctl.service && exit
fi
run
code=$?
[ "${1:-boot}" = run ] || end_machine "its agent has ended with code $code"
exit "$code"
