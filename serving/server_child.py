"""The model server as a child of the process that starts it: it ends with it, unless it is let go.

    python -m serving.server_child, with the options of serving.server

A byte on standard input lets it go: it gets a session of its own. The end of standard input, which comes
however the parent ends, ends it at once.
"""

import os
import sys
import threading


def _watch_the_parent() -> None:
    if os.read(0, 1):
        os.setsid()
    else:
        print("the process that started this server has ended", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_watch_the_parent, daemon=True).start()
    # Not before: importing TensorFlow takes seconds.
    from serving.server import run

    run()
