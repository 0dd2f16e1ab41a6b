"""The command `cxrflow`, which listens for signals already while it imports its commands."""

import os

from core.imports import end_quickly, uncollected
from pipelines import stopping


def main() -> None:
    """Runs the command line.

    A signal ends it and all processes that it has started: see `pipelines.stopping`. For errors, see
    `pipelines.cli.fail`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    end_quickly()
    try:
        with stopping.cleanly():
            with uncollected():
                from pipelines.cli import app
            app(prog_name="cxrflow")
    except Exception as error:
        from pipelines.cli import fail

        fail(error)


if __name__ == "__main__":
    main()
