"""Start the agent: `python agent.pyz --server URL --machine ID --token-file FILE`, or with
`--cloud NAME` in place of the token on a machine that can prove who it is. Where `--machine` is
empty, which it may be at AWS, the machine's own tag tells.

Every flag may come from the environment instead. The one-time token comes only from a file, which
is removed as soon as it is read, so it stands in no process list and no environment.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, List, Optional

from agent_bootstrap.interruption import CLOUDS, METADATA_URL, watcher
from agent_bootstrap.shutdown import end_machine
from agent_bootstrap.worker import Identity, Worker

log = logging.getLogger(__name__)

ASK_AGAIN_S = 2.0


def main(arguments: Optional[List[str]] = None) -> None:
    """Run the agent until its machine ends; exits the process."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.cloud == "local" and not options.token_file:
        parser.error("a local machine needs --token-file")
    if options.cloud != "aws" and not options.machine:
        parser.error("only a machine of AWS can tell its --machine by itself")
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    directory = Path(options.dir).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    identity = Identity(
        machine_id=options.machine or _machine(options.metadata, options.boot_timeout),
        token=_take_token(Path(options.token_file)) if options.token_file else "",
        directory=directory,
        cache=Path(options.cache).expanduser().resolve(),
        boot_timeout_s=options.boot_timeout,
        max_lifetime_s=options.max_lifetime,
        version=options.version,
        cloud=options.cloud,
        metadata_url=options.metadata,
    )
    worker = Worker(identity, options.server, watcher(options.cloud, directory, options.metadata))
    end_machine(identity.machine_id, worker.run())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agent.pyz", description="Pull jobs and run them here.")

    def add(flag: str, text: str, default: Optional[str] = None, **more: Any) -> None:
        name = "ORCHCTL_" + flag[2:].upper().replace("-", "_")
        value = os.environ.get(name) or default
        parser.add_argument(
            flag, default=value, required=value is None, help="%s [%s]" % (text, name), **more
        )

    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "orchctl", "environments")
    add("--server", "address of the control plane")
    add("--machine", "the machine's id")
    add("--cloud", "whose machine this is", "local", choices=CLOUDS)
    add("--token-file", "file with the one-time token; it is read and removed", "")
    add("--metadata", "address of the cloud's metadata service", METADATA_URL)
    add("--dir", "directory to work in", ".")
    add("--cache", "directory of Python environments, shared by the agents of this host", cache)
    add("--boot-timeout", "seconds to register in", "600", type=float)
    add("--max-lifetime", "seconds to live at most", "86400", type=float)
    add("--version", "version of this program, as told to the control plane", "source")
    return parser


def _machine(metadata_url: str, patience_s: float) -> str:
    # Read here: a machine that is told its id knows nothing of clouds.
    from agent_bootstrap.identity import machine_of_tag

    until = time.monotonic() + patience_s
    while True:
        try:
            return machine_of_tag(metadata_url)
        except (OSError, ValueError) as error:
            if time.monotonic() >= until:
                sys.exit("this machine does not learn its id: %s" % error)
            log.info("no id of this machine yet: %s", error)
        time.sleep(ASK_AGAIN_S)


def _take_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
        path.unlink()
    except OSError as error:
        sys.exit("the token file cannot be read and removed: %s" % error)
    return token


if __name__ == "__main__":
    main()
