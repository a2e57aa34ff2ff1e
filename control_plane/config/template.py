"""The document `orchctl autoscaler init` writes: it works as it is and shows the rest."""

from __future__ import annotations

TEMPLATE = """\
# yaml-language-server: $schema=./orchctl.schema.json
#
# An autoscaler: queues of jobs, the machines that may be bought for them, and what they may cost.
#   orchctl autoscaler validate FILE     is it right?
#   orchctl autoscaler apply FILE        what would change, what may it cost; then do it
apiVersion: orchctl/v1
kind: Autoscaler
name: {name}

queues:
  default:
    pools: [local]              # which pools serve it, the preferred one first
    # priority: 0               # between queues: higher first
    # launch_after: 90s         # let a running machine free up before one is bought
    # jobs_per_machine: 8       # side by side on one machine; else what each job asks for
    # max_running: 64           # at a time, in all; `max_running_per_owner` for each owner

pools:
  local:                        # this very computer: no account needed, nothing is billed
    clouds: {{local: {{}}}}
    machines: {{min: 0, max: 2}}
    idle_timeout: 1m            # a machine with nothing to do ends after this

  # l4:                         # add it to a queue's `pools` to use it
  #   gpu: L4:1                 # also A100:1..8, H100:80GB:8, "nvidia:24GB..:1"
  #   cpu: 4..                  # at least 4; also 2..8
  #   memory: 16GB..
  #   disk: 100GB
  #   clouds:
  #     aws:   {{regions: [us-east-1, us-west-2]}}
  #     gcp:   {{regions: [us-central1], project: acme-ml}}
  #     azure: {{regions: [eastus], resource_group: orchctl}}
  #   market: spot-first        # spot | on-demand | spot-first
  #   max_price: 1.50 USD/hour  # for one machine
  #   machines: {{min: 0, max: 4}}
  #   gpus_max: 64              # of all its machines together
  #   idle_timeout: 5m
  #   boot_timeout: 10m         # ended when its agent has not reported by then
  #   max_lifetime: 24h         # ended then, come what may
  #   warm:                     # keep machines ready in office hours
  #     - {{cron: "0 8 * * MON-FRI", for: 10h, timezone: Europe/Berlin, machines: 1}}
  #   closed:                   # launch nothing at the weekend; running jobs finish
  #     - {{cron: "0 20 * * FRI", for: 60h, timezone: Europe/Berlin}}

budget:                         # of all machines together
  hour: 20 USD
  day: 200 USD
  month: 3000 USD
  at_limit: hold                # hold: buy nothing more | drain: also end machines as jobs end

# alerts:                       # secrets are references, never written here
#   - {{slack: secret://slack-webhook, on: [budget, no-capacity, interruption-storm, job-failed]}}
"""


def template(name: str = "research") -> str:
    """A commented example under this name, which runs jobs on this computer."""
    return TEMPLATE.format(name=name)
