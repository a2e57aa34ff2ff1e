"""Settings to adapters: the only place that knows them all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from agent_bootstrap.bundle import bundle, bundle_sha256
from control_plane.access.entrance import Access
from control_plane.access.oidc import Issuers
from control_plane.agents import Agents, AgentSettings
from control_plane.api.app import App, create_app
from control_plane.api.changes import Changes
from control_plane.api.deps import ApiDeps, ApiSettings
from control_plane.api.together import Together
from control_plane.blobs.local import LocalBlobs
from control_plane.clouds import Clouds, MakeClouds, real_clouds
from control_plane.core.snapshot import Timing
from control_plane.dashboard import mount
from control_plane.execute import Executor, LaunchSettings, no_checkpoint
from control_plane.fleet import Fleet
from control_plane.identity.web import Web
from control_plane.interruptions import Interruptions
from control_plane.loop import Loop, Pace
from control_plane.observe import CLOUD_CALLS, Eyes
from control_plane.ports import Provider, Store
from control_plane.preview import right_now
from control_plane.prune import Pruner
from control_plane.reconcile import Reconciler
from control_plane.service import Service
from control_plane.spending import Spending
from control_plane.stores.sqlite import SqliteStore
from control_plane.sweep import Sweeper
from control_plane.system import LivePrices, SystemClock, TimeOrderedIds
from control_plane.tokens import MachineTokens
from control_plane.webhooks.courier import Aside, Courier
from control_plane.webhooks.post import Post
from control_plane.webhooks.secrets import EnvironmentSecrets
from providers.catalog.loader import load_offers
from providers.local.provider import LocalProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """The control plane on one machine."""

    state_dir: Path
    server_url: str
    """Where people and the machines of this computer reach it."""
    public_url: str = ""
    """Where machines of clouds reach it; without one, none are launched there."""
    clouds: MakeClouds = real_clouds
    timing: Timing = field(default_factory=Timing)
    agents: AgentSettings = field(
        # A server on the same machine that stays away this long was killed, not cut off.
        default_factory=lambda: AgentSettings(contact_timeout_s=120.0)
    )
    pace: Pace = field(default_factory=lambda: Pace(at_least_s=5.0))
    """Looking costs nothing here, so it is done more often than in a cloud."""
    keep: timedelta = timedelta(days=90)
    """How long a job is remembered after its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Everything wired together, not yet running."""

    app: App
    loop: Loop
    store: Store
    service: Service
    fleet: Fleet
    local: LocalProvider
    reconciler: Reconciler
    changes: Changes
    alerts: Aside
    admin_token: str = field(repr=False)
    notices_token: str = field(repr=False)
    """Of AWS and Azure, when they tell that they take a machine."""


def embedded(
    settings: EmbeddedSettings, *, checkpoint: Callable[[str], None] = no_checkpoint
) -> ControlPlane:
    """Wire the embedded control plane over a directory; one process at a time may use it."""
    state = settings.state_dir
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = bytes.fromhex(kept_secret(state / "secret"))
    admin_token = kept_secret(state / "admin-token", prefix="orchctl_")
    notices_token = kept_secret(state / "notices-token", prefix="orchctl_notices_")
    installation = kept_secret(state / "installation", length=3)

    clock = SystemClock()
    ids = TimeOrderedIds(clock.now)
    store = SqliteStore(state / "orchctl.db")
    store.answer_abandon_all()
    local = LocalProvider(state / "machines", now=clock.now)
    public_url = settings.public_url.rstrip("/")
    clouds = settings.clouds(public_url, clock.now) if public_url else Clouds()
    providers: Mapping[str, Provider] = {**clouds.providers, "local": local}
    prices = LivePrices(providers, load_offers, clock.now)
    changes = Changes()

    together = Together(store)

    def wake() -> None:
        changes.notify()
        loop.wake()

    def changed() -> None:
        # Whoever is woken looks at once, and must see what has changed.
        together.afterwards(wake)

    service = Service(store, prices, clock, ids, changed)
    fleet = Fleet(service)
    tokens = MachineTokens(secret)
    blobs = LocalBlobs(state / "blobs")
    pool = ThreadPoolExecutor(CLOUD_CALLS, thread_name_prefix="cloud")
    eyes = Eyes(
        store=store,
        providers=providers,
        prices=prices,
        spending=Spending(store),
        ids=ids,
        timing=settings.timing,
        pool=pool,
    )
    executor = Executor(
        service,
        providers,
        tokens,
        LaunchSettings(
            server_url=settings.server_url, public_url=public_url, agent_sha256=bundle_sha256()
        ),
        settings.timing,
        pool,
        checkpoint,
    )
    cursor_secret = hashlib.sha256(b"cursors" + secret).digest()
    courier = Courier(store, clock, EnvironmentSecrets(), Post(local=True), secret=cursor_secret)
    alerts = Aside(courier)
    reconciler = Reconciler(
        service,
        eyes,
        executor,
        # A restart takes its own lease up again at once; two processes at a time are kept apart by
        # the lock on the directory (`control_plane/local.py`).
        owner=f"embedded-{installation}",
        installation=f"orchctl-{installation}",
        reachable_since=clock.now(),
        send=alerts.attend,
        checkpoint=checkpoint,
    )
    pruner = Pruner(store, blobs, clock, keep=settings.keep)
    sweeper = Sweeper(service, providers, reconciler.fleet)

    def tidy() -> None:
        pruner.prune()
        sweeper.sweep()

    loop = Loop(reconciler, settings.pace, tidy)
    app = create_app(
        ApiDeps(
            store=store,
            blobs=blobs,
            clock=clock,
            service=service,
            agents=Agents(
                service, blobs, tokens, settings.timing, settings.agents, clouds.verifiers
            ),
            fleet=fleet,
            access=Access(
                store,
                clock,
                ids,
                # Its own: questions about CI systems take no room from those about machines.
                Issuers(Web(), clock.now),
                secret=secret,
            ),
            interruptions=Interruptions(service, clouds.sources),
            prices=prices,
            settings=ApiSettings(
                server_id=installation,
                admin_token_hash=hashlib.sha256(admin_token.encode()).hexdigest(),
                notices_token_hash=hashlib.sha256(notices_token.encode()).hexdigest(),
                cursor_secret=cursor_secret,
                version=version("orchctl"),
                installation=f"orchctl-{installation}",
                allowed_hosts=("127.0.0.1", "localhost", "[::1]", *_host(public_url)),
            ),
            bundle=bundle,
            preview=lambda policy: right_now(eyes, clock, policy),
            together=together,
            changes=changes,
            loop=reconciler.figures,
            mount_dashboard=mount,
        )
    )
    return ControlPlane(
        app=app,
        loop=loop,
        store=store,
        service=service,
        fleet=fleet,
        local=local,
        reconciler=reconciler,
        changes=changes,
        alerts=alerts,
        admin_token=admin_token,
        notices_token=notices_token,
    )


def _host(url: str) -> Sequence[str]:
    """The host of an address, as one may stand in a list of them."""
    return [host] if (host := urlsplit(url).hostname) else []


def kept_secret(path: Path, *, length: int = 32, prefix: str = "") -> str:
    """A random text of `length` bytes in hex that stays the same over restarts, readable by its
    owner only."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    fresh = prefix + secrets.token_hex(length)
    # Written aside and linked: a crash leaves the whole file or none, two starts agree on one.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(fresh)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        return path.read_text().strip()
    finally:
        aside.unlink()
    return fresh
