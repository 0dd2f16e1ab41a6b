"""Counts how often a test split has decided: with each decision it is less of an unseen test.

An archive (see `components.data.spans`) keeps a file for each decision, which is never changed:

    <archive>/decisions/<digest of the test split>/<digest of the run>.json

Their number is the count. Two runs at once write two files, and a restarted run finds its own.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from core.artifacts import EXAMPLES
from core.divisions import TEST
from core.locations import create, names, reaching
from core.tables import read_table

_NAME = re.compile(r"[0-9a-f]{64}\.json")


def digest_of_test_split(examples: Path) -> str:
    """Returns a digest of the test images' ids and bytes, 64 hexadecimal digits.

    Args:
      examples: the output of `ingest`.

    Raises:
      OSError: it has no table of examples.
    """
    table = read_table(examples / EXAMPLES, columns=["id", "sha256", "split"])
    tested = table.loc[table["split"] == TEST, ["id", "sha256"]].sort_values("id")
    digest = hashlib.sha256()
    for values in tested.itertuples(index=False, name=None):
        digest.update("\0".join(values).encode() + b"\n")
    return digest.hexdigest()


def add(archive: Path, digest: str, *, run: str, decided: str, recipes: Sequence[str]) -> int:
    """Adds a decision on a test split, unless the same run has added it already.

    Args:
      archive: see `components.data.spans`.
      digest: see `digest_of_test_split`.
      run: the pipeline run's id, another one for each run.
      decided: when, as ISO 8601 in UTC.
      recipes: the candidates' names.

    Returns:
      the number of decisions by other runs. Two runs at once may each count the other.

    Raises:
      UserError: the archive cannot be read or written.
    """
    directory = archive / "decisions" / digest
    own = f"{hashlib.sha256(run.encode()).hexdigest()}.json"
    entry = {"run": run, "decided": decided, "recipes": list(recipes)}
    text = json.dumps(entry, indent=2, sort_keys=True) + "\n"
    with reaching(archive):
        with contextlib.suppress(FileExistsError):
            create(directory / own, text.encode())
        return sum(name != own for name in names(directory) if _NAME.fullmatch(name))
