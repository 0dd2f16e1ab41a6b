import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from components.data import beam_options
from components.data.example_tables import SCHEMA
from components.data.open_images import open_images
from core.progress import Progress, logger, shown_live
from training import loop, lungs


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of a process that has not reported any progress."""
    monkeypatch.setattr(Progress, "_next_line", None)
    return Clock()


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the log says."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How far everything was when it ended."""
    texts: list[str] = []
    leave = Progress.__exit__

    def look_and_leave(self: Progress, *error: object) -> None:
        with shown_live(texts.append):
            self.look()
        leave(self, *error)

    monkeypatch.setattr(Progress, "__exit__", look_and_leave)
    return texts


def test_the_log_has_a_line_after_five_seconds_and_then_one_every_ten(
    clock: Clock, said: list[str]
) -> None:
    progress = Progress("images opened", 5000, clock=clock)
    when = []
    for second in range(1, 41):
        clock.now += 1
        progress.advance(50)
        before = len(said)
        progress.look()
        when += [second] * (len(said) - before)
    assert when == [5, 15, 25, 35]
    assert said[0] == "250 of 5,000 images opened, 1:35 left"
    assert said[-1] == "1,750 of 5,000 images opened, 1:05 left"


def test_what_ends_soon_says_nothing(clock: Clock, said: list[str]) -> None:
    with Progress("images opened", 3, clock=clock) as progress:
        progress.advance(3)
        clock.now += 4.9
        progress.look()
    assert said == []


def test_the_lines_of_a_step_come_in_one_rhythm_whatever_its_blocks(
    clock: Clock, said: list[str]
) -> None:
    for block in range(5):
        progress = Progress(f"of block {block}", 4, clock=clock)
        for _ in range(4):
            clock.now += 1
            progress.advance()
            progress.look()
    assert said == ["1 of 4 of block 1", "3 of 4 of block 3, 0:01 left"]


def test_a_live_line_is_shown_at_every_look_and_removed_at_the_end(
    clock: Clock, said: list[str]
) -> None:
    shown: list[str] = []
    with shown_live(shown.append):
        with Progress("rows", 4, figures=lambda: "loss 0.5", clock=clock) as progress:
            progress.look()
            progress.advance()
            clock.now += 3600
            progress.advance()
            progress.look()
        assert shown[0] == "0 of 4 rows, loss 0.5"
        assert shown[-2:] == ["2 of 4 rows, 2:00:00 left, loss 0.5", ""]
    assert said == []
    clock.now += 10
    progress.look()
    assert len(said) == 1, "nobody shows a live line any more"


def test_what_was_done_before_tells_nothing_of_the_speed(clock: Clock, said: list[str]) -> None:
    progress = Progress("MB fetched", 1000, done=900, clock=clock)
    clock.now += 10
    progress.look()
    for _ in range(2):
        clock.now += 10
        progress.advance(10)
        progress.look()
    assert said == [
        "900 of 1,000 MB fetched",
        "910 of 1,000 MB fetched",
        "920 of 1,000 MB fetched, 1:20 left",
    ]


def test_what_the_first_waited_for_tells_nothing_of_the_speed(
    clock: Clock, said: list[str]
) -> None:
    for counted in (None, iter([0, 1, 3]).__next__):
        progress = Progress("steps", 100, counted=counted, clock=clock)
        for done, seconds in ((0, 20), (1, 10), (2, 10)):
            clock.now += seconds
            progress.advance(0 if counted else done)
            progress.look()
    lines = ["0 of 100 steps", "1 of 100 steps", "3 of 100 steps, 8:05 left"]
    assert said == lines * 2


def test_where_nothing_is_counted_it_says_for_how_long(clock: Clock, said: list[str]) -> None:
    progress = Progress("waiting for the server", clock=clock)
    clock.now += 75
    progress.look()
    assert said == ["waiting for the server, 1:15 so far"]


def test_more_than_was_announced_is_all_of_it(clock: Clock, said: list[str]) -> None:
    progress = Progress("images opened", 3, clock=clock)
    for _ in range(2):
        clock.now += 10
        progress.advance(32)
    progress.look()
    assert said == ["3 of 3 images opened, 0:00 left"]


def test_events_are_said_in_the_same_rhythm(clock: Clock, said: list[str]) -> None:
    progress = Progress("steps", 100, clock=clock)
    for epoch in range(1, 7):
        clock.now += 4
        progress.say(f"epoch {epoch}")
    assert said == ["epoch 2", "epoch 5"]


def test_workers_of_other_processes_are_counted(
    examples: Path, directories: dict[str, Path], tmp_path: Path, ends: list[str]
) -> None:
    rows = pq.read_table(examples / "examples.parquet").to_pandas()
    two = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    open_images(rows, directories, SCHEMA, two, tmp_path / "opened")
    (end,) = ends
    assert end.startswith(f"{len(rows)} of {len(rows)} images opened")


def test_on_other_runners_nothing_is_counted() -> None:
    with beam_options.counted("images", 1, PipelineOptions(["--runner=FlinkRunner"])) as counter:
        assert counter is None
    beam_options.count_one(counter)


def test_a_training_counts_its_steps_and_says_its_last_epoch(
    records: Path, tiny_cnn, tmp_path: Path, said: list[str], ends: list[str]
) -> None:
    trained = loop.train(tiny_cnn, records, tmp_path, precision="float32")
    decoded = [end for end in ends if "images decoded" in end]
    assert [re.match(r"(\d+) of \1 ", end) is not None for end in decoded] == [True, True]
    assert re.match(r"(\d+) of \1 steps of cnn-dubey, 0:00 left, epoch 2 of 2, ", ends[-1])
    last = (
        r"cnn-dubey: epoch 2 of 2, accuracy [\d.]+, loss [\d.]+, validation accuracy [\d.]+, "
        r"validation loss [\d.]+, \d+ images/s"
    )
    assert [line for line in said if re.fullmatch(last, line)]
    _, _, truth = loop.answerer(trained, tiny_cnn)(["test"])
    assert ends[-1].startswith(f"{len(truth)} of {len(truth)} images predicted")


def test_a_resumed_training_counts_what_was_done(
    records: Path, tiny_cnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: list[str]
) -> None:
    def stop(self, epoch, logs=None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Watched, "on_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            loop.train(tiny_cnn, records, tmp_path, precision="float32")
    half = int(re.match(r"(\d+) of", ends[-1])[1])
    loop.train(tiny_cnn, records, tmp_path, precision="float32")
    assert ends[-1].startswith(f"{2 * half} of {2 * half} steps")


def test_lungs_are_told_with_the_dice_so_far(
    ends: list[str], picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lungs, "_PATIENCE", 2)
    pixels = np.stack([picture(64, 64, seed)[..., None] for seed in range(8)]).astype(np.float32)
    dices = lungs.train(lungs.build(0), (pixels, pixels * 0), (pixels, pixels * 0), 0)
    assert f"Dice {dices[-1]:.3f} on validation masks" in ends[-1]
    assert ends[-1].startswith(f"{20 * len(dices)} of 720 steps at most")
