import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer import rich_utils
from typer.testing import CliRunner

from core.errors import UserError
from pipelines import checks, cli, local_run
from pipelines.training_pipeline import training_pipeline
from tests.pipelines import cli as of_tests
from tests.pipelines.cli import cxrflow
from training.recipes import RECIPES


def commands(of: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, of
    for name, one in getattr(of, "commands", {}).items():
        yield from commands(one, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_that_is_shown_whole(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 400)
    done = CliRunner().invoke(cli.app, [*path, "--help"])
    assert done.exit_code == 0, done.exception
    assert " ".join(["Usage:", "root", *path]) in done.output
    # What stands in brackets may be lost, because it is also how styles are written.
    for option in COMMANDS[path].params:
        shown = getattr(option, "show_default", None)
        for text in (getattr(option, "help", None), shown if isinstance(shown, str) else None):
            assert (text or "") in done.output


def test_help_lists_every_command() -> None:
    text = cxrflow("--help")
    assert all(path[0] in text for path in COMMANDS if path)
    assert "Not a diagnostic device" in text
    assert "Usage: cxrflow schedule" in cxrflow("schedule", "--help")


@pytest.mark.parametrize(
    ("arguments", "module", "extras"),
    [
        (["predict", "x"], "httpx", "serving"),
        (["sample-data", "x"], "PIL", "data"),
        (["runs"], "kfp", "data,training,serving,pipelines"),
    ],
)
def test_a_missing_package_is_said_with_the_extra_that_has_it(
    arguments: list[str],
    module: str,
    extras: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = ("components", "pipelines", "serving", "training", module)
    for name in list(sys.modules):
        if name.partition(".")[0] in ours and name != cli.__name__:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys, "argv", ["cxrflow", *arguments])
    with pytest.raises(SystemExit):
        of_tests.run()
    said = capsys.readouterr().err
    assert f"`cxrflow {arguments[0]}` needs the package {module}" in said
    assert f"pip install 'cxrflow[{extras}]'" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--recipes", "vgg"],
            "unknown recipe 'vgg'; choose from coronet-4class, coronet-3class",
        ),
        (["--gate", "covid"], "'covid' in 'covid' is not NAME=NUMBER"),
        (["--gate", "covd=0.9"], "'covd' is not a class of a recipe"),
        (["--epochs", "cnn-dubey=0"], "not a whole number of at least 1"),
        (["--epochs", "five"], "example: 5, or cnn-dubey=5,default=2"),
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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What the pipeline would be given by `cxrflow run`."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(checks, "check", lambda **_: None)

    def stopped(_make: Any, arguments: Any, *_: Any, **__: Any) -> None:
        given.update(arguments)
        raise UserError("stopped")

    def begin(*arguments: str) -> dict[str, Any]:
        given.clear()
        done = CliRunner().invoke(cli.app, ["run", "--covid", "c", "--kermany", "k", *arguments])
        assert str(done.exception) == "stopped"
        return {**given}

    monkeypatch.setattr(local_run, "run", stopped)
    return begin


def test_what_run_takes_by_default_is_what_the_pipeline_does(run, tmp_path: Path) -> None:
    """What the command adds, such as checks and directories, is left out of the comparison."""
    given = run("--output", str(tmp_path))
    pipeline = training_pipeline().component_spec.inputs
    own = {"covid_directory", "kermany_directory", "archive", "store", "checkpoints", "server"}
    assert given.keys() <= pipeline.keys()
    assert {name: given[name] for name in given.keys() - own} == {
        name: pipeline[name].default for name in given.keys() - own
    }


def test_trainings_are_kept_beside_the_archive_whatever_else_is_asked(run, tmp_path: Path) -> None:
    archive = str(tmp_path / "one" / "archive")
    places = {
        run("--output", str(tmp_path / output), *more)["checkpoints"]
        for output, more in (
            ("one", ()),
            ("one", ("--recipes", "cnn-dubey", "--gate", "covid=0.5,default=0.5")),
            ("two", ("--archive", archive)),
        )
    }
    assert places == {f"{archive}/checkpoints"}
    assert run("--output", str(tmp_path / "two"))["checkpoints"] not in places


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
    assert "exists already" in error


def test_stopping_where_nothing_runs_is_no_error(tmp_path: Path) -> None:
    assert "no server is running" in cxrflow("stop", "--output", str(tmp_path))


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
    assert "different numbers of images" in error
