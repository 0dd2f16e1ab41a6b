"""The model server as a child process: it ends with its parent, unless it is detached.

    python -m serving.server_child, with the options of serving.server

A byte on standard input detaches it and gives it its own session. The end of standard input, whatever ended
the parent, ends it at once.
"""

import os
import sys
import threading

from core.imports import uncollected


def _watch_the_parent() -> None:
    if os.read(0, 1):
        os.setsid()
    else:
        print("the process that started this server has ended", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_watch_the_parent, daemon=True).start()
    # Imported last, because TensorFlow takes seconds.
    with uncollected():
        from serving.server import run

    run()
