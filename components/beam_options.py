"""Which Beam runner a step uses."""

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

# Worker processes take seconds to start: below about this many images one process is quicker.
_WORTH_PROCESSES = 4000


def pipeline_options(arguments: Sequence[str], images: int) -> PipelineOptions:
    """Returns Beam's options.

    Args:
      arguments: the runner's options as on a command line, e.g. `["--runner=FlinkRunner",
        "--flink_master=host:8081"]`. Empty: this machine, with a process on every core where
        there are images enough.
      images: how many images the pipeline will open.
    """
    options = list(arguments)
    if not options and images < _WORTH_PROCESSES:
        options = ["--direct_running_mode=in_memory"]
    elif not options:
        options = ["--direct_running_mode=multi_processing", "--direct_num_workers=0"]
    if not any(option.partition("=")[0] == "--runner" for option in options):
        # The DirectRunner's own, at once: by default it first downloads another one, Prism.
        options.append("--runner=FnApiRunner")
    return PipelineOptions(options)
