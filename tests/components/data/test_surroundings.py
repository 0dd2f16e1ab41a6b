"""What is planted around the lungs is found there, and nowhere else."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.data import spans
from components.data import surroundings as module
from components.data.sources.covid_chestxray import MASKS
from components.data.surroundings import FRAME, NO_LUNGS, surroundings
from components.data.validate import _surroundings

SIDE, OF_EACH = 64, 30
LUNGS = (slice(16, 48), slice(16, 48))
Change = Callable[[np.ndarray, str], None]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[pd.DataFrame, dict[str, Path]]]:
    """Makes images of noise of covid and normal in the first source, with masks, changed as wanted."""

    def make(change: Change, seed: int = 0) -> tuple[pd.DataFrame, dict[str, Path]]:
        random = np.random.default_rng(seed)
        home = tmp_path / "covid"
        (home / "images").mkdir(parents=True)
        (home / MASKS).mkdir(parents=True)
        rows = []
        for number in range(2 * OF_EACH):
            label = ("covid", "normal")[number % 2]
            pixels = random.integers(60, 120, (SIDE, SIDE)).astype(float)
            change(pixels, label)
            path = f"images/{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(home / path)
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[LUNGS] = 255
            Image.fromarray(mask).save(home / MASKS / f"{number}_mask.png")
            rows.append(
                {
                    "id": f"covid-chestxray/{path}", "source": "covid-chestxray", "path": path,
                    "label": label, "age": 40.0, "patient": f"p{number}",
                    "sha256": hashlib.sha256(path.encode()).hexdigest(),
                    "perceptual_hash": random.bytes(32).hex(),
                }
            )  # fmt: skip
        return pd.DataFrame(rows), {"covid-chestxray": home}

    return make


def told(found: dict) -> dict[str, dict]:
    return {row["view"]: row["auc"] for row in found["rows"] if row["what"].startswith("covid")}


def test_a_frame_that_tells_the_label_is_found(made: Callable) -> None:
    def change(pixels: np.ndarray, label: str) -> None:
        pixels[:4] += 60 * (label == "covid")

    found = surroundings(*made(change))
    assert (found["images"], found["of"]) == (2 * OF_EACH, 2 * OF_EACH)
    assert told(found)[FRAME]["value"] > 0.95
    assert told(found)[NO_LUNGS]["value"] > 0.95
    # Of one source and one age group nothing else can be asked.
    assert {row["what"] for row in found["rows"]} == {"covid or another label"}


def test_a_frame_that_is_the_same_everywhere_tells_nothing(made: Callable) -> None:
    def change(pixels: np.ndarray, label: str) -> None:
        pixels[:8] = pixels[-8:] = pixels[:, :8] = pixels[:, -8:] = 0

    assert told(surroundings(*made(change)))[FRAME]["value"] == 0.5


def test_what_is_in_the_lungs_is_not_in_their_surroundings(made: Callable) -> None:
    def change(pixels: np.ndarray, label: str) -> None:
        pixels[LUNGS] += 100 * (label == "covid")

    found = told(surroundings(*made(change)))
    assert found[FRAME]["low"] < 0.5 < found[FRAME]["high"]
    assert found[NO_LUNGS]["low"] < 0.5 < found[NO_LUNGS]["high"]


def test_what_is_between_lungs_and_frame_is_told_with_the_lungs_blanked_alone(
    made: Callable,
) -> None:
    def change(pixels: np.ndarray, label: str) -> None:
        pixels[10:13, 10:54] += 80 * (label == "covid")

    found = told(surroundings(*made(change)))
    assert found[FRAME]["low"] < 0.5 < found[FRAME]["high"]
    assert found[NO_LUNGS]["value"] > 0.95


def test_copies_of_a_picture_under_other_patients_tell_nothing(made: Callable) -> None:
    """A classifier that learns one copy by heart must not be asked about another."""
    examples, directories = made(lambda pixels, label: None)
    copied = [examples]
    for copy in range(3):
        again = examples.copy()
        again["id"] += f"-{copy}"
        again["patient"] += f"-{copy}"
        copied.append(again)
    found = told(surroundings(pd.concat(copied, ignore_index=True), directories))
    assert found[FRAME]["low"] < 0.5 < found[FRAME]["high"]


def test_sources_and_ages_are_asked_about(made: Callable, tmp_path: Path) -> None:
    examples, directories = made(lambda pixels, label: None)
    examples.loc[::3, "source"] = "nih"
    examples.loc[::3, "age"] = 5
    directories["nih"] = directories["covid-chestxray"]
    found = surroundings(examples, directories)
    asked = {row["what"] for row in found["rows"] if row["view"] == FRAME}
    assert asked == {
        "covid or another label", "source covid-chestxray or another", "adult or child",
    }  # fmt: skip
    lungs = [row["images"] for row in found["rows"] if row["view"] == NO_LUNGS]
    assert lungs == [40], "the other source has no masks, so neither sources nor ages can be told"


def test_few_images_and_missing_files_say_nothing(made: Callable) -> None:
    examples, directories = made(lambda pixels, label: None)
    assert surroundings(examples.head(10), directories)["rows"] == []
    for path in examples["path"][:50]:
        (directories["covid-chestxray"] / path).unlink()
    found = surroundings(examples, directories)
    assert (found["images"], found["of"], found["rows"]) == (10, 60, [])
    assert surroundings(examples.iloc[:0], directories)["rows"] == []


def test_a_sample_has_as_many_images_of_each_source_and_label(
    made: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, _ = made(lambda pixels, label: None)
    monkeypatch.setattr(module, "_MOST_IMAGES", 12)
    examples.loc[:9, "source"] = "nih"
    sample = module._sample(examples)
    assert set(sample.groupby(["source", "label"]).size()) == {3}
    again = module._sample(examples.sample(frac=1, random_state=1))
    assert set(again["id"]) == set(sample["id"]), "whatever the order of the rows"


def test_a_span_is_looked_at_once(
    made: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, directories = made(lambda pixels, label: None)
    span = {"archive": str(tmp_path / "archive"), "number": 1}
    (tmp_path / "archive" / "spans").mkdir(parents=True)
    away = directories["covid-chestxray"] / examples["path"][0]
    away.rename(away.with_suffix(".away"))
    assert _surroundings(examples, span, directories)["unread"] == 1
    away.with_suffix(".away").rename(away)
    first = _surroundings(examples, span, directories)
    assert first["unread"] == 0, "what was incomplete is not kept"
    monkeypatch.setattr(module, "surroundings", lambda *_: pytest.fail("looked again"))
    assert _surroundings(examples, span, directories) == first
    assert spans.surroundings(tmp_path / "archive", 2) is None
