"""What people send, parsed once: unknown fields refused, every field bounded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from control_plane.api.fields import (
    LINE,
    Command,
    Disk,
    Duration,
    EnvName,
    EnvValue,
    Glob,
    Gpu,
    Id,
    LabelName,
    Line,
    Memory,
    Name,
    PythonVersion,
    Requirement,
)
from control_plane.config.units import (
    parse_disk_gib,
    parse_duration_s,
    parse_gpu_need,
    parse_memory_mib,
)
from control_plane.core.access import Federation, Grant, Role, Rule
from control_plane.core.hooks import Hook
from control_plane.core.model import JobSpec, Need, Source
from control_plane.errors import InvalidInput
from control_plane.ports import Place
from control_plane.service import Submission

DOCUMENT_MAX = 1024 * 1024
DEPENDENCIES_MAX = 100
CPUS_MAX = 4096


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


def _as_text(value: object) -> object:
    if isinstance(value, str):
        return value
    raise PydanticCustomError("moment", "write it as ISO 8601 text")


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("moment", "this is beyond the calendar") from None


Moment = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_as_text), AfterValidator(_utc)
]
Env = Annotated[dict[EnvName, EnvValue], Field(max_length=256)]


class DocumentRequest(_Input):
    """An autoscaler to apply."""

    document: Annotated[str, Field(max_length=DOCUMENT_MAX, description="The YAML text.")]


Limit = Annotated[int, Field(ge=1, le=100_000)]


class LimitsRequest(_Input):
    """How much of a queue may run at a time; null = no limit."""

    max_running: Annotated[Limit | None, Field(description="Jobs that may run at a time.")] = None
    max_running_per_owner: Annotated[
        Limit | None, Field(description="Jobs of any one owner that may run at a time.")
    ] = None


class QueueRequest(LimitsRequest):
    """A queue to create."""

    name: Name


class SourceRequest(_Input):
    """Where a job's files come from; an archive is uploaded before."""

    kind: Literal["archive", "git", "none"] = "none"
    blob: Annotated[str, Field(pattern="^(sources/[0-9a-f]{64})?$")] = ""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    # A leading dash would be read as an option by git.
    remote: Annotated[str, Field(pattern=r"^([^\x00-\x20\x7f-][^\x00-\x20\x7f]*)?$")] = Field(
        default="", max_length=2000
    )
    commit: Annotated[str, Field(pattern="^([0-9a-f]{7,64})?$")] = ""
    summary: Line = ""

    @model_validator(mode="after")
    def _complete(self) -> SourceRequest:
        if self.kind == "archive" and not self.blob:
            raise PydanticCustomError("source", "an archive needs its `blob`")
        if self.kind == "git" and not (self.remote and self.commit):
            raise PydanticCustomError("source", "git needs `remote` and `commit`")
        if self.blob and self.blob != f"sources/{self.sha256}":
            raise PydanticCustomError("source", "`blob` and `sha256` do not belong together")
        return self

    def source(self) -> Source:
        """The same as the model's noun."""
        return Source(
            kind=self.kind,
            blob=self.blob,
            sha256=self.sha256,
            remote=self.remote,
            commit=self.commit,
            summary=self.summary,
        )


class JobRequest(_Input):
    """A job to submit."""

    command: Command
    queue: Name = "default"
    name: Line = ""
    gpu: Annotated[Gpu, Field(description="`L4:1`, `H100:80GB:8`, `nvidia:24GB:1`.")] = ""
    cpu: Annotated[int, Field(ge=0, le=CPUS_MAX)] = 0
    memory: Annotated[Memory, Field(description="`16GB`.")] = ""
    disk: Annotated[Disk, Field(description="`100GB`.")] = ""
    market: Literal["", "on-demand"] = ""
    env: Env = Field(default_factory=dict)
    python: PythonVersion = ""
    requirements: Annotated[list[Requirement], Field(max_length=2000)] = Field(default_factory=list)
    artifacts: Annotated[list[Glob], Field(max_length=100)] = Field(default_factory=list)
    source: SourceRequest | None = None
    timeout: Annotated[Duration, Field(description="`2h`; empty = no limit.")] = ""
    grace: Annotated[Duration, Field(description="Between SIGTERM and SIGKILL.")] = "10s"
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 1
    max_machine_losses: Annotated[int, Field(ge=1, le=100)] = 5
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    owner: Line = ""
    labels: Annotated[dict[LabelName, Line], Field(max_length=64)] = Field(default_factory=dict)
    not_before: Annotated[Moment | None, Field(description="It waits until then.")] = None
    depends_on: Annotated[
        list[Id], Field(max_length=DEPENDENCIES_MAX, description="Jobs that must succeed first.")
    ] = Field(default_factory=list)

    def submission(self, actor: str) -> Submission:
        """The same as the service takes it; `actor` owns what names no owner."""
        return Submission(
            spec=self._spec(),
            queue=self.queue,
            name=self.name,
            owner=self.owner or actor,
            labels=self.labels,
            priority=self.priority,
            not_before=self.not_before,
            depends_on=tuple(self.depends_on),
        )

    def _spec(self) -> JobSpec:
        return JobSpec(
            command=self.command,
            need=self._need(),
            env=self.env,
            source=self.source.source() if self.source else None,
            python=self.python,
            requirements=tuple(self.requirements),
            artifacts=tuple(self.artifacts),
            timeout_s=parse_duration_s(self.timeout) if self.timeout else 0,
            grace_s=parse_duration_s(self.grace) if self.grace else 0,
            max_attempts=self.max_attempts,
            max_machine_losses=self.max_machine_losses,
        )

    def _need(self) -> Need:
        gpu_name, gpus, gpu_memory_gib = parse_gpu_need(self.gpu) if self.gpu else ("", 0, 0)
        return Need(
            gpus=gpus,
            gpu_name=gpu_name,
            gpu_memory_gib=gpu_memory_gib,
            cpus=self.cpu,
            memory_mib=parse_memory_mib(self.memory) if self.memory else 0,
            disk_gib=parse_disk_gib(self.disk) if self.disk else 0,
            on_demand_only=self.market == "on-demand",
        )


class CloneRequest(_Input):
    """What is to be different in a copy of a job."""

    set: Env = Field(default_factory=dict, description="Environment values.")
    queue: Name | None = None
    command: Command | None = None


class PositionRequest(_Input):
    """Where a waiting job is to stand."""

    place: Literal["top", "bottom", "before", "after"]
    of: Annotated[Id | None, Field(description="The job to stand before or after.")] = None
    queue: Name | None = None

    @model_validator(mode="after")
    def _complete(self) -> PositionRequest:
        if (self.place in ("before", "after")) != (self.of is not None):
            raise PydanticCustomError("place", "`of` goes with `before` and `after`")
        return self

    def wanted(self) -> Place:
        """The same as the store takes it."""
        return Place(where=self.place, job_id=self.of or "")


TokenName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}$")]
RoleName = Literal["viewer", "submitter", "operator", "admin"]
Queues = Annotated[
    list[Name | Literal["*"]],
    Field(min_length=1, max_length=100, description='Names; `["*"]` = all.'),
]
Token = Annotated[str, StringConstraints(pattern="^[!-~]+$", max_length=16 * 1024)]


class _GrantRequest(_Input):
    """A role, and the queues it is for."""

    role: RoleName
    queues: Queues

    def grant(self) -> Grant:
        """The same as the model's noun."""
        # Once each: a queue that is named twice is the same.
        return Grant(role=Role(self.role), queues=tuple(dict.fromkeys(self.queues)))


class TokenRequest(_GrantRequest):
    """A token to make."""

    name: Annotated[TokenName, Field(description="Whose it is.")]
    expires_at: Annotated[Moment | None, Field(description="null = never.")] = None


class SessionRequest(_Input):
    """What a CI system's issuer has signed."""

    token: Token


SESSION_MIN_S = 300
SESSION_MAX_S = 12 * 3600
RULES_MAX = 100
Url = Annotated[str, StringConstraints(pattern="^https?://[!-~]+$", max_length=300)]
ClaimName = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_:./-]+$", max_length=100)]
Pattern = Annotated[str, StringConstraints(pattern=LINE, min_length=1, max_length=300)]


class RuleRequest(_GrantRequest):
    """Who of an issuer may do what: every claim must match."""

    claims: Annotated[
        dict[ClaimName, Pattern | Annotated[list[Pattern], Field(min_length=1, max_length=50)]],
        Field(
            min_length=1,
            max_length=20,
            description="By name, a pattern or several. `*` is any text without a slash, `**` any.",
        ),
    ]

    def rule(self) -> Rule:
        """The same as the model's noun."""
        claims = {
            name: (each,) if isinstance(each, str) else tuple(each)
            for name, each in self.claims.items()
        }
        return Rule(claims=claims, grant=self.grant())


class FederationRequest(_Input):
    """A CI system, or another issuer of OpenID Connect tokens, whose word is taken."""

    issuer: Annotated[Url, Field(description="Exactly as its tokens name it.")]
    audience: Annotated[Pattern, Field(description="What its tokens must be made for: us alone.")]
    rules: Annotated[list[RuleRequest], Field(min_length=1, max_length=RULES_MAX)]
    session: Annotated[Duration, Field(description="`1h`; from the time the token is from.")] = "1h"
    jwks_uri: Annotated[
        Url | Literal[""], Field(description="Empty = as its discovery document says.")
    ] = ""

    def federation(self, name: str, *, now: datetime, actor: str) -> Federation:
        """The same as the model's noun. Raises `InvalidInput` for a session of no good length."""
        session_s = parse_duration_s(self.session)
        if not SESSION_MIN_S <= session_s <= SESSION_MAX_S:
            raise InvalidInput("/session: between 5 minutes and 12 hours")
        return Federation(
            name=name,
            issuer=self.issuer,
            audience=self.audience,
            rules=tuple(each.rule() for each in self.rules),
            session_s=session_s,
            jwks_uri=self.jwks_uri,
            applied_at=now,
            applied_by=actor,
        )


EventName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
_Patterns = Annotated[list[Pattern], Field(max_length=50)]


class HookRequest(_Input):
    """A webhook that comes in, and the job it starts."""

    on: Annotated[
        list[EventName],
        Field(
            min_length=1,
            max_length=50,
            description="Events, such as `push`; with their action: `release.published`.",
        ),
    ]
    repositories: _Patterns = Field(
        default_factory=list, description="`acme/vision`, `acme/*`; empty = any."
    )
    refs: _Patterns = Field(
        default_factory=list,
        description="`refs/heads/main`, `refs/tags/**`; empty = any.",
    )
    job: Annotated[
        JobRequest, Field(description="Without `source`, `owner`, `not_before` and `depends_on`.")
    ]

    @model_validator(mode="after")
    def _repeatable(self) -> HookRequest:
        for name in ("source", "owner", "not_before", "depends_on"):
            if getattr(self.job, name):
                raise PydanticCustomError(
                    "hook", "the job of a hook takes no `{name}`", {"name": name}
                )
        return self

    def hook(self, name: str, *, now: datetime, actor: str) -> Hook:
        """The same as the model's noun; `Hooks.apply` gives it its id."""
        wanted = self.job.submission("")
        return Hook(
            name=name,
            id="",
            on=tuple(self.on),
            repositories=tuple(self.repositories),
            refs=tuple(self.refs),
            queue=wanted.queue,
            spec=wanted.spec,
            job_name=wanted.name,
            labels=wanted.labels,
            priority=wanted.priority,
            applied_at=now,
            applied_by=actor,
        )
