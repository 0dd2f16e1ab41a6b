"""How examples are distributed over TFRecord shards, and how shards are named."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

_IMAGES_PER_SHARD = 256

# Part of the shards' names: raise it when `write_shards.storable` changes, and new shards are written.
_FORMAT = 2


@dataclass(frozen=True)
class Shard:
    """Rows that are written together; `earlier` names descriptions of shards that may have some of them."""

    name: str
    split: str
    rows: list[dict[Any, Any]]
    earlier: list[str] = field(default_factory=list)

    def is_earlier(self, described: str) -> bool:
        """Returns whether a description is of an earlier shard with the same place."""
        place, _, _ = self.name.rpartition("-")
        return described.startswith(f"{place}-") and described.endswith(described_in(""))


def shards_of(rows: pd.DataFrame) -> Iterator[Shard]:
    """Yields the shards of examples; each has examples of one split and one span.

    Args:
      rows: with the columns `id`, `source`, `path`, `label`, `split`, `sha256` and `span`.
    """
    for (split, span), of_both in rows.groupby(["split", "span"]):
        # By a hash, so that all shards have the same mix of sources and labels. A power of two, so that an
        # image stays in its shard if others are withdrawn.
        count = 2 ** max(0, math.ceil(math.log2(len(of_both) / _IMAGES_PER_SHARD)))
        order = pd.util.hash_array(of_both["id"].to_numpy(dtype=object), categorize=False)
        members = of_both.assign(order=order).sort_values(["order", "id"])
        for number, of_shard in members.groupby(members["order"] % count):
            identity = json.dumps([_FORMAT, *of_shard[["id", "sha256", "label"]].values.tolist()])
            digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
            name = f"{split}-{span:05d}-{number:05d}-{digest}.tfrecord"
            yield Shard(name, str(split), of_shard.drop(columns="order").to_dict("records"))


def described_in(name: str) -> str:
    """Returns the name of a shard's description, which lists its content and shows that it is complete."""
    return f"{name}.json"
