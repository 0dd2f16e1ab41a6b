"""What deploying leaves behind; that a server gives the known answers is tested with the servers."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.data import spans
from components.release import deploy as module
from core import files
from core.artifacts import AUDIT, AUDIT_PAGE, CARD, KNOWN_ANSWERS, METRICS, SAVED_MODEL
from core.errors import UserError
from core.files import write_json, write_text
from serving.cluster import known_answers, rollout, state
from serving.verdict import LessTrusted

Deploy = Callable[..., str]


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Returns a deployment of a model that a run makes, exported anew each time."""
    monkeypatch.setattr(module.local, "check", lambda version: "it answers")
    monkeypatch.setattr(module.model_card, "written", lambda *_: {})
    runs = 0

    def run(
        weights: str = "one",
        gate: float = 0.7,
        kept: str = "kept",
        verdict: str = "unproven",
        **more: Any,
    ) -> str:
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
            "trust": {"verdict": verdict, "reasons": ["no adults"]} if verdict else None,
            # Of a run that is repeated, with the version that the first has published.
            "duel": {"version": str(runs)},
        }
        decision = {
            "winner": "cnn", "candidates": [row], "gate": {"default": gate}, "trust": "enforce",
        }  # fmt: skip
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
    ("error", "outcome"),
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
    outcome: str,
) -> None:
    def rolled_out(*_: object) -> None:
        if error:
            raise error

    monkeypatch.setattr(rollout, "roll_out", rolled_out)
    monkeypatch.setattr(state, "served", lambda service: None)
    archive = tmp_path / "archive"
    spans.record_outcome(archive, 3, spans.State.PASSED, "It passes.")
    with pytest.raises(type(error)) if error else contextlib.nullcontext():
        deploy(
            store=f"{bucket}/{outcome.replace(' ', '-')}",
            archive=str(archive),
            service=object(),  # not asked: `roll_out` is played
        )
    assert (spans.outcome(archive, 3) or {})["state"] == outcome


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    spans.record_outcome(tmp_path / "archive", 3, spans.State.PASSED, "It passes.")
    return tmp_path / "archive"


LESS = [("trusted", "unproven"), ("trusted", "not trusted"), ("unproven", "not trusted")]


@pytest.mark.parametrize(("first", "then"), LESS)
def test_a_less_trusted_version_does_not_replace_the_newest(
    deploy: Deploy, archive: Path, tmp_path: Path, first: str, then: str
) -> None:
    """The gate of the second run compared it with what was served hours before."""
    served = Path(deploy(verdict=first))
    report = tmp_path / "report.md"
    with pytest.raises(
        LessTrusted, match=rf"version 1, which is served and stays.* is {first}: no"
    ):
        deploy("other", verdict=then, archive=str(archive), report=report)
    assert sorted(entry.name for entry in served.parent.iterdir() if entry.name.isdigit()) == ["1"]
    outcome = spans.outcome(archive, 3) or {}
    assert outcome["state"] == spans.State.REFUSED
    assert f"the model is {then}: no adults" in outcome["reason"]
    lines = report.read_text().splitlines()
    assert "- --trust enforce: only trusted candidates that pass the gate are deployed" in lines
    assert lines[-1].startswith("- refused: deploy: the model is less trusted than version 1")
    # A version that is as trusted, or more, replaces it.
    assert Path(deploy("third", verdict=first)).name == "2"
    assert Path(deploy("fourth", verdict="trusted")).name == "3"


def test_of_two_that_deploy_at_once_the_second_is_compared_with_the_first(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparing, waiting = threading.Event(), threading.Event()
    publish = module.store.publish

    def published(*arguments: Any) -> str:
        comparing.set()
        assert waiting.wait(60), "the second deployment went ahead"
        return publish(*arguments)

    monkeypatch.setattr(module.store, "publish", published)
    monkeypatch.setattr(
        files.logger, "info", lambda text, *_: "another run" in text and waiting.set()
    )
    with ThreadPoolExecutor() as pool:
        first = pool.submit(deploy, verdict="trusted")
        assert comparing.wait(60)
        second = pool.submit(deploy, "other")
        assert Path(first.result()).name == "1"
        with pytest.raises(LessTrusted):
            second.result()


@pytest.mark.parametrize("verdict", ["", "not trusted"])
def test_a_version_without_a_verdict_is_replaced_by_any(deploy: Deploy, verdict: str) -> None:
    deploy(verdict="")
    assert Path(deploy("other", verdict=verdict)).name == "2"


@pytest.mark.parametrize(("first", "then"), LESS)
def test_a_less_trusted_version_does_not_replace_what_a_cluster_serves(
    deploy: Deploy,
    archive: Path,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    then: str,
) -> None:
    monkeypatch.setattr(rollout, "roll_out", lambda *_: None)
    monkeypatch.setattr(state, "served", lambda service: None)
    store = f"{bucket}/{first}-{then}".replace(" ", "-")
    uri = deploy(verdict=first, store=store, service=object())
    # It was gone back to: it is not the newest of the store.
    deploy("third", verdict="trusted", store=store)
    release = state.Release(version="1", uri=uri, decided="", reason="", trust="")
    monkeypatch.setattr(state, "served", lambda service: state.State(stable=release))
    with pytest.raises(LessTrusted, match=f"version 1 is {first}: no adults"):
        deploy("other", verdict=then, store=store, service=object(), archive=str(archive))
    assert (spans.outcome(archive, 3) or {})["state"] == spans.State.REFUSED
    assert deploy("other", verdict=first, store=store, service=object()) == f"{store}/cxr/3"


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
