"""Start-up texts: what a fresh machine runs first. Pure; every value is quoted for the shell.

A machine of a cloud runs as root and is one program's alone, so its text works in a fixed place,
leaves its timers and the agent to systemd where there is one, and ends the machine, whatever the
agent's exit code was. No text holds a secret: such a machine proves who it is (`identity`).
"""

from __future__ import annotations

import shlex
from functools import lru_cache, partial
from pathlib import Path

from agent_bootstrap.cloud import APIS
from agent_bootstrap.interruption import METADATA_URL

LIFE_MARGIN_S = 60
"""The agent ends an old machine itself; the text's own timer is for an agent that hangs."""

AWS_BYTES_MAX = 16_384
"""Of user data, before base64."""
GCP_BYTES_MAX = 262_144
"""Of one metadata value."""
AZURE_BYTES_MAX = 65_535
"""Of custom data, after base64 is decoded."""

_FETCH = """\
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
}"""
"""Exits with 7 when it was another agent than it must be."""

_LOCAL = """\
#!/bin/sh
# Starts an orchctl agent in the current directory and leaves nothing running when it ends.
# Must lead a process group of its own.
set -u

server={server}
machine={machine}
token_file={token_file}
sha256={sha256}
boot_timeout={boot_timeout}
max_lifetime={max_lifetime}
# For whoever looks at the process: whose it is.
export ORCHCTL_FLEET={fleet}
export ORCHCTL_POOL={pool}
python=${{ORCHCTL_PYTHON:-python3}}

say() {{ echo "orchctl: $1" >&2; }}

kill_jobs() {{
  # Jobs run in sessions of their own; what they start carries both marks in its environment.
  for file in $(grep -slxzF -e "ORCHCTL_MACHINE=$machine" /proc/[0-9]*/environ); do
    grep -sqz '^ORCHCTL_JOB_ID=' "$file" || continue
    pid=${{file#/proc/}}
    kill -KILL "${{pid%/environ}}" 2>/dev/null
  done
}}

# First of all the timer that ends this machine, so that whatever follows may hang.
(
  trap '' TERM
  age=0
  while [ "$age" -lt $((max_lifetime + {margin})) ]; do
    [ "$age" -lt "$boot_timeout" ] || [ -e registered ] || break
    sleep 1
    age=$((age + 1))
  done
  say "out of time after $age s"
  kill -TERM -$$
  sleep 15
  kill_jobs
  kill -KILL -$$
) &
agent=

finish() {{
  kill_jobs
  # Whatever else is of this group: the timer and what it waits for, or a fetch.
  trap '' USR2
  kill -USR2 -$$
  exit "$1"
}}
trap '[ -z "$agent" ] && finish 143; kill -TERM "$agent" 2>/dev/null' TERM INT HUP

{fetch}

until fetch; do
  [ $? -ne 7 ] || finish 7
  sleep 1
done

"$python" -I agent.pyz --server "$server" --machine "$machine" --token-file "$token_file" \\
  --boot-timeout "$boot_timeout" --max-lifetime "$max_lifetime" --version "$sha256" &
agent=$!
while :; do
  wait "$agent"
  code=$?
  # A signal ends the wait, not the agent.
  kill -0 "$agent" 2>/dev/null || finish "$code"
done
"""


_CLOUD = """\
#!/bin/sh
# Makes this machine one of orchctl's: first the timers that end it, then the agent, and when the
# agent ends, the machine's own end. May run at every boot.
set -u

server={server}
machine={machine}
sha256={sha256}
boot_timeout={boot_timeout}
max_lifetime={max_lifetime}
metadata={metadata}
# For whoever looks at a process: whose it is.
export ORCHCTL_FLEET={fleet}
export ORCHCTL_POOL={pool}
export HOME="${{HOME:-/root}}"
place=/var/lib/orchctl
text=$place/startup.sh
python=python3

say() {{ echo "orchctl: $1" >&2; }}

end_machine() {{
  trap '' TERM INT HUP
  say "this machine ends: $1"
{delete}  shutdown -h now || poweroff -f
  exit
}}

# This text again with a word, after some seconds. Outside of systemd it outlives who started it.
later() {{
  if [ -d /run/systemd/system ]; then
    armed="systemctl --quiet is-active orchctl-$1.timer"
    # Twice, because at a second boot two of this text may come here at once.
    $armed || systemd-run --quiet --unit="orchctl-$1" --on-active="$2" \\
      --timer-property=AccuracySec=1s /bin/sh "$text" "$1" || $armed && return
  fi
  (trap '' TERM INT HUP; sleep "$2"; exec /bin/sh "$text" "$1") &
}}

{fetch}

agent=
run() {{
  trap '[ -n "$agent" ] || exit 143; kill -TERM "$agent" 2>/dev/null' TERM INT HUP
  rm -f registered
  pause=1
  until fetch; do
    [ $? -ne 7 ] || return 7
    sleep "$pause"
    [ "$pause" -ge 30 ] || pause=$((pause * 2))
  done
  "$python" -I agent.pyz --server "$server" --machine "$machine" --cloud {cloud} \\
    --metadata "$metadata" --boot-timeout "$boot_timeout" --max-lifetime "$max_lifetime" \\
    --version "$sha256" &
  agent=$!
  while :; do
    wait "$agent"
    code=$?
    # A signal ends the wait, not the agent.
    kill -0 "$agent" 2>/dev/null || return "$code"
  done
}}

settle() {{
  mkdir -p "$place" && chmod 700 "$place" || return
  # In two steps, because an earlier boot's copy may be running.
  [ "$0" = "$text" ] || {{ cp "$0" "$text.new" && mv "$text.new" "$text"; }} || return
  cd "$place"
}}
settle || end_machine "there is no place for its files"

case ${{1:-boot}} in
  late) [ -e registered ] || end_machine "its agent has not registered" ; exit ;;
  end) end_machine "its agent has ended, or its time is over" ;;
esac

later late "$boot_timeout"
# Its life counts from its first boot.
[ -s born ] || date +%s >born
whole=$((max_lifetime + {margin}))
left=$(($(cat born) + whole - $(date +%s)))
[ "$left" -gt 0 ] || end_machine "its time is over"
[ "$left" -le "$whole" ] || left=$whole # a clock was wrong
later end "$left"

if [ "${{1:-boot}}" = boot ] && [ -d /run/systemd/system ]; then
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
[ "${{1:-boot}}" = run ] || end_machine "its agent has ended with code $code"
exit "$code"
"""

_DELETE = """\
  "$python" -I - {cloud} "$metadata" {api} <<'END_OF_PROGRAM'
{program}END_OF_PROGRAM
"""


def local_startup(
    *,
    server_url: str,
    machine_id: str,
    fleet: str,
    pool: str,
    agent_sha256: str,
    boot_timeout_s: int,
    max_lifetime_s: int,
    token_file: str,
) -> str:
    """POSIX sh for a machine that is processes on this host: run as `/bin/sh startup.sh` in the
    machine's directory, as the leader of a new session.

    Arms its timers, fetches the agent from the server, runs it only with the right SHA-256 and
    exits with its code; 7 when the agent was another one. `ORCHCTL_PYTHON` in its environment names
    the interpreter, else `python3` is taken. No secret is in the text: the one-time token lies in
    `token_file` (mode 0600), which the agent removes."""
    return _LOCAL.format(
        server=shlex.quote(server_url.rstrip("/")),
        machine=shlex.quote(machine_id),
        token_file=shlex.quote(token_file),
        sha256=shlex.quote(agent_sha256),
        boot_timeout=int(boot_timeout_s),
        max_lifetime=int(max_lifetime_s),
        fleet=shlex.quote(fleet),
        pool=shlex.quote(pool),
        margin=LIFE_MARGIN_S,
        fetch=_FETCH,
    )


def cloud_startup(
    cloud: str,
    *,
    server_url: str,
    machine_id: str,
    fleet: str,
    pool: str,
    agent_sha256: str,
    boot_timeout_s: int,
    max_lifetime_s: int,
    metadata_url: str = METADATA_URL,
    api_url: str = "",
) -> str:
    """POSIX sh for a fresh machine of a cloud, to be run by root at its first boot or at every one.

    Arms the timers, fetches the agent from the server, and runs it only with the right SHA-256. The
    machine is gone when the agent ends, when it has not registered within `boot_timeout_s`, and a
    minute after `max_lifetime_s`, counted from the first boot. Without a `machine_id`, at AWS, the
    text is the same for many machines, and each finds its id among its own tags. `api_url` is where
    the cloud's machines are deleted, if that is not the usual place."""
    return _CLOUD.format(
        cloud=cloud,
        server=shlex.quote(server_url.rstrip("/")),
        machine=shlex.quote(machine_id),
        sha256=shlex.quote(agent_sha256),
        boot_timeout=int(boot_timeout_s),
        max_lifetime=int(max_lifetime_s),
        metadata=shlex.quote(metadata_url),
        fleet=shlex.quote(fleet),
        pool=shlex.quote(pool),
        margin=LIFE_MARGIN_S,
        fetch=_FETCH,
        delete=_deletion(cloud, api_url or APIS[cloud]) if cloud in APIS else "",
    )


aws_startup = partial(cloud_startup, "aws")
"""User data, `AWS_BYTES_MAX` at most. The machine ends by shutting down: launch it with
`InstanceInitiatedShutdownBehavior=terminate`."""

gcp_startup = partial(cloud_startup, "gcp")
"""The metadata value `startup-script`, `GCP_BYTES_MAX` at most. The machine deletes itself by the
token of its service account. Without the right to do that it only stops: then the controller
deletes it, or the cloud at the end of `maxRunDuration`."""

azure_startup = partial(cloud_startup, "azure")
"""Custom data, `AZURE_BYTES_MAX` at most. The machine deletes itself by the token of its managed
identity (of its only one). Without the right to do that it only stops and costs its price until the
controller deletes it."""


def _deletion(cloud: str, api_url: str) -> str:
    return _DELETE.format(cloud=cloud, api=shlex.quote(api_url), program=_program())


@lru_cache(maxsize=1)
def _program() -> str:
    return Path(__file__).with_name("cloud.py").read_text(encoding="utf-8")
