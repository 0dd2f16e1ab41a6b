"""Chooses the Beam runner of a step, and shows the progress of its pipeline."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from core.progress import Progress

_HERE = "FnApiRunner"
# Worker processes take seconds to start, so with fewer images one process is faster.
_WORTH_PROCESSES = 4000


def pipeline_options(arguments: Sequence[str], images: int) -> PipelineOptions:
    """Returns Beam's options.

    Args:
      arguments: the runner's options as on a command line, e.g. `["--runner=FlinkRunner",
        "--flink_master=host:8081"]`. Empty: this machine, with a process on every core if
        there are enough images.
      images: how many images the pipeline will open.
    """
    options = list(arguments)
    if not options and images < _WORTH_PROCESSES:
        options = ["--direct_running_mode=in_memory"]
    elif not options:
        options = ["--direct_running_mode=multi_processing", "--direct_num_workers=0"]
    if not any(option.partition("=")[0] == "--runner" for option in options):
        # The runner behind DirectRunner, which by default first downloads another one, Prism.
        options.append(f"--runner={_HERE}")
    return PipelineOptions(options)


@contextlib.contextmanager
def counted(what: str, total: int, options: PipelineOptions) -> Iterator[str | None]:
    """Shows the progress of a pipeline on this machine; other runners have their own UIs.

    Args:
      what, total: see `Progress`.
      options: of the pipeline.

    Yields:
      the argument for `count_one`: a file whose size is the count, because workers are other processes.
    """
    if options.view_as(StandardOptions).runner != _HERE:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="cxrflow-") as scratch:
        counter = Path(scratch, "count")
        counter.touch()
        with Progress(what, total, counted=lambda: counter.stat().st_size):
            yield str(counter)


def count_one(counter: str | None) -> None:
    """Counts one image as done, in a worker of a pipeline; see `counted`."""
    if counter:
        file = os.open(counter, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, b".")
        finally:
            os.close(file)
