"""The training loop: trains a recipe on TFRecords, on all GPUs, resumable after any epoch."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from core import divisions
from core.artifacts import HISTORY
from core.errors import UserError
from core.files import alone, sha256_of, write_aside
from core.progress import Progress, logger
from training import (
    architectures,
    data,
    export,
    features,
    kept,
    lungs,
    saved_model,
    start_weights,
    workers,
)
from training.precision import AUTO, dtype_policy
from training.recipes import Recipe

TENSORBOARD, FEATURES = "tensorboard", "features"
_STATE = "state"

_ASKED_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of a training.

    Attributes:
      model: in float32, whatever precision it was trained in; see `architectures.build` for its shapes.
      history: a row per epoch: `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy` (losses in nats; every
        class has the same weight in all four), `seconds`.
      logs: a directory with the history as CSV and the TensorBoard logs.
      replicas: number of devices that shared each batch.
      batch: images per step, over all replicas.
      learning_rate: for that batch.
      policy: the Keras dtype policy of the training.
      inputs: a function from parts of the records to the network's inputs, elements (values, class, id):
        pixels, or the features of a frozen base.
    """

    model: keras.Model
    history: pd.DataFrame
    logs: Path
    replicas: int
    batch: int
    learning_rate: float
    policy: str
    inputs: Callable[[Sequence[str]], tf.data.Dataset]


def train(
    recipe: Recipe,
    records: Path,
    checkpoints: Path,
    *,
    weights: str = start_weights.IMAGENET,
    seed: int = 0,
    precision: str = AUTO,
    division: str = divisions.HOLD_OUT,
    start: Path | None = None,
    segmenter: keras.Model | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Trained:
    """Trains a recipe for all of its epochs and returns the last epoch's model, as the papers do.

    After every epoch the complete state is written below `checkpoints`, under a name made of everything that
    the result depends on (see `training.kept`). If a killed training is started again with the same
    arguments, it resumes after its last complete epoch and ends with the same weights. Of two runs with the
    same name, one trains; the other waits and uses its result.

    A frozen base runs once per image, not once per epoch: the head trains on the kept features, which are
    also below `checkpoints` (see `training.features`).

    Args:
      recipe: what to train.
      records: a directory of TFRecords with its manifest.
      checkpoints: a directory that outlives the process.
      weights: see `architectures.build`.
      seed: for initial weights, dropout and shuffling.
      precision: see `dtype_policy`.
      division: which parts of the records are trained on; see `core.divisions`.
      start: a SavedModel of the same recipe to continue from, instead of `weights`; or None.
      segmenter: finds the lungs, if the recipe needs them; see `Recipe.needs_lungs`.
      strategy: how replicas share the work; by default a MirroredStrategy over all GPUs, or TensorFlow's
        default strategy for a single device. Several machines (see `training.workers`) must all see
        `checkpoints`; the first one writes there.

    Raises:
      UserError: the records are incomplete, a class has no image, the weights or the segmenter are not
        available, or the loss is no longer finite.
    """
    strategy = strategy or _strategy()
    leads = workers.leads(strategy)
    plan = _plan(recipe, records, division, strategy.num_replicas_in_sync, precision, seed)
    if not recipe.needs_lungs:
        segmenter = None
    elif segmenter is None:
        raise UserError(f"{recipe.name}: no segmenter is given to find the lungs")
    directory = checkpoints / kept.training(
        recipe,
        # Two lists, because the folds of a cross-validation have the same parts in other roles.
        [data.content(plan.manifest, of) for of in (plan.parts.train, plan.parts.validation)],
        start=_start(recipe, weights, start),
        segmenter=segmenter and lungs.digest(segmenter),
        seed=seed,
        policy=plan.policy,
        batch=plan.batch,
    )
    with alone(directory) if leads else contextlib.nullcontext():
        with strategy.scope(), _policy(plan.policy):
            model = architectures.build(recipe, start_weights.NONE if start else weights, seed)
            if start:
                export.restore(model, start)
            trained = _compiled(model, plan)
            state = _State(trained, directory, leads)
            first_epoch = state.restore()
        _say(plan, model, start, weights, first_epoch)

        def inputs(of: Sequence[str]) -> tf.data.Dataset:
            if not recipe.frozen:
                return data.pixels(records, plan.manifest, recipe, of, segmenter)
            base, store = model.get_layer(architectures.BASE), checkpoints / FEATURES
            return features.inputs(records, plan.manifest, recipe, of, base, store, segmenter)

        if first_epoch < recipe.epochs:
            _fit(plan, trained, inputs, segmenter, state, first_epoch, directory if leads else None)
        return Trained(
            model=_in_float32(model, recipe, seed),
            history=state.history(),
            logs=directory,
            replicas=plan.replicas,
            batch=plan.batch,
            learning_rate=plan.learning_rate,
            policy=plan.policy,
            inputs=inputs,
        )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A training, on given records and hardware.

    Attributes:
      manifest: of the records.
      parts: of the records, by their role.
      counts: training images by class.
      held_out: how many validation images there are.
      replicas, batch, learning_rate, policy: see `Trained`.
    """

    recipe: Recipe
    manifest: dict[str, Any]
    parts: divisions.Division
    counts: dict[str, int]
    held_out: int
    replicas: int
    batch: int
    learning_rate: float
    policy: str
    seed: int

    @property
    def images(self) -> int:
        return sum(self.counts.values())

    @property
    def steps(self) -> int:
        return data.steps_per_epoch(self.images, self.batch)


def _plan(
    recipe: Recipe, records: Path, division: str, replicas: int, precision: str, seed: int
) -> _Plan:
    manifest, parts = data.read_manifest(records), divisions.division(division)
    batch, learning_rate = scaled(recipe, replicas)
    return _Plan(
        recipe=recipe,
        manifest=manifest,
        parts=parts,
        counts=data.class_counts(manifest, recipe, parts.train),
        held_out=sum(data.class_counts(manifest, recipe, parts.validation).values()),
        replicas=replicas,
        batch=batch,
        learning_rate=learning_rate,
        policy=dtype_policy(precision),
        seed=seed,
    )


def _compiled(model: keras.Model, plan: _Plan) -> keras.Model:
    """Returns the part of a network that is trained, compiled: with a frozen base its head."""
    recipe, steps = plan.recipe, plan.steps * plan.recipe.epochs
    trained = model.get_layer(architectures.HEAD) if recipe.frozen else model
    _shorten_averages(trained, steps)
    trained.compile(
        keras.optimizers.Adam(
            # Decay to zero, so that the last of few steps does not decide the result on few test images.
            keras.optimizers.schedules.CosineDecay(plan.learning_rate, steps)
            if recipe.quick
            else plan.learning_rate
        ),
        loss_of(recipe),
        # Not by name: the first step would make its variables, and be traced a second time.
        weighted_metrics=[_accuracy_of(recipe)],
    )
    trained.optimizer.build(trained.trainable_variables)
    return trained


def _say(
    plan: _Plan, model: keras.Model, start: Path | None, weights: str, first_epoch: int
) -> None:
    recipe = plan.recipe
    logger.info(
        "%s: %d images (%s), %d parameters, %s; %s x%d, batch %d, %s",
        recipe.name,
        plan.images,
        ", ".join(f"{count} {name}" for name, count in plan.counts.items()),
        model.count_params(),
        "from a trained model" if start else architectures.starting_point(recipe, weights),
        "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
        plan.replicas,
        plan.batch,
        plan.policy,
    )
    if first_epoch:
        state_is = "already trained, to" if first_epoch == recipe.epochs else "resuming after"
        logger.info("%s: %s epoch %d of %d", recipe.name, state_is, first_epoch, recipe.epochs)


def _fit(
    plan: _Plan,
    trained: keras.Model,
    inputs: Callable[[Sequence[str]], tf.data.Dataset],
    segmenter: keras.Model | None,
    state: "_State",
    first_epoch: int,
    logs: Path | None,
) -> None:
    """Trains for the epochs that are left.

    Args:
      trained: compiled, with the state of `first_epoch`.
      inputs: see `Trained`.
      segmenter: finds the lungs of training images, if their surroundings are mixed.
      logs: gets TensorBoard's; None: another process writes them, and says how the training does.
    """
    recipe, parts = plan.recipe, plan.parts
    weights = data.image_weights(plan.manifest, recipe, parts.train)
    # This check comes first, so that the state of an epoch without a finite loss is not kept.
    watching: list[keras.callbacks.Callback] = [
        _EndWithoutLoss(recipe, plan.learning_rate, plan.policy),
        state,
    ]
    said: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if logs:
        watched = _Watched(recipe, plan.steps, plan.batch, first_epoch)
        watching += [watched, keras.callbacks.TensorBoard(logs / TENSORBOARD, write_graph=False)]
        said = watched.progress
    learnt = inputs(parts.train)
    if recipe.mixed and recipe.view == "full":
        assert segmenter
        learnt = data.with_lungs(learnt, segmenter)
    with tempfile.TemporaryDirectory(prefix="cxrflow-") as scratch:
        train, validation = (
            data.weighted(data.kept(images, Path(scratch, role)), weights)
            for role, images in (("train", learnt), ("validation", inputs(parts.validation)))
        )
        batches = data.training_batches(
            train,
            plan.images,
            plan.batch,
            first_epoch=first_epoch,
            epochs=recipe.epochs,
            seed=plan.seed,
            mixed=recipe.mixed,
            augmented=recipe.augmented,
        )
        judged = data.validation_batches(validation, plan.held_out, plan.batch)
        batches, judged = workers.in_batches_for_all((batches, judged))
        with said:
            trained.fit(
                batches,
                initial_epoch=first_epoch,
                epochs=recipe.epochs,
                steps_per_epoch=plan.steps,
                validation_data=judged,
                shuffle=False,  # the dataset is shuffled
                verbose=0,
                callbacks=watching,
            )


def answerer(
    trained: Trained, recipe: Recipe
) -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns a function that predicts parts of the records with a trained network.

    Returns:
      a function of the parts, a list of splits or folds, and of the number of images of each class, by
      position (see `data.first_of_each`), or None for all. It returns features [N, F], the input of the last
      layer; probabilities [N, C], both float32; and the images' classes, int32 [N].
    """
    base, head = (
        trained.model.get_layer(name) for name in (architectures.BASE, architectures.HEAD)
    )
    answering = keras.Model(head.inputs[0], [head.layers[-1].input, head.outputs[0]])
    if not recipe.frozen:
        pixels = keras.Input((*recipe.input_size, 1))
        answering = keras.Model(pixels, answering(base(pixels, training=False), training=False))

    # Keras' own would be traced for the first batch, and again for the last, which is smaller.
    ask = tf.function(
        lambda values: answering(values, training=False),
        input_signature=[tf.TensorSpec(answering.inputs[0].shape, tf.float32)],
        autograph=False,
    )

    def answers(
        parts: Sequence[str], of_each: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        gathered = []
        every = trained.inputs(parts)
        asked = every if of_each is None else data.first_of_each(every, of_each)
        with Progress("images predicted", len(every)) as progress:
            for values, position, _ in asked.batch(_ASKED_AT_ONCE).prefetch(1):
                seen, shares = ask(values)
                gathered.append((tf.reshape(seen, (len(values), -1)), shares, position))
                progress.advance(len(values))
        seen, shares, truth = (np.concatenate(batches) for batches in zip(*gathered, strict=True))
        if shares.shape[1] == 1:
            shares = np.concatenate([1 - shares, shares], axis=1)
        return seen, shares, truth

    return answers


def _strategy() -> tf.distribute.Strategy:
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    # With a single device, it would only slow down every iterator.
    return tf.distribute.get_strategy()


def scaled(recipe: Recipe, replicas: int) -> tuple[int, float]:
    """Returns the global batch and the learning rate for a number of replicas.

    The batch is the recipe's, rounded up so that every replica has the same share. The learning rate scales
    with it (Goyal et al., Accurate, Large Minibatch SGD, arXiv:1706.02677).
    """
    batch = -(-recipe.batch // replicas) * replicas
    return batch, recipe.learning_rate * batch / recipe.batch


def _shorten_averages(model: keras.Model, steps: int) -> None:
    """Shortens the moving averages of batch normalisation to a tenth of a short training.

    Keras' averages span about 100 steps and start from their initial values, so after a first try of a few
    epochs the exported model would differ from the trained one. Trainings of 1,000 steps or more, such as
    the papers', are not changed.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _shorten_averages(layer, steps)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, max(0.0, 1 - 10 / steps))


class _State(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves weights, optimiser, random state and history after each epoch.

    The history is written first. If the process is killed between the two, `restore` drops the extra row.
    """

    def __init__(self, model: keras.Model, directory: Path, leads: bool) -> None:
        """Starts with no epochs done; see `restore`.

        Args:
          model: compiled.
          directory: to restore from and to write to.
          leads: whether this process writes there. If not, another process does; but all processes must
            take part in reading shared values, so this one writes the same to a temporary directory.
        """
        super().__init__()
        self._kept = directory
        self._forgotten = None if leads else tempfile.TemporaryDirectory(prefix="cxrflow-")
        home = Path(self._forgotten.name) if self._forgotten else directory
        self._history = home / HISTORY
        self._rows: list[dict[Any, Any]] = []
        self._epochs_done = tf.Variable(0, dtype=tf.int64)
        checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            # Keras counts dropout's draws in these, and tf.train does not track them.
            random=[v.value for v in model.variables if v.path.endswith("seed_generator_state")],
            epochs_done=self._epochs_done,
        )
        self._manager = tf.train.CheckpointManager(checkpoint, home / _STATE, max_to_keep=1)
        self._checkpoint = checkpoint

    def restore(self) -> int:
        """Restores the last saved state, if any, and returns the number of epochs done."""
        latest = tf.train.latest_checkpoint(self._kept / _STATE)
        if latest:
            self._checkpoint.restore(latest).assert_consumed()
            history = pd.read_csv(self._kept / HISTORY)
            history = history[history["epoch"] <= int(self._epochs_done.numpy())]
            self._rows = history.to_dict("records")
        return int(self._epochs_done.numpy())

    def history(self) -> pd.DataFrame:
        """Returns a row per epoch; see `Trained`."""
        there = self._history.is_file()
        return pd.read_csv(self._history if there else self._kept / HISTORY)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        began, self._began = self._began, time.monotonic()
        seconds = self._began - began  # includes saving the epoch before
        self._rows.append({"epoch": epoch + 1, **(logs or {}), "seconds": round(seconds, 3)})
        with write_aside(self._history) as aside:
            pd.DataFrame(self._rows).to_csv(aside, index=False)
        self._epochs_done.assign(epoch + 1)
        self._manager.save()


class _EndWithoutLoss(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops a training with an error if its loss is not finite."""

    def __init__(self, recipe: Recipe, learning_rate: float, policy: str) -> None:
        super().__init__()
        self._recipe, self._learning_rate, self._policy = recipe, learning_rate, policy
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs or {})

    def _check(self, logs: dict[str, float]) -> None:
        for name in ("loss", "val_loss"):
            loss = logs.get(name, 0.0)
            if not np.isfinite(loss):
                raise UserError(
                    f"train: {name} of {self._recipe.name} is {loss} in epoch {self._epoch + 1}, which "
                    f"is not saved (learning rate {self._learning_rate:g}, {self._policy}). Try "
                    "--precision float32, other --weights, another --seed, or a lower learning_rate in "
                    "training/recipes.py."
                )


class _Watched(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports the progress of a training, and always the end of its last epoch."""

    def __init__(self, recipe: Recipe, steps: int, batch: int, first_epoch: int) -> None:
        super().__init__()
        self._recipe, self._batch, self._epoch = recipe, batch, first_epoch
        self._logs: dict[str, float] = {}
        self.progress = Progress(
            f"steps of {recipe.name}",
            steps * recipe.epochs,
            done=steps * first_epoch,
            figures=self._figures,
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._logs = {**self._logs, **(logs or {})}
        self.progress.advance()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._logs = {**self._logs, **(logs or {})}
        last = epoch + 1 == self._recipe.epochs
        self.progress.say(f"{self._recipe.name}: {self._figures()}", always=last)

    def _figures(self) -> str:
        figures = [f"epoch {self._epoch + 1} of {self._recipe.epochs}"]
        figures += [
            f"{name.replace('val_', 'validation ')} {value:.3f}"
            for name, value in self._logs.items()
        ]
        rate = self.progress.rate() * self._batch
        return ", ".join([*figures, f"{rate:.0f} images/s"] if rate > 0 else figures)


def loss_of(recipe: Recipe) -> keras.losses.Loss:
    """Returns a recipe's loss, for integer classes."""
    if recipe.head == "dubey":  # a single sigmoid output
        return keras.losses.BinaryCrossentropy()
    return keras.losses.SparseCategoricalCrossentropy()


def _accuracy_of(recipe: Recipe) -> keras.metrics.Metric:
    if recipe.head == "dubey":
        return keras.metrics.BinaryAccuracy("accuracy")
    return keras.metrics.SparseCategoricalAccuracy("accuracy")


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _in_float32(model: keras.Model, recipe: Recipe, seed: int) -> keras.Model:
    """Returns the same network without mixed precision, which some servers do not support."""
    with _policy("float32"):
        copy = architectures.build(recipe, start_weights.NONE, seed)
    copy.set_weights(model.get_weights())
    return copy


def _start(recipe: Recipe, weights: str, start: Path | None) -> str:
    """Returns an identity of the starting weights; for a file, a digest of its content."""
    if start:
        return saved_model.digest_of_weights(start)
    if weights in (start_weights.IMAGENET, start_weights.NONE) or not recipe.pretrained:
        return weights if recipe.pretrained else start_weights.NONE
    return sha256_of(start_weights.weights_file(recipe, weights))
