"""Names and labels: within what the cloud allows, different for different text, and read back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.gcp import names

LABEL = re.compile(r"[a-z0-9_-]{0,63}")
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

machine_ids = st.from_regex(r"m-[0-9a-z]{1,38}", fullmatch=True) | st.text(max_size=80)


@given(st.text(max_size=200))
def test_any_text_becomes_a_label(text: str) -> None:
    assert LABEL.fullmatch(names.label(text))


@given(st.text(max_size=5))
def test_short_text_is_read_back(text: str) -> None:
    assert names.text_of(names.label(text)) == text


@given(st.text(max_size=120), st.text(max_size=120))
def test_labels_of_different_texts_differ(one: str, other: str) -> None:
    assert (names.label(one) == names.label(other)) == (one == other)


@pytest.mark.parametrize("text", ["fleet-a", "my fleet = x", "Ünï", "a_b", "m-01jc8q.1", ""])
def test_labels_of_usual_texts_are_read_back(text: str) -> None:
    assert names.text_of(names.label(text)) == text


@pytest.mark.parametrize("value", ["my_label", "a_zz", "_", "x" * 63, "_ff", "env_dev__x"])
def test_labels_of_others_do_no_harm(value: str) -> None:
    assert names.text_of(value)


def test_long_fleets_of_one_beginning_stay_apart() -> None:
    one, other = (names.label("f" * 100 + end) for end in "ab")
    assert one != other
    assert LABEL.fullmatch(one)


@given(machine_ids, st.integers(1, 10**9))
def test_any_key_becomes_a_name(machine_id: str, attempt: int) -> None:
    name = names.instance_name(machine_id, f"{machine_id}.{attempt}")
    assert NAME.fullmatch(name)
    assert len(name) <= 63


@given(machine_ids, machine_ids, st.integers(1, 99), st.integers(1, 99))
def test_names_of_different_keys_differ(a: str, b: str, m: int, n: int) -> None:
    one, other = names.instance_name(a, f"{a}.{m}"), names.instance_name(b, f"{b}.{n}")
    assert (one == other) == ((a, m) == (b, n))


@given(machine_ids, machine_ids, st.integers(1, 10**7))
def test_pattern_finds_all_attempts_of_its_machine_and_no_other(a: str, b: str, n: int) -> None:
    name = names.instance_name(b, f"{b}.{n}")
    assert bool(re.fullmatch(names.name_pattern(a), name)) == (a == b)


def test_usual_name_can_be_read() -> None:
    assert names.instance_name("m-01jc8q", "m-01jc8q.2") == "orchctl-m-01jc8q-2"


@pytest.mark.parametrize("text", ["", "never-was", "projects/p", "i-0abc", "zones/z/instances/n"])
def test_what_is_no_provider_id_is_none(text: str) -> None:
    assert names.Place.parse(text) is None


def test_provider_id_and_link_lead_to_the_same_place() -> None:
    place = names.Place("acme-ml", "us-east5-a", "orchctl-m-1-1")
    link = f"https://www.googleapis.com/compute/v1/{place.provider_id}"
    assert names.Place.parse(place.provider_id) == names.Place.parse(link) == place
