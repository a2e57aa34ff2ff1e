"""What is promised, computed from rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.peers.phases import (
    OURS_1_FULL,
    OURS_1_NORMAL,
    OURS_8_FULL,
    OURS_DEEP,
    OURS_SERVED_8_FULL,
    RAW_1_FULL,
    RAW_1_NORMAL,
    RAW_8_FULL,
)
from bench.peers.rounds import Round
from bench.peers.work import Phase

Phases = Mapping[str, Phase]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One promise: a number per round, and what it shall be over all of them."""

    name: str
    part: str
    """What `--only` may call it by, beside its name."""
    phases: tuple[str, ...]
    """What has to run for it, what is shown beside it included."""
    of: Callable[[Phases], float]
    at_least: float | None = None
    at_most: float | None = None
    over: Callable[[Iterable[float]], float] = statistics.median

    @property
    def goal(self) -> str:
        return f">= {self.at_least}" if self.at_most is None else f"<= {self.at_most}"

    def per_round(self, rounds: Sequence[Round]) -> list[float]:
        return [self.of(each.phases) for each in rounds]

    def reached(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


def rate(ours: str, theirs: str) -> Callable[[Phases], float]:
    """How many times as fast ours is."""
    return lambda phases: phases[ours].rate / phases[theirs].rate


def cpu(ours: str, theirs: str) -> Callable[[Phases], float]:
    """How many times the CPU ours takes per job."""
    return lambda phases: phases[ours].cpu_us / phases[theirs].cpu_us


def claim_p50(deep: str, shallow: str) -> Callable[[Phases], float]:
    """How many times as long a claim takes in the deep queue."""
    return lambda phases: phases[deep].claim_p50_us / phases[shallow].claim_p50_us


def slowest_ms(name: str) -> Callable[[Phases], float]:
    return lambda phases: phases[name].slowest_ms


def _against(other: str, phase: str, at_least: float) -> Figure:
    return Figure(
        name=f"vs_{other}",
        part="peers",
        phases=(OURS_SERVED_8_FULL, phase),
        of=rate(OURS_SERVED_8_FULL, phase),
        at_least=at_least,
    )


def promised(deep: str) -> Sequence[Figure]:
    """All figures; `deep` names the deep queue, such as `1m`."""
    return (
        Figure(
            name="cpu_vs_raw",
            part="cpu_vs_raw",
            phases=(OURS_1_NORMAL, RAW_1_NORMAL),
            of=cpu(OURS_1_NORMAL, RAW_1_NORMAL),
            at_most=1.5,
        ),
        Figure(
            name="rate_vs_raw_1_normal",
            part="rate_vs_raw_1",
            phases=(OURS_1_NORMAL, RAW_1_NORMAL),
            of=rate(OURS_1_NORMAL, RAW_1_NORMAL),
            at_least=0.7,
        ),
        Figure(
            name="rate_vs_raw_1_full",
            part="rate_vs_raw_1",
            phases=(OURS_1_FULL, RAW_1_FULL),
            of=rate(OURS_1_FULL, RAW_1_FULL),
            at_least=0.7,
        ),
        Figure(
            name="group_gain_8",
            part="group_gain_8",
            phases=(OURS_8_FULL, RAW_1_FULL, RAW_8_FULL),
            of=rate(OURS_8_FULL, RAW_1_FULL),
            at_least=2,
        ),
        Figure(
            name="max_ms_8",
            part="group_gain_8",
            phases=(OURS_8_FULL, RAW_8_FULL),
            of=slowest_ms(OURS_8_FULL),
            at_most=100,
            over=max,
        ),
        Figure(
            name=f"p50_{deep}_vs_20k",
            part="p50_1m_vs_20k",
            phases=(OURS_DEEP, OURS_1_NORMAL),
            of=claim_p50(OURS_DEEP, OURS_1_NORMAL),
            at_most=1.2,
        ),
        _against("postgres", "PostgreSQL, 8", 2),
        _against("procrastinate", "procrastinate, 8", 5),
        _against("pgqueuer", "PgQueuer, 8", 5),
        _against("redis", "Redis AOF always, 8", 1),
        _against("beanstalkd", "beanstalkd -f 0, 8", 1),
    )


def chosen(figures: Sequence[Figure], only: Iterable[str]) -> Sequence[Figure]:
    """The figures that go by one of these names; all when there is none. Raises `ValueError` for a
    name that nothing goes by."""
    names = set(only)
    unknown = names - {name for each in figures for name in (each.name, each.part)}
    if unknown:
        raise ValueError(f"no figure is called {', '.join(sorted(unknown))}")
    return [each for each in figures if not names or names & {each.name, each.part}]


def values(figures: Sequence[Figure], rounds: Sequence[Round]) -> Mapping[str, float]:
    """Every figure over all rounds, with `rate_vs_raw_1`: the worse of the two durabilities."""
    found = {each.name: each.over(each.per_round(rounds)) for each in figures}
    rates = [value for name, value in found.items() if name.startswith("rate_vs_raw_1_")]
    return {**found, "rate_vs_raw_1": min(rates)} if len(rates) == 2 else found
