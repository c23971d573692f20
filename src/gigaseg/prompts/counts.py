"""What became of a slide's prompts: numbers that travel in the metadata of instance tables to summary.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FATES = {
    "objects": "objects prompted for in kept tiles",
    "instances": "objects with an instance",
    "empty": "objects whose mask is empty",
    "below_min_score": "objects whose mask has too low a score",
    "faint": "objects that hardly stand out from their surroundings",
    "repeats": "objects whose mask is that of another one with a higher score",
    "lost_to_others": "objects all of whose pixels went to masks of higher score (overlaps: exclusive)",
}
"""Counts of a batch, a shard or a slide; `objects` is the sum of the others."""


def total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of the counts of `FATES`; what a part does not name is 0."""
    found = dict.fromkeys(FATES, 0)
    for part in parts:
        for name in FATES:
            found[name] += int(part.get(name, 0))
    return found


def of_slide(shards: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of all shards as one.

    Parameters
    ----------
    shards : metadata of instance tables, whose key "prompts" holds the counts of the shard and, under "file", those of
        the prompt step, which are the slide's; shards without the key do not count. Where points were hints there are
        no objects to count, and "file" stands alone.

    Returns
    -------
    The same keys; empty when no shard has them.
    """
    found = [shard["prompts"] for shard in shards if shard.get("prompts")]
    if not found:
        return {}
    fates = total(found) if "objects" in found[0] else {}
    return {**fates, "file": found[0].get("file", {})}


def of_file(found: Mapping[str, Any]) -> dict[str, int]:
    """The report of the prompt step without the places of its examples."""
    return {name: value["count"] if isinstance(value, Mapping) else int(value) for name, value in found.items()}
