"""Proves when each of the machine's own timers is over, on a clock set by hand."""

from __future__ import annotations

from dataclasses import dataclass

from agent_bootstrap.idle import Timers
from agent_bootstrap.wire import Advice

ADVICE = Advice(idle_timeout_s=10, contact_timeout_s=20, max_lifetime_s=100)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def timers(clock: Clock) -> Timers:
    return Timers(clock, boot_timeout_s=5, max_lifetime_s=90)


def registered(clock: Clock) -> Timers:
    made = timers(clock)
    made.registered(ADVICE)
    return made


def test_boot_time_ends_with_registration() -> None:
    clock = Clock()
    made = timers(clock)
    clock.now += 4.9
    assert not made.boot_over()
    clock.now += 0.1
    assert made.boot_over()
    made.registered(ADVICE)
    assert not made.boot_over()


def test_contact_counts_from_registration_and_from_each_answer() -> None:
    clock = Clock()
    made = timers(clock)
    clock.now += 50
    assert not made.contact_lost()
    made.registered(ADVICE)
    clock.now += 19
    assert not made.contact_lost()
    made.heard()
    clock.now += 19
    assert not made.contact_lost()
    clock.now += 1
    assert made.contact_lost()


def test_idle_time_counts_from_the_end_of_the_last_job() -> None:
    clock = Clock()
    made = registered(clock)
    assert made.idle_left_s() == 10
    made.busy()
    clock.now += 1000
    assert made.idle_left_s() == float("inf")
    made.idle()
    clock.now += 9
    assert made.idle_left_s() == 1


def test_a_negative_idle_time_means_stay() -> None:
    made = registered(Clock())
    made.advice = Advice(idle_timeout_s=-1)
    assert made.idle_left_s() == float("inf")


def test_of_two_life_limits_the_shorter_counts() -> None:
    clock = Clock()
    made = registered(clock)
    clock.now += 89
    assert not made.life_over()
    clock.now += 1
    assert made.life_over()
    made = registered(clock)
    made.advice = Advice(max_lifetime_s=7)
    clock.now += 7
    assert made.life_over()
