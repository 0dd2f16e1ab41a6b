import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components import deploy as module
from components import spans
from components.answers import CARD, SAVED_MODEL
from components.deploy import deploy
from components.errors import UserError
from components.files import read_json, write_json
from components.train import train
from serving import rollout
from serving.inference_service import InferenceService
from training import export


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of the version is not started: it is taken to answer."""
    monkeypatch.setattr(module.local, "check", lambda version: "it answers")


def changed(file: Path, target: Path, **changes: Any) -> Path:
    write_json(target, {**json.loads(file.read_text()), **changes})
    return target


@pytest.mark.usefixtures("checked")
def test_a_run_that_is_repeated_finds_what_it_has_published(
    model: Path,
    evaluation: Path,
    audit: Path,
    decision: Path,
    records: Path,
    tiny_cnn,
    tmp_path: Path,
) -> None:
    store = str(tmp_path / "store")
    first = deploy(model, evaluation, audit, decision, store, "cxr", run="one")
    # As a run that is repeated makes it: exported anew, decided later and beside a champion, which it is.
    again = tmp_path / "again"
    train(tiny_cnn, records, again, model.parent / "checkpoints", precision="float32")
    changed(again / CARD, again / CARD, seconds=9999.0)
    (row,) = read_json(decision)["candidates"]
    later = changed(
        decision,
        tmp_path / "later.json",
        decided="2099-01-01T00:00:00+00:00",
        candidates=[{**row, "duel": {"version": "1"}}],
    )
    assert deploy(again, evaluation, audit, later, store, "cxr", run="two") == first
    stricter = changed(later, tmp_path / "stricter.json", gate={"default": 0.5})
    other = deploy(again, evaluation, audit, stricter, store, "cxr", run="three")
    assert Path(other).name == "2"
    # An older version is published again, for it takes the place of what came after it.
    assert Path(deploy(model, evaluation, audit, later, store, "cxr", run="four")).name == "3"
    # Weights alone make another version.
    changed(again / CARD, again / CARD, weights_digest="0" * 64)
    assert Path(deploy(again, evaluation, audit, later, store, "cxr", run="five")).name == "4"


def test_a_card_tells_the_weights(model: Path) -> None:
    digest = export.digest_of_weights(model / SAVED_MODEL)
    assert read_json(model / CARD)["weights_digest"] == digest


@pytest.mark.usefixtures("checked")
def test_what_has_come_of_the_span_is_told(
    model: Path,
    evaluation: Path,
    audit: Path,
    decision: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = tmp_path / "archive"
    of_span = shutil.copytree(model, tmp_path / "model")
    changed(model / CARD, of_span / CARD, span=3)
    service = InferenceService("cxrflow", "cxrflow")
    ended: dict[str, type[UserError]] = {}

    def rolled_out(*_: object) -> None:
        for reason, kind in ended.items():
            raise kind(reason)

    monkeypatch.setattr(rollout, "roll_out", rolled_out)
    monkeypatch.setattr(module.store, "publish", lambda candidate, store: f"{store}/cxr/1")

    def state_after(**errors: type[UserError]) -> str:
        ended.clear()
        ended.update(errors)
        spans.record_outcome(archive, 3, spans.PASSED, "It passes.")
        with contextlib.suppress(UserError):
            deploy(
                of_span, evaluation, audit, decision, "s3://store", "cxr",
                service=service, archive=str(archive),
            )  # fmt: skip
            assert not errors
        return str((spans.outcome(archive, 3) or {})["state"])

    assert state_after(away=UserError) == spans.PASSED
    assert state_after(worse=rollout.RolledBack) == spans.ROLLED_BACK
    assert state_after() == spans.DEPLOYED
