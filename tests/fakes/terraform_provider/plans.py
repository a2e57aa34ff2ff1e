"""What a resource will be after a change, as far as a schema tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tf.types import Unknown

from tests.fakes.terraform_provider.schema import Block, empty

State = dict[str, Any]


def planned(block: Block, proposed: State, prior: State | None, tags: Mapping[str, str]) -> State:
    """The state to come: what the provider chooses is unknown until the resource is made, and stays
    as it is afterwards. `tags` are those that all resources of the provider get."""
    state = _chosen_later(block, proposed) if prior is None else dict(proposed)
    if "tags_all" in state and "tags" in state:
        own = state["tags"]
        state["tags_all"] = Unknown if own is Unknown else {**tags, **(own or {})} or None
    return state


def known(block: Block, state: State, seen: Mapping[str, Any]) -> State:
    """A state with what has been seen of the resource in it, and nothing unknown any more."""
    return _complete(block, {**_each(block, state, _nothing_unknown), **seen})


def _chosen_later(block: Block, proposed: State) -> State:
    def later(name: str, value: Any) -> Any:
        return Unknown if value is None and block["attributes"][name].get("computed") else value

    state = {
        name: later(name, value) if name in block.get("attributes", {}) else value
        for name, value in proposed.items()
    }
    return _inside(block, state, _chosen_later)


def _nothing_unknown(value: Any) -> Any:
    return None if value is Unknown else value


def _each(block: Block, state: State, change: Callable[[Any], Any]) -> State:
    changed = {name: change(value) for name, value in state.items()}
    return _inside(block, changed, lambda inner, value: _each(inner, value, change))


def _complete(block: Block, state: State) -> State:
    return _inside(block, {**empty(block), **state}, _complete)


def _inside(block: Block, state: State, change: Callable[[Block, State], State]) -> State:
    """The same for all that stands in blocks of a state."""
    for name, each in block.get("block_types", {}).items():
        value = state.get(name)
        if isinstance(value, list):
            state[name] = [change(each["block"], item) for item in value]
        elif isinstance(value, dict):
            state[name] = change(each["block"], value)
    return state
