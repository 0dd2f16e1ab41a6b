"""What deploying leaves behind; that a server gives the known answers is tested with the servers."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.data import spans
from components.release import deploy as module
from core.artifacts import AUDIT, AUDIT_PAGE, CARD, KNOWN_ANSWERS, METRICS, SAVED_MODEL
from core.errors import UserError
from core.files import write_json, write_text
from serving.cluster import known_answers, rollout

Deploy = Callable[..., str]


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Returns a deployment of a model that a run makes, exported anew each time."""
    monkeypatch.setattr(module.local, "check", lambda version: "it answers")
    monkeypatch.setattr(module.model_card, "written", lambda *_: {})
    runs = 0

    def run(weights: str = "one", gate: float = 0.7, kept: str = "kept", **more: Any) -> str:
        nonlocal runs
        runs += 1
        home = tmp_path / f"run-{runs}"
        # As Keras does, in other bytes each time.
        write_text(home / "model" / SAVED_MODEL / "variables", f"{weights} in export {runs}")
        card = {"span": 3, "fingerprint": "f", "weights_digest": weights, "seconds": runs}
        write_json(home / "model" / CARD, card)
        write_json(home / "evaluation" / METRICS, {})
        write_json(home / "evaluation" / KNOWN_ANSWERS, [])
        write_json(home / "audit" / AUDIT, {})
        (home / "audit" / AUDIT_PAGE).touch()
        row = {
            "recipe": "cnn",
            "checks": [{"class": "covid", "passed": True}],
            "rules": [{"name": "leaks", "outcome": kept}],
            "trust": {"verdict": "unproven", "reasons": ["no adults"]},
            # Of a run that is repeated, with the version that the first has published.
            "duel": {"version": str(runs)},
        }
        decision = {"winner": "cnn", "candidates": [row], "gate": {"default": gate}}
        write_json(
            home / "decision", {**decision, "decided": f"2026-01-0{runs}", "reason": "It passes."}
        )
        parts = (home / "model", home / "evaluation", home / "audit", home / "decision")
        return module.deploy(
            *parts, more.pop("store", str(tmp_path / "store")), "cxr", run=str(runs), **more
        )

    return run


def test_a_run_that_is_repeated_finds_what_it_has_published(deploy: Deploy) -> None:
    first = deploy()
    assert deploy() == first
    assert Path(deploy(gate=0.6)).name == "2"
    assert Path(deploy(gate=0.6, kept="off")).name == "3"
    assert Path(deploy(weights="other")).name == "4"
    assert Path(deploy(weights="other")).name == "4"
    # An older version is published again: it takes the place of what came after it.
    assert Path(deploy()).name == "5"


def test_an_object_store_has_it_once_too(deploy: Deploy, bucket: str) -> None:
    store = f"{bucket}/repeated"
    assert deploy(store=store) == deploy(store=store) == f"{store}/cxr/1"
    assert deploy(store=store, gate=0.6) == f"{store}/cxr/2"
    assert deploy(store=store) == f"{store}/cxr/3"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, spans.State.DEPLOYED),
        (UserError("the cluster is away"), spans.State.PASSED),
        (rollout.RolledBack("it does worse"), spans.State.ROLLED_BACK),
    ],
)
def test_what_has_come_of_the_span_is_told(
    deploy: Deploy,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: UserError | None,
    state: str,
) -> None:
    def rolled_out(*_: object) -> None:
        if error:
            raise error

    monkeypatch.setattr(rollout, "roll_out", rolled_out)
    archive = tmp_path / "archive"
    spans.record_outcome(archive, 3, spans.State.PASSED, "It passes.")
    with pytest.raises(type(error)) if error else contextlib.nullcontext():
        deploy(
            store=f"{bucket}/{state.replace(' ', '-')}",
            archive=str(archive),
            service=object(),  # not asked: `roll_out` is played
        )
    assert (spans.outcome(archive, 3) or {})["state"] == state


def test_a_check_that_fails_leaves_the_span_to_be_tried_again(
    deploy: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(version: Path) -> str:
        raise known_answers.Unfit("it answers otherwise")

    monkeypatch.setattr(module.local, "check", fails)
    archive = tmp_path / "archive"
    spans.record_outcome(archive, 3, spans.State.PASSED, "It passes.")
    with pytest.raises(UserError, match="otherwise"):
        deploy(archive=str(archive))
    assert (spans.outcome(archive, 3) or {})["state"] == spans.State.PASSED
    assert not (tmp_path / "store").exists()
