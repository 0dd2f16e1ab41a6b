import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from components.data.ingest import ingest
from components.data.write_records import write_records
from core.divisions import divisions
from core.errors import UserError
from training import architectures, data, kept, loop, lungs
from training.recipes import recipe_named


@pytest.mark.parametrize(
    ("replicas", "batch", "rate"), [(1, 10, 1e-4), (2, 10, 1e-4), (4, 12, 1.2e-4), (16, 16, 1.6e-4)]
)
def test_every_replica_has_the_same_share_and_the_rate_follows(replicas, batch, rate) -> None:
    assert loop.scaled(recipe_named("coronet-4class"), replicas) == (batch, pytest.approx(rate))


def difference(one: loop.Trained, other: loop.Trained) -> float:
    pairs = zip(one.model.get_weights(), other.model.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


class Killed(Exception):
    pass


def kill_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    whole = loop._State.on_epoch_end

    def end(self, index, logs=None) -> None:
        whole(self, index, logs)
        if index + 1 == epoch:
            raise Killed

    monkeypatch.setattr(loop._State, "on_epoch_end", end)


def small_xception(input_tensor: keras.KerasTensor, **_: object) -> keras.Model:
    """Builds a base of Xception's kinds of layers: two of its 36 convolutions, 8 filters wide."""
    features = input_tensor
    for stride in (2, 1):
        features = keras.layers.SeparableConv2D(8, 3, stride, use_bias=False)(features)
        features = keras.layers.BatchNormalization()(features)
        features = keras.layers.Activation("relu")(features)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), features)


@pytest.mark.parametrize(
    ("name", "size", "epochs"), [("cnn-dubey", 40, 3), ("coronet-4class", 40, 3)]
)
def test_killed_and_begun_again_it_ends_with_the_same_weights(
    name: str,
    size: int,
    epochs: int,
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CoroNet has what is easily forgotten: dropout's random state, batch normalisation's averages."""
    _, scaled = architectures._APPLICATIONS["xception"]
    monkeypatch.setitem(architectures._APPLICATIONS, "xception", (small_xception, scaled))
    recipe = recipe_named(name)
    recipe = dataclasses.replace(recipe, input_size=(size, size), epochs=epochs, batch=24)
    options = {"weights": "none", "precision": "float32"}
    whole = loop.train(recipe, records, tmp_path / "whole", **options)
    for epoch in range(1, epochs):
        with monkeypatch.context() as patch:
            kill_after(patch, epoch)
            with pytest.raises(Killed):
                loop.train(recipe, records, tmp_path / "killed", **options)
    again = loop.train(recipe, records, tmp_path / "killed", **options)
    assert difference(whole, again) == 0.0
    figures = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(whole.history[figures], again.history[figures])


def trained_small(records: Path, checkpoints: Path) -> str:
    """Trains for eight epochs and returns the history as JSON."""
    recipe = dataclasses.replace(recipe_named("cnn-dubey"), input_size=(40, 40), epochs=8, batch=8)
    trained = loop.train(recipe, records, checkpoints, precision="float32")
    return trained.history.drop(columns="seconds").to_json()


PROGRAM = """
import sys
from pathlib import Path
from tests.training.test_loop import trained_small
print(trained_small(*map(Path, sys.argv[1:])))
"""


def test_a_killed_process_loses_no_whole_epoch(records: Path, tmp_path: Path) -> None:
    def start() -> subprocess.Popen:
        arguments = [sys.executable, "-c", PROGRAM, str(records), str(tmp_path / "killed")]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    process = start()
    while process.poll() is None and not list((tmp_path / "killed").glob("*/state/checkpoint")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (history,) = (tmp_path / "killed").glob("*/history.csv")
    done = len(pd.read_csv(history))
    again, _ = start().communicate()
    assert f"resuming after epoch {done} of 8" in again or f"epoch {done - 1} of 8" in again
    assert again.splitlines()[-1] == trained_small(records, tmp_path / "whole")


TWO_DEVICES = """
import sys
from pathlib import Path
import tensorflow as tf
from tests.training.test_loop import loss_curve
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
print(loss_curve(*map(Path, sys.argv[1:]), ["CPU:0", "CPU:1"]))
"""


def loss_curve(records: Path, checkpoints: Path, devices: list[str]) -> str:
    """Returns the losses of a training on devices, as JSON."""
    recipe = dataclasses.replace(recipe_named("cnn-dubey"), input_size=(40, 40), epochs=3, batch=8)
    strategy = tf.distribute.MirroredStrategy(devices)
    trained = loop.train(recipe, records, checkpoints, precision="float32", strategy=strategy)
    assert trained.replicas == len(devices)
    return trained.history[["loss", "val_loss"]].to_json(orient="values")


def test_two_devices_have_the_loss_curve_of_one(records: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", TWO_DEVICES, str(records), str(tmp_path / "two")]
    two = subprocess.check_output(arguments, text=True, stderr=subprocess.DEVNULL).splitlines()[-1]
    one = loss_curve(records, tmp_path / "one", ["CPU:0"])
    np.testing.assert_allclose(json.loads(two), json.loads(one), rtol=1e-4)


@pytest.fixture
def names(records: Path, tiny_cnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns the name under which a training would be kept."""

    class Named(Exception):
        pass

    def stop(*arguments, **options):
        raise Named(whole(*arguments, **options))

    whole = kept.training
    monkeypatch.setattr(kept, "training", stop)

    def name(records: Path = records, checkpoints: Path = tmp_path, **options) -> str:
        recipe = options.pop("recipe", tiny_cnn)
        # The precision that is chosen by itself is the processor's.
        options.setdefault("precision", "float32")
        with pytest.raises(Named) as named:
            loop.train(recipe, records, checkpoints, **options)
        return str(named.value)

    return name


def test_another_seed_division_segmenter_or_precision_starts_anew(names, tiny_cnn) -> None:
    seeing = dataclasses.replace(tiny_cnn, view="lungs")
    mixing = dataclasses.replace(tiny_cnn, mixed=True)
    different = [
        names(),
        names(seed=1),
        names(precision="mixed_bfloat16"),
        names(division="80/20"),
        *(
            names(recipe=recipe, segmenter=lungs.build(seed))
            for recipe in (seeing, mixing)
            for seed in (0, 1)
        ),
    ]
    assert len(set(different)) == len(different)


def test_without_a_segmenter_surroundings_cannot_be_mixed(
    records: Path, tiny_cnn, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(tiny_cnn, mixed=True)
    with pytest.raises(UserError, match="no segmenter is given to find the lungs"):
        loop.train(recipe, records, tmp_path)


def test_each_fold_is_a_training_of_its_own(
    names, covid_directory: Path, kermany_directory: Path, directories, tmp_path: Path
) -> None:
    ingest(covid_directory, kermany_directory, tmp_path / "examples", folds=3)
    write_records(tmp_path / "examples", directories, tmp_path / "folded")
    folds = divisions("3-fold")
    assert len({names(tmp_path / "folded", division=one) for one in folds}) == len(folds) == 3


def test_where_records_and_checkpoints_lie_does_not_matter(
    names, records: Path, tmp_path: Path
) -> None:
    shutil.copytree(records, tmp_path / "elsewhere")
    assert names(tmp_path / "elsewhere", tmp_path / "others", precision="float32") == names(
        precision="float32"
    )


def test_a_base_is_named_by_its_weights(names, tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe_named("soares-vgg16"), input_size=(32, 32))
    for name, seed in (("one", 0), ("other", 1)):
        base = architectures.build(recipe, "none", seed).get_layer(architectures.BASE)
        base.save_weights(tmp_path / f"{name}.weights.h5")
    shutil.copy(tmp_path / "one.weights.h5", tmp_path / "same.weights.h5")
    one, other, same = (
        names(recipe=recipe, weights=str(tmp_path / f"{name}.weights.h5"))
        for name in ("one", "other", "same")
    )
    assert one != other
    assert one == same


def test_it_reads_what_its_division_trains_on_and_no_more(
    records: Path, tiny_cnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    pixels = data.pixels

    def spy(records: Path, manifest, recipe, parts, *more):
        reads.append(tuple(parts))
        return pixels(records, manifest, recipe, parts, *more)

    monkeypatch.setattr(data, "pixels", spy)
    for division in ("80/20", "70/10/20"):
        loop.train(tiny_cnn, records, tmp_path, precision="float32", division=division)
    assert reads == [("train", "validation"), ("test",), ("train",), ("validation",)]


def test_trained_again_it_is_taken_from_its_checkpoint(records, tiny_cnn, tmp_path) -> None:
    first = loop.train(tiny_cnn, records, tmp_path, precision="float32")
    again = loop.train(tiny_cnn, records, tmp_path, precision="float32")
    assert difference(first, again) == 0.0
    assert len(again.history) == tiny_cnn.epochs


@pytest.mark.parametrize("name", ["cnn-dubey", "coronet-4class"])
def test_the_accuracy_is_that_of_the_answers(
    name: str, records: Path, tiny_cnn, tmp_path: Path
) -> None:
    of_paper = recipe_named(name)  # with one output, or one for each class
    recipe = dataclasses.replace(tiny_cnn, head=of_paper.head, task=of_paper.task)
    trained = loop.train(recipe, records, tmp_path, precision="float32")
    _, shares, truth = loop.answerer(trained, recipe)(["validation"])
    counts = data.class_counts(data.read_manifest(records), recipe, ["train"])
    weights = np.array(data.class_weights(counts))[truth]
    accuracy = np.average(shares.argmax(axis=1) == truth, weights=weights)
    assert trained.history["val_accuracy"].iloc[-1] == pytest.approx(accuracy, abs=1e-3)


def test_a_step_is_traced_once(
    records: Path, tiny_cnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing a deep network takes as long as many steps."""
    traced = []

    class Loss(keras.losses.BinaryCrossentropy):
        def call(self, truth, seen):
            traced.append(self)
            return super().call(truth, seen)

    monkeypatch.setattr(loop, "loss_of", lambda recipe: Loss())
    loop.train(tiny_cnn, records, tmp_path, precision="float32")
    assert len(traced) == 2, "one for training, one for validation"


def test_answers_to_parts_of_any_size_are_traced_once(
    records: Path, tiny_cnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = loop.train(tiny_cnn, records, tmp_path, precision="float32")
    answers = loop.answerer(trained, tiny_cnn)
    traced = []
    dense = keras.layers.Dense.call
    monkeypatch.setattr(
        keras.layers.Dense,
        "call",
        lambda self, *args, **named: traced.append(self) or dense(self, *args, **named),
    )
    sizes = {len(answers([part])[2]) for part in ("train", "validation")}
    assert len(sizes) == 2
    assert len(traced) == len(set(traced)) > 0


@pytest.mark.parametrize("within_the_epoch", [True, False])
def test_a_loss_that_is_no_number_ends_the_training_and_is_not_kept(
    records, tiny_cnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within_the_epoch: bool
) -> None:
    if not within_the_epoch:  # as where the validation's alone is none
        monkeypatch.setattr(loop._EndWithoutLoss, "on_train_batch_end", lambda *_, **__: None)
    recipe = dataclasses.replace(tiny_cnn, learning_rate=1e30)
    with pytest.raises(UserError, match=r"loss of cnn-dubey is \w+ in epoch 1.*rate 1e\+30"):
        loop.train(recipe, records, tmp_path, precision="float32")
    assert not list(tmp_path.glob("*/history.csv"))
    assert not list(tmp_path.glob("*/state/checkpoint"))
