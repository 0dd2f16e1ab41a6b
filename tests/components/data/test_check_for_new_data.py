from pathlib import Path
from typing import Any

import pytest

from components.data import spans
from components.data.check_for_new_data import check_for_new_data
from components.data.choose_to_train import choose_to_train
from components.data.ingest import ingest
from components.steps import check_for_new_data_step
from core.artifacts import COMPARISONS, NewData, ToTrain
from core.errors import UserError
from core.files import write_json
from tests.datasets import covid_row, draw, write_datasets, write_metadata


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    return write_datasets(tmp_path)


@pytest.fixture
def archive(sources: tuple[Path, Path], tmp_path: Path) -> Path:
    """An archive with a span of the sources, of which nothing has come yet."""
    ingest(*sources, tmp_path / "first", archive=tmp_path / "archive")
    return tmp_path / "archive"


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    """The output of `validate` where nothing has drifted."""
    write_json(tmp_path / "validation" / COMPARISONS, [])
    return tmp_path / "validation"


def grow(covid: Path) -> None:
    draw(covid / "images" / "new.png", 77)
    rows = [covid_row(number) for number in range(12)]
    write_metadata(covid, [*rows, covid_row(12, filename="new.png")])


def test_without_an_archive_or_a_span_all_is_new(
    sources: tuple[Path, Path], tmp_path: Path
) -> None:
    assert check_for_new_data(*sources, None) == NewData.NEW
    assert check_for_new_data(*sources, tmp_path / "archive") == NewData.NEW


@pytest.mark.parametrize(
    ("state", "check"),
    [
        (None, NewData.NEW),
        (spans.State.WAITS, NewData.NOTHING),
        (spans.State.REFUSED, NewData.NOTHING),
        (spans.State.PASSED, NewData.NEW),
        (spans.State.DEPLOYED, NewData.NOTHING),
        (spans.State.ROLLED_BACK, NewData.NOTHING),
    ],
)
def test_a_span_is_settled_unless_what_passed_was_not_deployed(
    sources: tuple[Path, Path], archive: Path, state: str | None, check: str
) -> None:
    if state:
        spans.record_outcome(archive, 1, state, "Why.")
    assert check_for_new_data(*sources, archive) == check
    grow(sources[0])
    assert check_for_new_data(*sources, archive) == NewData.NEW


def test_what_passed_and_was_not_deployed_is_trained_again_also_when_more_has_come(
    sources: tuple[Path, Path], archive: Path, validation: Path, tmp_path: Path
) -> None:
    spans.record_outcome(archive, 1, spans.State.PASSED, "It passes.")
    said = (
        ToTrain.TRAIN,
        "A candidate of span 1 passed the gate and was not deployed: it is tried again.",
    )
    assert choose_to_train(tmp_path / "first", validation, archive, 20) == said
    grow(sources[0])
    ingest(*sources, tmp_path / "second", archive=archive)
    assert choose_to_train(tmp_path / "second", validation, archive, 20) == said
    spans.record_outcome(archive, 1, spans.State.DEPLOYED, "Served.")
    assert choose_to_train(tmp_path / "first", validation, archive, 20)[0] == ToTrain.WAIT
    choice, why = choose_to_train(tmp_path / "second", validation, archive, 20)
    assert (choice, why[:20]) == (ToTrain.WAIT, "1 images of covid ar")
    assert check_for_new_data(*sources, archive) == NewData.NOTHING


def test_that_models_were_trained_is_not_forgotten(archive: Path) -> None:
    spans.record_outcome(archive, 1, spans.State.DEPLOYED, "Served.")
    spans.record_outcome(archive, 1, spans.State.WAITS, "Nothing is new.")
    assert spans.outcome(archive, 1) == {
        "state": spans.State.DEPLOYED,
        "trained": True,
        "reason": "Served.",
    }
    spans.record_outcome(archive, 1, spans.State.PASSED, "Trained once more.")
    assert (spans.outcome(archive, 1) or {})["state"] == spans.State.PASSED


def test_an_outcome_of_before_there_were_states_is_settled(
    sources: tuple[Path, Path], archive: Path
) -> None:
    old = {"trained": True, "reason": "It passes."}
    write_json(archive / "spans" / "00001.outcome.json", old)
    assert check_for_new_data(*sources, archive) == NewData.NOTHING


def test_a_value_that_is_not_used_makes_no_span_and_is_new_once(
    sources: tuple[Path, Path], tmp_path: Path
) -> None:
    covid, archive = sources[0], tmp_path / "archive"
    rows = [covid_row(number) for number in range(12)]
    ct, gone = covid_row(12, modality="CT"), covid_row(13)  # the file of neither is there
    write_metadata(covid, [*rows, ct, gone])
    ingest(*sources, tmp_path / "first", archive=archive)
    spans.record_outcome(archive, 1, spans.State.REFUSED, "None passes.")
    assert check_for_new_data(*sources, archive) == NewData.NOTHING
    for changed in ([{**ct, "age": "61"}, gone], [ct, {**gone, "age": "61"}]):
        write_metadata(covid, [*rows, *changed])
        assert check_for_new_data(*sources, archive) == NewData.NEW
        summary = ingest(*sources, tmp_path / "again", archive=archive)
        assert summary["span"]["number"] == 1
        assert check_for_new_data(*sources, archive) == NewData.NOTHING
    write_metadata(covid, [covid_row(0, age="61"), *rows[1:], ct, gone])
    assert ingest(*sources, tmp_path / "again", archive=archive)["span"]["number"] == 2


@pytest.mark.parametrize("if_new", [False, True])
def test_a_missing_external_source_ends_a_run_at_its_beginning(
    tmp_path: Path, if_new: bool
) -> None:
    with pytest.raises(UserError, match="clinic"):
        step(tmp_path, if_new=if_new, external=[f"clinic={tmp_path / 'images.csv'}"])


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ({"gate": "covid=lots"}, "gate.*lots"),
        ({"trust": "enforced"}, "unknown 'enforced'; choose 'enforce' or 'flag'"),
        ({"recipes": ["coronet"]}, "unknown recipe 'coronet'"),
        ({"epochs": "cnn-dubey=0"}, "epochs"),
    ],
)
def test_what_someone_types_in_kubeflows_page_is_checked_at_a_runs_beginning(
    tmp_path: Path, typed: dict[str, Any], error: str
) -> None:
    assert step(tmp_path) == NewData.NEW
    with pytest.raises(UserError, match=error):
        step(tmp_path, **typed)


def step(directory: Path, **typed: Any) -> str:
    """Runs the step as a run does by default, with what was typed instead."""
    given = {
        "covid_directory": str(directory), "kermany_directory": str(directory), "views": [],
        "archive": "", "if_new": False, "sources": [], "external": [], "recipes": ["cnn-dubey"],
        "epochs": "", "gate": "covid=0.8", "trust": "flag",
    }  # fmt: skip
    return str(check_for_new_data_step.python_func(**{**given, **typed}))
