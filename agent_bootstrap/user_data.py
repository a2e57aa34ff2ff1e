"""Start-up texts: what a fresh machine runs first. Pure; every value is quoted for the shell."""

from __future__ import annotations

import shlex

LIFE_MARGIN_S = 60
"""The agent ends an old machine itself; the text's own timer is for an agent that hangs."""

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
timer=$!
agent=

finish() {{
  kill_jobs
  kill -KILL "$timer" 2>/dev/null
  exit "$1"
}}
trap '[ -z "$agent" ] && finish 143; kill -TERM "$agent" 2>/dev/null' TERM INT HUP

fetch() {{
  "$python" -I - "$server/v1/agent/bundle.pyz" "$sha256" <<'END'
import hashlib, sys, urllib.request
url, sha256 = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
try:
    agent = opener.open(url, timeout=20).read()
except (OSError, ValueError) as error:
    sys.exit("orchctl: %s: %s" % (url, error))
if hashlib.sha256(agent).hexdigest() != sha256:
    print("orchctl: the agent has another SHA-256 than it must have: not run", file=sys.stderr)
    sys.exit(7)
open("agent.pyz", "wb").write(agent)
END
}}

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
    )
