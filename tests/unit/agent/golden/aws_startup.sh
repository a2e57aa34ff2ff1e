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
  "$python" -I agent.pyz --server "$server" --machine "$machine" --cloud aws \
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
