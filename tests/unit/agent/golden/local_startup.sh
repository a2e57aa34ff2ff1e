#!/bin/sh
# Starts an orchctl agent in the current directory and leaves nothing running when it ends.
# Must lead a process group of its own.
set -u

server=http://127.0.0.1:8080
machine=m-7k2m9
token_file=/var/lib/orchctl/m-7k2m9.1/token
sha256=abababababababababababababababababababababababababababababababab
boot_timeout=600
max_lifetime=86400
# For whoever looks at the process: whose it is.
export ORCHCTL_FLEET=research
export ORCHCTL_POOL=cpu
python=${ORCHCTL_PYTHON:-python3}

say() { echo "orchctl: $1" >&2; }

kill_jobs() {
  # Jobs run in sessions of their own; what they start carries both marks in its environment.
  for file in $(grep -slxzF -e "ORCHCTL_MACHINE=$machine" /proc/[0-9]*/environ); do
    grep -sqz '^ORCHCTL_JOB_ID=' "$file" || continue
    pid=${file#/proc/}
    kill -KILL "${pid%/environ}" 2>/dev/null
  done
}

# First of all the timer that ends this machine, so that whatever follows may hang.
(
  trap '' TERM
  age=0
  while [ "$age" -lt $((max_lifetime + 60)) ]; do
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

finish() {
  kill_jobs
  # Whatever else is of this group: the timer and what it waits for, or a fetch.
  trap '' USR2
  kill -USR2 -$$
  exit "$1"
}
trap '[ -z "$agent" ] && finish 143; kill -TERM "$agent" 2>/dev/null' TERM INT HUP

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

until fetch; do
  [ $? -ne 7 ] || finish 7
  sleep 1
done

"$python" -I agent.pyz --server "$server" --machine "$machine" --token-file "$token_file" \
  --boot-timeout "$boot_timeout" --max-lifetime "$max_lifetime" --version "$sha256" &
agent=$!
while :; do
  wait "$agent"
  code=$?
  # A signal ends the wait, not the agent.
  kill -0 "$agent" 2>/dev/null || finish "$code"
done
