"""`orchctl up`: the embedded control plane for the person in front of it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import webbrowser
from pathlib import Path

from control_plane.api.server import spare_the_collector
from control_plane.config.load import load_text, read_text
from control_plane.local import Server, serving
from orchctl import contexts


def up(state_dir: Path, port: int, config: Path | None, open_browser: bool, public_url: str) -> int:
    """Serve until interrupted, then end what was started. Returns the exit code; raises
    `OrchctlError` when it cannot start, `ConfigError` for a document that is wrong."""
    os.umask(0o077)  # jobs' environments and files are nobody else's business
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    document = read_text(config) if config is not None else ""
    policy = load_text(document, name=str(config)) if config is not None else None
    with serving(state_dir, port=port, public_url=public_url) as server:
        _greet(server)
        if policy is not None:
            server.plane.fleet.apply(document, policy, expected_version=None, actor="up")
            _say(f"applied {config} as autoscaler {policy.name}")
        spare_the_collector()
        if open_browser:
            webbrowser.open(server.login_url)
        _until_interrupted()
        _say("ending machines; jobs that run are given back to their queues")
        left = server.end_machines()
        _say("nothing is left running" if not left else f"{left} machines did not end")
        return 1 if left else 0


def _greet(server: Server) -> None:
    contexts.add("local", server=server.url, token=server.plane.admin_token)
    _say(f"orchctl is up at {server.url}")
    _say(f"  dashboard   {server.login_url}")
    _say("  command line: context `local` is set, try `orchctl queue list`")
    _say("  Ctrl-C ends it and its machines")


def _until_interrupted() -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
