import inspect
from pathlib import Path

import pytest

from components.rules import GATE
from components.sources.covid_chestxray import FRONTAL_VIEWS
from pipelines import cli
from tests.pipelines.cli import cxrflow
from training.recipes import CANDIDATES, RECIPES

COMMANDS = (
    "run", "recipes", "reproduce", "pretrain", "predict", "serve", "stop", "compile", "sample-data",
)  # fmt: skip


def test_help_lists_every_command() -> None:
    text = cxrflow("--help")
    assert all(command in text for command in COMMANDS)
    assert "Not a diagnostic device" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert "Usage: cxrflow " + command in cxrflow(command, "--help")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--recipes", "vgg"],
            "there is no recipe 'vgg'; there are coronet-4class, coronet-3class",
        ),
        (["--gate", "covid"], "'covid' in 'covid' is not NAME=NUMBER"),
        (["--gate", "covd=0.9"], "'covd' is no class of a recipe and no rule"),
        (["--epochs", "cnn-dubey=0"], "no number of epochs"),
        ([], "looked for metadata.csv in"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    sources = ["--covid", str(tmp_path / "no"), "--kermany", str(tmp_path / "no")]
    error = cxrflow("run", *sources, "--output", str(tmp_path / "out"), *arguments, fails=True)
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_what_run_takes_by_default_is_what_the_steps_do() -> None:
    """The command line repeats some defaults, for importing the steps would slow every command."""
    parameters = inspect.signature(cli.run).parameters
    assert parameters["gate"].default == GATE
    assert parameters["recipes"].default == ",".join(CANDIDATES)
    assert parameters["views"].default == ",".join(FRONTAL_VIEWS)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    error = cxrflow("--debug", "predict", "image.png", "--output", str(tmp_path), fails=True)
    assert "Traceback" in error
    assert "no server was started" in error


def test_a_missing_option_is_an_error() -> None:
    assert "Missing option" in cxrflow("run", fails=True)


def test_serving_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    assert (
        "holds no published model" in cxrflow("serve", str(tmp_path), fails=True).splitlines()[-1]
    )


def test_sample_data_never_overwrites(tmp_path: Path) -> None:
    cxrflow("sample-data", str(tmp_path / "data"), "--patients", "10")
    error = cxrflow("sample-data", str(tmp_path / "data"), fails=True)
    assert "is there already" in error


def test_stopping_where_nothing_runs_is_no_error(tmp_path: Path) -> None:
    assert "no server runs" in cxrflow("stop", "--output", str(tmp_path))


def test_recipes_are_listed_with_what_they_are() -> None:
    text = cxrflow("recipes")
    assert all(name in text for name in RECIPES)
    assert "33,969,964" in text
    assert "10.1016/j.cmpb.2020.105581" in text


def test_recipes_of_two_protocols_are_not_reproduced_together(tmp_path: Path) -> None:
    sources = ["--covid", str(tmp_path), "--kermany", str(tmp_path)]
    error = cxrflow("reproduce", "cnn-dubey,soares-vgg16", *sources, fails=True)
    assert "recipes of one protocol" in error


def test_recipes_of_two_subsets_are_not_drawn_together(tmp_path: Path) -> None:
    sources = ["--covid", str(tmp_path), "--kermany", str(tmp_path)]
    error = cxrflow(
        "reproduce", "coronet-4class,coronet-3class", *sources, "--subset", "paper", fails=True
    )
    assert "other numbers of images" in error
