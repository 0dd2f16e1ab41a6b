"""A candidate is asked what is known before anyone else asks it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.release.deploy import deploy
from core.artifacts import KNOWN_ANSWERS
from core.errors import UserError
from serving import local
from serving.cluster import known_answers
from serving.cluster.known_answers import Unfit

ANSWERS = [
    {"id": "one", "image": "AAAA", "probabilities": {"covid": 0.9, "normal": 0.1}},
    {"id": "two", "image": "BBBB", "probabilities": {"covid": 0.2, "normal": 0.8}},
]


def known(body: Mapping[str, Any]) -> dict[str, Any]:
    (instance,) = body["instances"]
    (row,) = (row for row in ANSWERS if row["image"] == instance["image_bytes"]["b64"])
    return {"predictions": [{"probabilities": dict(row["probabilities"])}]}


def test_the_right_answers_are_found_right() -> None:
    said = known_answers.check(known, ANSWERS, "it")
    assert said.startswith("2 known images answered by it, at most 0.0000 off")


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        ([], "gives no answer for one"),
        ([{"probabilities": {"covid": 1.0}}], "it has the classes covid, not covid, normal"),
        (
            [{"probabilities": {"covid": 0.1, "normal": 0.9}}],
            r"covid 10.0 %.*evaluation had covid 90",
        ),
        ([{"probabilities": {"covid": np.nan, "normal": 0.1}}], "covid nan %"),
    ],
)
def test_a_wrong_answer_is_told(predictions: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(Unfit, match=words):
        known_answers.check(lambda _: {"predictions": predictions}, ANSWERS, "it")


def test_a_slow_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_answers, "SLOWEST_SECONDS", -1.0)
    with pytest.raises(Unfit, match=r"took 0\.0 s for one"):
        known_answers.check(known, ANSWERS, "it")


def test_what_evaluation_kept_is_asked_of_a_real_server(version: Path) -> None:
    answers = known_answers.read(version)
    assert len(answers) == 4  # two of each class
    assert local.check(version).startswith("4 known images answered by a server")


def test_a_model_that_answers_otherwise_is_not_published(
    model: Path, evaluation: Path, audit: Path, decision: Path, tmp_path: Path
) -> None:
    other = tmp_path / "evaluation"
    shutil.copytree(evaluation, other)
    rows = json.loads((other / KNOWN_ANSWERS).read_text())
    for row in rows:
        row["probabilities"] = {name: 1 - share for name, share in row["probabilities"].items()}
    (other / KNOWN_ANSWERS).write_text(json.dumps(rows))
    report = tmp_path / "report.md"
    with pytest.raises(UserError, match="evaluation had"):
        deploy(model, other, audit, decision, str(tmp_path / "store"), "cxrflow", report=report)
    assert not (tmp_path / "store").exists()
    assert "- ended: check: a server on this machine answers" in report.read_text()


def test_a_version_without_known_answers_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Train again"):
        known_answers.read(tmp_path)
