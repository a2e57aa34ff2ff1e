"""The messages between an agent and the control plane, as both sides import them.

Each route is `POST /v1/agent/<name>` with JSON both ways, unless said otherwise. After `register`
every request carries `Authorization: Bearer <session token>`. Every message may be repeated: the
control plane answers a repeat as it answered the first. Unknown fields are ignored by both sides,
so an older agent talks to a newer control plane and the other way round.

Refusals: 401 the session is over (the agent ends its machine), 409 with problem type `stale-epoch`
(the agent kills that job and says nothing more of it), 410 the machine's record is closed (the
agent ends its machine), 5xx or no answer (repeat with backoff until the contact time-out).
"""

from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache
from typing import Any, Dict, List, Type, TypeVar, get_args, get_origin, get_type_hints

PROTOCOL = 1
"""Counts up when an older agent could no longer understand the control plane."""


@dataclass
class Hello:
    """`nonce`: ask what a machine of a cloud must put into its proof. Whether there is such a
    machine is not told."""

    machine_id: str


@dataclass
class Nonce:
    """Answer of `nonce`."""

    nonce: str
    """Ten decimal digits, good for this machine and for at least five minutes."""


@dataclass
class Found:
    """What the agent found on its machine."""

    gpus: int = 0
    gpu_name: str = ""
    gpu_memory_gib: int = 0
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0


@dataclass
class Register:
    """`register`: prove who this machine is, once, and get a session.

    The `instance` is a random name the agent makes at start: the same instance may repeat the call
    and gets the same session; a second instance of one identity is refused (409)."""

    machine_id: str
    instance: str
    proof: Dict[str, str]
    """`{"kind": "one-time", "token": …}` for local and ssh machines; those of clouds prove
    themselves (`identity.proof`): `{"kind": "aws" | "gcp" | "azure", "nonce": …}` and
    `url`, `body`, `headers` of a signed question to AWS, or Google's `token`, or Azure's
    `signature`."""
    found: Found = field(default_factory=Found)
    protocol: int = PROTOCOL
    agent_version: str = ""


@dataclass
class Advice:
    """How the agent should behave, decided by the control plane and sent with every answer."""

    beat_s: float = 30.0
    """Between two beats."""
    wait_s: float = 0.0
    """How long a claim may wait on the server for work; 0 = it answers at once."""
    poll_s: float = 5.0
    """Pause between two claims that brought nothing (the agent varies it by a fifth)."""
    idle_timeout_s: float = 300.0
    """The agent asks to leave when it has run nothing for this long; negative = stay."""
    contact_timeout_s: float = 600.0
    """The agent ends its machine when it has not reached the control plane for this long."""
    max_lifetime_s: float = 86400.0
    """The agent ends its machine this long after its start, come what may."""
    direct_above_bytes: int = 0
    """Of a larger artifact the agent asks where to put it (`Upload`); 0 = of none."""


@dataclass
class Session:
    """Answer of `register`."""

    token: str
    advice: Advice = field(default_factory=Advice)


@dataclass
class Claim:
    """`claim`: ask for work. The control plane knows what the machine has left; `limit` bounds how
    many jobs come back. Leases this machine holds but does not name in `running` are sent again: an
    answer that was lost loses no job."""

    running: List[str] = field(default_factory=list)
    """`job_id:epoch` of everything the agent has."""
    limit: int = 1


@dataclass
class SourceRef:
    """Where a job's files come from: `git` remote + commit, then the archive from
    `GET jobs/<id>/source` unpacked over it; or only the archive. The answer may be 307: a large one
    is fetched from `Location`, without the token."""

    kind: str = "none"
    remote: str = ""
    commit: str = ""
    sha256: str = ""
    """Of the archive; empty = there is none."""


@dataclass
class Work:
    """One leased job."""

    job_id: str
    epoch: int
    attempt: int
    command: str
    queue: str = ""
    name: str = ""
    env: Dict[str, str] = field(default_factory=dict)
    source: SourceRef = field(default_factory=SourceRef)
    python: str = ""
    requirements: List[str] = field(default_factory=list)
    artifacts: List[str] = field(default_factory=list)
    gpus: int = 0
    timeout_s: int = 0
    grace_s: int = 10


@dataclass
class Claimed:
    """Answer of `claim`."""

    jobs: List[Work] = field(default_factory=list)
    drain: bool = False
    """Take nothing more: finish what runs, then leave."""
    taken_in_s: float = -1.0
    """The cloud takes the machine after this long, as the control plane has heard: the same as a
    notice that the agent sees itself, and not to be reported. Negative = nothing is known of it."""
    advice: Advice = field(default_factory=Advice)


@dataclass
class Beat:
    """`beat`: still here, with these jobs."""

    running: List[str] = field(default_factory=list)
    """`job_id:epoch` of everything the agent has."""


@dataclass
class Beaten:
    """Answer of `beat`."""

    cancel: List[str] = field(default_factory=list)
    """Job ids to end: SIGTERM, the job's grace, SIGKILL; then `finish` as `cancelled`."""
    lost: List[str] = field(default_factory=list)
    """`job_id:epoch` the machine no longer holds: kill at once, report nothing."""
    drain: bool = False
    end: bool = False
    """End the machine now (after giving back what runs)."""
    taken_in_s: float = -1.0
    """As in `Claimed`."""
    advice: Advice = field(default_factory=Advice)


@dataclass
class Started:
    """`jobs/<id>/start`: the command is about to run."""

    epoch: int


@dataclass
class Upload:
    """`POST jobs/<id>/artifacts/<name>`: where to put this file, which is too large for a request.
    Each attempt asks again: an address is good for minutes."""

    epoch: int
    size_bytes: int
    sha256: str


@dataclass
class UploadTo:
    """Answer of `Upload`: PUT the raw bytes there, under these headers and without the token."""

    url: str = ""
    """Empty = to the control plane after all, as with a small one."""
    headers: Dict[str, str] = field(default_factory=dict)


@dataclass
class ArtifactRef:
    """One file already uploaded, by `PUT jobs/<id>/artifacts/<name>?epoch=E` (raw bytes) or to
    where `UploadTo` said."""

    name: str
    size_bytes: int
    sha256: str


@dataclass
class Finished:
    """`jobs/<id>/finish`: how an attempt ended. Logs were sent before by
    `POST jobs/<id>/logs?epoch=E&offset=N` (raw bytes; what is known already is skipped; the answer
    is `{"size": N}`)."""

    epoch: int
    outcome: str
    """`succeeded`, `failed`, `cancelled`; `returned` = not its fault, give it to somebody else;
    `interrupted` = the machine is being taken away."""
    exit_code: int = -1
    """Of the command; 128 + N when signal N ended it; -1 = it was never started."""
    reason: str = ""
    """For people, where the outcome alone does not say."""
    artifacts: List[ArtifactRef] = field(default_factory=list)


@dataclass
class Notice:
    """`notice`: the cloud announced that it takes this machine."""

    kind: str
    """`spot`, `maintenance` or `rebalance` (a hint only)."""
    seconds_left: float = 0.0


@dataclass
class Leave:
    """`leave`: this machine wants to end. Answer `Left`; when refused the agent stays and starts
    its idle time anew."""

    why: str
    """`idle`, `max-life`, `drained`, `interrupted`."""


@dataclass
class Left:
    """Answer of `leave`."""

    agreed: bool
    why: str = ""


M = TypeVar("M")


def dump(message: Any) -> Dict[str, Any]:
    """A message as JSON-ready data."""
    return asdict(message)


def parse(kind: Type[M], data: Dict[str, Any]) -> M:
    """JSON data as a message; unknown fields are ignored, missing ones take their default.

    Raises `ValueError` when a field without default is missing."""
    hints = _hints(kind)  # type: ignore[arg-type]
    known = {name: _value(hints[name], data[name]) for name in hints if name in data}
    try:
        return kind(**known)
    except TypeError as error:
        raise ValueError("not a %s: %s" % (kind.__name__, error)) from error


@lru_cache(maxsize=None)
def _hints(kind: Type[Any]) -> Dict[str, Any]:
    # Worked out once: it takes longer than all else of a message, and a job waits for it.
    return get_type_hints(kind)


def _value(hint: Any, data: Any) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return parse(hint, data)
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        return [_value(item, each) for each in data]
    return data
