import dataclasses
import io
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from core.artifacts import CARD, SAVED_MODEL
from core.errors import UserError
from training import architectures, data, export, saved_model, start_weights
from training.preprocess import to_input


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def seeing(tiny_cnn, tmp_path_factory):
    """The signature of a model that answers with the pixels it sees, as training would see them."""
    recipe = dataclasses.replace(tiny_cnn, input_size=(24, 20))
    grey = keras.Input((*recipe.input_size, 1))
    same = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="last_convolution")
    base = keras.Model(grey, same(grey), name="base")
    features = keras.Input((*recipe.input_size, 1))
    flat = keras.layers.Flatten()(features)
    answer = keras.layers.Dense(flat.shape[-1], kernel_initializer="identity")(flat)
    head = keras.Model(features, answer, name="head")
    model = keras.Model(grey, head(base(grey)))
    directory = tmp_path_factory.mktemp("export") / "saved_model"
    export.export(model, recipe, directory)
    return recipe, saved_model.load(directory).predict


@pytest.mark.parametrize("kept", [0, 2**30], ids=["on disk", "in memory"])
def test_serving_sees_the_pixels_of_training_bit_for_bit(
    seeing, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(data, "_KEPT_IN_MEMORY", kept)
    recipe, signature = seeing
    manifest = data.read_manifest(records)
    images = data.encoded_images(records, manifest, recipe, ("test",))
    content = [image for image, _, _ in images.as_numpy_iterator()]
    trained_on = data.kept(data.pixels(records, manifest, recipe, ("test",)), tmp_path / "test")
    assert any(tmp_path.iterdir()) == (kept == 0)
    expected = np.stack([pixels.ravel() for pixels, _, _ in trained_on.as_numpy_iterator()])
    served = signature(image_bytes=tf.constant(content))["probabilities"].numpy()
    assert served.dtype == expected.dtype == np.float32
    assert np.array_equal(served, expected)


def test_every_kind_of_image_is_read_in_one_request(seeing, picture) -> None:
    recipe, signature = seeing
    grey = picture(90, 70)
    kinds = [
        encoded(grey),
        encoded(grey, "JPEG"),
        encoded(grey, "JPEG", "RGB"),
        encoded(grey, "PNG", "RGB"),
        encoded(grey, "PNG", "RGBA"),
        encoded(grey.astype(np.uint16) * 257),
        encoded(picture(2000, 1500)),
    ]
    served = signature(image_bytes=tf.constant(kinds))["probabilities"].numpy()
    for content, row in zip(kinds, served, strict=True):
        assert np.array_equal(
            row, to_input(tf.constant(content), recipe.input_size).numpy().ravel()
        )
    assert np.abs(served[:6] - served[0]).max() < 12, "all but the last show one picture"


def test_a_trained_model_answers_with_named_probabilities(model: Path, picture) -> None:
    predict = saved_model.load(model / SAVED_MODEL).predict
    answer = predict(image_bytes=tf.constant([encoded(picture(50, 50)), encoded(picture(9, 9))]))
    assert answer["classes"].numpy().tolist() == [[b"normal", b"covid"]] * 2
    assert np.allclose(answer["probabilities"].numpy().sum(axis=1), 1)


def test_it_explains_the_class_that_is_asked_for(model: Path, picture) -> None:
    exported = saved_model.load(model / SAVED_MODEL)
    one, two = pixels(exported, picture(50, 50)), pixels(exported, picture(9, 9))
    answer = exported.explain(pixels=tf.stack([one, two] * 2), positions=tf.constant([0, 0, 1, -1]))
    assert answer["explained"].numpy().tolist()[:3] == [b"normal", b"normal", b"covid"]
    probable = answer["probabilities"].numpy()[3].argmax()
    assert answer["explained"].numpy()[3] == answer["classes"].numpy()[3][probable]
    maps = answer["heat_maps"].numpy()
    assert maps.shape == (4, 6, 6)
    assert maps.min() >= 0
    assert set(maps.max(axis=(1, 2)).round(6)) <= {0.0, 1.0}
    assert not np.allclose(maps[0], maps[2]), "another class, another map"


def pixels(exported: saved_model.Exported, picture: np.ndarray) -> tf.Tensor:
    return exported.preprocess(image_bytes=tf.constant(encoded(picture)))["pixels"]


def test_its_two_halves_answer_as_the_whole(model: Path, picture) -> None:
    exported = saved_model.load(model / SAVED_MODEL)
    pictures = [picture(50, 50), picture(1200, 900)]
    whole = exported.predict(image_bytes=tf.constant([encoded(one) for one in pictures]))
    halves = exported.classify(pixels=tf.stack([pixels(exported, one) for one in pictures]))
    assert np.array_equal(whole["probabilities"], halves["probabilities"])


def convolutions(exported: Path) -> int:
    """Returns how many convolutions are in a SavedModel, each copy of a network counted."""
    content = (exported / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    functions = graph.graph_def.library.function
    return sum(node.op == "Conv2D" for one in functions for node in one.node_def)


def test_signatures_share_the_network(model: Path) -> None:
    """One copy answers, and another is differentiated for heat maps."""
    assert convolutions(model / SAVED_MODEL) == 2 * 3


def test_a_model_of_another_release_is_refused(tmp_path: Path) -> None:
    module = tf.Module()
    module.answer = tf.function(lambda x: {"y": x}, [tf.TensorSpec([], tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.answer})
    with pytest.raises(UserError, match="signature 'preprocess' is missing"):
        saved_model.load(tmp_path)


def test_a_model_says_where_it_comes_from(model: Path, records: Path) -> None:
    import json

    card = json.loads((model / CARD).read_text())
    assert card["recipe"]["name"] == "cnn-dubey"
    assert card["fingerprint"] == data.read_manifest(records)["fingerprint"]
    assert card["seed"] == 0
    assert card["transfer_learning"] is False
    assert {"cxrflow", "tensorflow", "keras", "numpy", "python"} == set(card["versions"])
    assert card["weights_digest"] == saved_model.digest_of_weights(model / SAVED_MODEL)


def test_weights_are_told_by_their_values(tiny_cnn, tmp_path: Path) -> None:
    network = architectures.build(tiny_cnn, start_weights.NONE, 0)

    def digest(name: str) -> str:
        export.export(network, tiny_cnn, tmp_path / name)
        return saved_model.digest_of_weights(tmp_path / name)

    one = digest("one")
    assert digest("again") == one
    bias = network.trainable_variables[-1]
    bias.assign(bias + 1e-3)
    assert digest("other") != one
