"""What is wrong is said before anything runs: `cxrflow` in this process, its pipelines not to be reached."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.data import spans
from components.data.ingest import ingest
from components.data.sources.covid_chestxray import MASKS
from core.errors import UserError
from pipelines import auditing, checks, cli, local_run
from tests.api import served
from tests.datasets import covid_row, draw, write_datasets, write_metadata
from training import start_weights

Said = Callable[..., str]
require_imagenet = start_weights._require_imagenet


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Both datasets, with lung masks, as options."""
    covid, kermany = write_datasets(tmp_path)
    for number in range(6):
        draw(covid / MASKS / f"c{number}_mask.png", number)
    return {"--covid": str(covid), "--kermany": str(kermany)}


@pytest.fixture
def said(data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Returns a runner of a command on `data` with changes, to its error, or `it would run`."""

    def would_run(*_: object, **__: object) -> None:
        raise UserError("it would run")

    monkeypatch.setattr(local_run, "run", would_run)
    monkeypatch.setattr(auditing, "audit", would_run)
    monkeypatch.setattr(auditing, "learn_lungs", would_run)
    # As if ImageNet's weights were there.
    monkeypatch.setattr(start_weights, "_require_imagenet", lambda recipe: None)

    def run(command: str, *arguments: str, **changes: str) -> str:
        options = {**data, **{f"--{name}": value for name, value in changes.items()}}
        options["--output"] = str(tmp_path / "out")
        texts = [text for pair in options.items() for text in pair]
        done = CliRunner().invoke(cli.app, [command, *arguments, *texts])
        assert isinstance(done.exception, UserError), done.output
        assert not (tmp_path / "out").exists()
        return str(done.exception)

    return run


RUN, LUNGS = ("run",), ("lungs",)
REPRODUCE, PRETRAIN = ("reproduce", "cnn-dubey"), ("pretrain", "soares-vgg16", "--target", "new")


@pytest.fixture
def version(tmp_path: Path) -> tuple[str, str]:
    """The audit of a version."""
    (tmp_path / "version").mkdir()
    (tmp_path / "version" / "manifest.json").write_text("{}")
    return "audit", str(tmp_path / "version")


@pytest.mark.parametrize("command", [RUN, LUNGS, REPRODUCE, PRETRAIN, None])
def test_wrong_datasets_are_seen_by_every_command(
    said: Said, version: tuple[str, str], tmp_path: Path, command: tuple[str, ...] | None
) -> None:
    command = command or version
    assert said(*command) == "it would run"
    assert "looked for metadata.csv in" in said(*command, covid=str(tmp_path))
    assert "looked for train/NORMAL" in said(*command, kermany=str(tmp_path))
    views = said(*command, views="PAA")
    assert "none of the 12 images in" in views
    assert "can be used, e.g. because view 'PA' was not asked for" in views


@pytest.mark.parametrize("command", [RUN, LUNGS, REPRODUCE, PRETRAIN, None])
def test_datasets_without_images_are_seen(
    said: Said, version: tuple[str, str], data: dict[str, str], command: tuple[str, ...] | None
) -> None:
    for image in Path(data["--kermany"]).glob("*/NORMAL/*"):
        image.unlink()
    error = said(*(command or version))
    assert "no usable image is labelled normal: of the " in error
    shutil.rmtree(Path(data["--covid"], "images"))
    assert "labelled covid, normal" in said(*(command or version))


def test_numbers_that_a_library_would_refuse_later_are_seen(said: Said) -> None:
    assert "2-fold" in said(*PRETRAIN, folds="1") or "<N>-fold" in said(*PRETRAIN, folds="1")
    assert said("run", seed=str(2**32 - 2)) == "it would run"


@pytest.mark.parametrize("command", [RUN, LUNGS, None])
def test_missing_lung_masks_are_seen_where_lungs_are_learnt(
    said: Said, version: tuple[str, str], data: dict[str, str], command: tuple[str, ...] | None
) -> None:
    for mask in list(Path(data["--covid"], MASKS).iterdir())[:2]:
        mask.unlink()
    assert "has masks for 4 usable images" in said(*(command or version))
    assert said(*REPRODUCE) == "it would run"


@pytest.mark.parametrize("command", [RUN, REPRODUCE])
def test_bad_weights_are_seen(said: Said, tmp_path: Path, command: tuple[str, ...]) -> None:
    command = ("reproduce", "soares-vgg16") if command == REPRODUCE else RUN
    more = {"recipes": "soares-vgg16"} if command == RUN else {}
    assert "there is no file imagnet" in said(*command, **more, weights="imagnet")
    wrong = tmp_path / "x.weights.h5"
    wrong.write_text("<html>")
    assert "it is not HDF5" in said(*command, **more, weights=str(wrong))
    wrong.write_bytes(b"\x89HDF\r\n\x1a\n")
    assert said(*command, **more, weights=str(wrong)) == "it would run"
    for name in ("notes.txt", "weights.hdf5"):
        (tmp_path / name).write_text("text")
        assert "it is not HDF5" in said(*command, **more, weights=str(tmp_path / name))
    made = tmp_path / "made"
    made.mkdir()
    (made / "base.weights.h5").write_bytes(wrong.read_bytes())
    (made / "pretraining.json").write_text(json.dumps({"base": "xception"}))
    assert "needs vgg16" in said(*command, **more, weights=str(made))


@pytest.mark.parametrize("command", [RUN, REPRODUCE])
def test_weights_that_cannot_be_downloaded_are_seen(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    command = ("reproduce", "coronet-4class") if command == REPRODUCE else RUN
    monkeypatch.setattr(start_weights, "_require_imagenet", require_imagenet)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    nobody, name = "http://localhost:1", "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    monkeypatch.setattr(start_weights, "_SERVER", nobody)
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / name).write_bytes(b"half")
    error = said(*command)
    assert f"coronet-4class cannot start from 'imagenet': {nobody}/xception/{name}" in error
    assert "`cxrflow pretrain` made, or 'none'" in error
    assert said(*command, weights="none") == "it would run"
    whole = {"xception": ("xception", hashlib.md5(b"half").hexdigest())}
    with monkeypatch.context() as patch:
        patch.setattr(start_weights, "_DIRECTORY_AND_MD5", whole)
        assert said(*command) == "it would run"
    with served(lambda _: b"") as url:
        monkeypatch.setattr(start_weights, "_SERVER", url)
        assert said(*command) == "it would run"


def test_weights_do_not_matter_to_what_is_trained_from_scratch(said: Said) -> None:
    assert said("run", recipes="cnn-dubey", weights="imagnet") == "it would run"


def test_recipes_are_named_once_and_at_least_one(said: Said) -> None:
    assert "recipes: name at least one" in said("run", recipes=" , ")
    assert "recipes: name at least one" in said("reproduce", ",")
    assert "named more than once" in said("run", recipes="cnn-dubey,cnn-dubey")


def test_a_gate_that_no_recipe_can_meet_is_seen(said: Said) -> None:
    gate = "covid=0.9,viral-low=0.5"
    error = said("run", recipes="cnn-dubey,soares-vgg16", gate=gate)
    assert "gate: no recipe has all of the classes covid, viral: cnn-dubey" in error
    assert said("run", recipes="cnn-dubey,coronet-4class", gate=gate) == "it would run"


def test_a_source_that_cannot_be_read_is_seen(said: Said, tmp_path: Path) -> None:
    file = tmp_path / "images.csv"
    file.write_text("path,label,patient\na.png,normal,\n")
    assert "1 of 1 rows" in said("run", source=f"clinic={file}")
    assert "none of the 1 images" in said("run", external=f"clinic={file}")
    draw(tmp_path / "a.png", 1)
    assert said("run", external=f"clinic={file}") == "it would run"
    assert "there is no" in said("run", external=f"clinic={tmp_path / 'no.csv'}")
    file.write_text("path,label\n")
    assert "none of the 0 images" in said("run", external=f"clinic={file}")
    file.write_text(f"path,label\n{file.with_name('1.png').name},todo\n")
    draw(file.with_name("1.png"), 1)
    assert "no image in" in said("run", external=f"clinic={file}")
    assert "has no images in folders" in said("lungs", source=rf"x={tmp_path / 'no'},patient=(\d)")


def test_a_model_a_schema_and_a_target_are_seen(said: Said, tmp_path: Path) -> None:
    assert "holds no published model" in said("audit", str(tmp_path))
    assert "schema: there is no" in said("run", schema=str(tmp_path / "no.pbtxt"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    error = said("pretrain", "soares-vgg16", target=str(tmp_path / "mine"))
    assert "holds something else, which is not overwritten" in error
    assert "from scratch, as published" in said("pretrain", "cnn-dubey", target=str(tmp_path / "x"))


def test_an_archive_of_another_seed_is_seen(
    said: Said, data: dict[str, str], tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    ingest(Path(data["--covid"]), Path(data["--kermany"]), tmp_path / "x", archive=archive)
    assert spans.newest(archive)
    assert "was begun with --seed 0" in said("run", archive=str(archive), seed="1")
    assert said("run", archive=str(archive)) == "it would run"


def test_places_in_an_object_store_are_looked_at(bucket: str, data: dict[str, str]) -> None:
    from core.locations import location

    def check(place: str, **more: str) -> None:
        checks.check(
            covid_directory=f"{place}/covid",
            kermany_directory=f"{place}/kermany",
            views=["PA"],
            needs_lungs=True,
            **more,
        )

    here = f"{bucket}/checks"
    with pytest.raises(UserError, match=r"looked for metadata\.csv in s3://cxrflow/checks/covid"):
        check(here)
    for root in (Path(data["--covid"]), Path(data["--kermany"])):
        for file in root.rglob("*"):
            if file.is_file() and file.suffix != ".jpeg":
                (location(here) / file.relative_to(root.parent)).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="looked for train/NORMAL"):
        check(here)
    (location(here) / "kermany/train/NORMAL/IM-0001-0001.jpeg").write_bytes(b"x")
    check(here, archive=f"{here}/archive", store=f"{here}/store")
    with pytest.raises(UserError, match=r"in s3://nowhere/covid, found none"):
        check("s3://nowhere")
    with pytest.raises(UserError, match="holds no published model"):
        check(here, model=f"{here}/store/cxrflow/1")


def test_all_images_left_out_are_seen(said: Said, data: dict[str, str]) -> None:
    write_metadata(Path(data["--covid"]), [covid_row(0, finding="todo")])
    assert "none of the 1 images" in said("run")


def test_a_store_that_cannot_be_written_is_seen_before_a_training(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    error = said("run", store=str(tmp_path / "file" / "store"))
    assert f"{tmp_path / 'file'} is not a directory; choose another with --store" in error
    # Root may write everywhere.
    monkeypatch.setattr(checks.os, "access", lambda place, mode: False)
    assert f"because {tmp_path} is not writable" in said("run", store=str(tmp_path / "store"))


def test_an_archive_without_data_is_no_archive(
    said: Said, version: tuple[str, str], tmp_path: Path
) -> None:
    assert "holds no data; `cxrflow run --archive` makes one" in said(
        *version, archive=str(tmp_path / "typo")
    )
