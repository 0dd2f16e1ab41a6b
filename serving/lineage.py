"""What led to a version, and which versions used an image. Each version is published with both."""

from typing import Any

from core.artifacts import CARD, DECISION, LINEAGE, MADE_WITH, VERSION
from core.errors import UserError
from core.files import read_json
from core.locations import is_remote, location, reaching
from core.tables import read_table
from serving.store import fetched, number_of


def lineage(version: str) -> dict[str, Any]:
    """Returns what led to a version.

    Args:
      version: its directory or URL.

    Returns:
      `version`, `run`, `code` and `packages` (releases), `recipe`, `seed`, `precision`,
      `starting_point`, `parent` (the version that training continued from, or None), `data` (`archive`,
      `span`, `fingerprint`, and the number of `images` it was made with), and from the gate `decided`,
      `reason`, `checks` and `decided_before` (the number of earlier decisions on its test split, or None; see
      `components.trust.decisions`).

    Raises:
      UserError: there is no such version, or an earlier release without lineage published it.
    """
    there = fetched(version)
    if not (there / LINEAGE).is_file():
        raise UserError(f"{version}: an earlier release published it without lineage")
    kept, card, decision = (read_json(there / name) for name in (LINEAGE, CARD, DECISION))
    (row,) = (row for row in decision["candidates"] if row["recipe"] == decision["winner"])
    return {
        "version": number_of(version),
        "run": kept["run"],
        "code": card["versions"]["cxrflow"],
        "packages": card["versions"],
        "recipe": card["recipe"]["name"],
        "seed": card["seed"],
        "precision": card["precision"],
        "starting_point": card["starting_point"],
        "parent": card["parent"],
        "data": {
            "archive": kept["archive"],
            "span": card["span"],
            "fingerprint": card["fingerprint"],
            "images": len(read_table(there / MADE_WITH)),
        },
        "decided": decision["decided"],
        "reason": decision["reason"],
        "checks": row["checks"],
        # Missing in versions of earlier releases.
        "decided_before": (decision.get("test_split") or {}).get("decided_before"),
    }


def version_named(store: str, name: str, number: str) -> str:
    """Returns the directory or URL of a model's version.

    Raises:
      UserError: there is no such version.
    """
    known = versions(store, name)
    for version in known:
        if int(number_of(version)) == int(number):
            return version
    there = ", ".join(map(number_of, known)) or "none yet"
    raise UserError(f"there is no version {number} of {name} in {store}; there are: {there}")


def versions(store: str, name: str) -> list[str]:
    """Returns the directories or URLs of a model's versions, the oldest first."""
    home = location(store) / name
    with reaching(home):
        if not home.is_dir():
            raise UserError(f"{home} holds no published model; give a model store with --store")
        numbers = sorted(int(entry.name) for entry in home.iterdir() if entry.name.isdigit())
        whole = [number for number in numbers if (home / str(number) / VERSION).is_file()]
    return [f"{home}/{number}" if is_remote(home) else str(home / str(number)) for number in whole]


def made_with(store: str, name: str, image: str) -> list[dict[str, str]]:
    """Returns the versions that were made with an image.

    Args:
      store, name: see `serving.store`.
      image: its id, `<source>/<path>`, the last parts of the id, or the SHA-256 of its bytes.

    Returns:
      a row for each version and image: `version`, `id`, `part`.
    """
    rows = []
    for version in versions(store, name):
        file = location(version) / MADE_WITH
        with reaching(file):
            table = read_table(file.read_bytes())
        # Compare whole names: 1.png is not 11.png.
        named = ("/" + table["id"]).str.endswith("/" + image.lstrip("/"))
        matching = table[named | (table["sha256"] == image.lower())]
        rows += [
            {"version": number_of(version), "id": row["id"], "part": row["part"]}
            for row in matching.to_dict("records")
        ]
    return rows
