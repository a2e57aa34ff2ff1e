#!/usr/bin/env bash
# Hands a command in, follows it, writes what it cost into the summary, and ends with its exit code.
set -euo pipefail

DENIED=5 # the exit code of `orchctl` when its session is over

if [ -z "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ]; then
  echo "::error::this job may not ask for its token: give it \`permissions: {id-token: write}\`"
  exit 2
fi

# A token of GitHub is good for one session. It never stands among the arguments of a process, where
# others on this runner could read it.
login() {
  local answer
  answer=$(curl --silent --show-error --fail --retry 3 --get \
    --header @<(printf 'Authorization: bearer %s\n' "$ACTIONS_ID_TOKEN_REQUEST_TOKEN") \
    --data-urlencode "audience=$AUDIENCE" "$ACTIONS_ID_TOKEN_REQUEST_URL")
  ORCHCTL_TOKEN=$(printf '%s' "$answer" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["value"])' | orchctl token exchange)
  echo "::add-mask::$ORCHCTL_TOKEN"
  export ORCHCTL_TOKEN
}

job=""
cancel() {
  trap - INT TERM
  kill "$following" 2> /dev/null || true
  echo "cancelled: so is job $job" >&2
  orchctl job cancel "$job" >&2 || { login && orchctl job cancel "$job" >&2; }
  exit 130
}

login
options=()
if [ -n "$OPTIONS" ]; then
  mapfile -t options < <(xargs -n 1 printf '%s\n' <<< "$OPTIONS")
fi
job=$(orchctl run --queue "$QUEUE" --name "$NAME" "${options[@]}" --output name -- "$COMMAND")
echo "job-id=$job" >> "$GITHUB_OUTPUT"
echo "job $job" >&2

# In the background, since a shell hears of a cancellation only while it waits.
following=""
trap cancel INT TERM
while true; do
  orchctl job logs --follow "$job" &
  following=$!
  code=0
  wait "$following" || code=$?
  [ "$code" -eq "$DENIED" ] || break
  echo "the session is renewed; the log begins again" >&2
  login
done
trap - INT TERM
[ "$code" -eq 0 ] || exit "$code"

login # what is left of the session may be too little
orchctl job report "$job" >> "$GITHUB_STEP_SUMMARY" || echo "::warning::what it cost is not known"
exec orchctl job wait "$job"
