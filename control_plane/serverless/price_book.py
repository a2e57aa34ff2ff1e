"""Today's offers, asked for by one function and read by all."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from control_plane.core.codec import from_json, to_json
from control_plane.core.model import Offer
from control_plane.core.policy import CloudPolicy, merged
from control_plane.errors import NotFound, Unavailable
from control_plane.ports import Blobs, Provider

KEY = "prices/offers.json.gz"

READ_AGAIN = timedelta(minutes=2)
"""They are asked for every few minutes; a function that lives longer reads them anew."""


class SavedPrices:
    """`ports.PriceBook` of what `save_prices` has written; before that, and for clouds that no
    document had named by then, what the provider knows without asking anybody."""

    def __init__(
        self,
        blobs: Blobs,
        providers: Callable[[], Mapping[str, Provider]],
        now: Callable[[], datetime],
    ) -> None:
        """`providers` is called when one is needed first: most of the time all is written down."""
        self._blobs = blobs
        self._providers = cache(providers)
        self._now = now
        self._due: datetime | None = None
        self._saved: Mapping[str, Sequence[Offer]] = {}

    def offers(self, clouds: Sequence[CloudPolicy]) -> Sequence[Offer]:
        self._read()
        return [offer for cloud in merged(clouds) for offer in self._of(cloud)]

    def refresh(self, clouds: Sequence[CloudPolicy]) -> None:
        """Another function asks the clouds."""

    def _of(self, cloud: CloudPolicy) -> Sequence[Offer]:
        saved = self._saved.get(repr(cloud))
        if saved is not None:
            return saved
        provider = self._providers().get(cloud.provider)
        return provider.offers([]) if provider else ()

    def _read(self) -> None:
        now = self._now()
        if self._due is not None and now < self._due:
            return
        self._due = now + READ_AGAIN
        try:
            told = _opened(self._blobs.get(KEY))
        except (NotFound, Unavailable):
            return  # what was known stays
        self._saved = {
            cloud: [from_json(Offer, each) for each in offers] for cloud, offers in told.items()
        }


def save_prices(
    blobs: Blobs, providers: Mapping[str, Provider], clouds: Sequence[CloudPolicy]
) -> Mapping[str, int | str]:
    """Ask each cloud what it sells under these settings and write it down; what does not answer
    keeps what it said last. Returns the number of offers, or what was said instead, by cloud."""
    try:
        before = blobs.get(KEY)
        told = _opened(before)
    except NotFound:
        before, told = b"", {}
    found: dict[str, int | str] = {}
    wanted = [cloud for cloud in merged(clouds) if cloud.provider in providers]
    for cloud in wanted:
        name = f"{cloud.provider} {','.join(cloud.regions)}".strip()
        try:
            offers = providers[cloud.provider].offers([cloud])
        except Exception as error:  # noqa: BLE001 - one that fails keeps its last offers
            found[name] = f"{type(error).__name__}: {error}"
        else:
            told[repr(cloud)] = [to_json(each) for each in offers]
            found[name] = len(offers)
    kept = {key: told[key] for key in map(repr, wanted) if key in told}
    text = gzip.compress(json.dumps(kept, separators=(",", ":")).encode(), mtime=0)
    if text != before:
        blobs.put(KEY, text)
    return found


def _opened(text: bytes) -> dict[str, Any]:
    """Offers by their cloud's settings, out of the file."""
    told: dict[str, Any] = json.loads(gzip.decompress(text))
    return told
