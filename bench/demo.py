"""`make demo`: everything on sample radiographs, from drawing them to an answer of the served winner.

    python -m bench.demo OUTPUT [--keep]

It trains the small network for few epochs, as a demonstration. Called again, it continues with what is in
OUTPUT. At the end it stops the server, except with `--keep`; after an error or an interrupt always.
`make bench ONLY=demo` measures the candidates' margins to the gate.
"""

import argparse
import sys
from pathlib import Path

from bench.commands import begin, cxrflow, show

RECIPES = ("cnn-dubey", "cnn-dubey+lungs")
GATE = "covid=0.7,default=0.7"


def main() -> None:
    """Runs the program; see the module."""
    from components.data.sources import covid_chestxray, kermany
    from serving import local

    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    output: Path = given.output
    server = output.resolve() / "server"
    data = output / "data"
    covid = data / covid_chestxray.DIRECTORY
    if not data.exists():
        cxrflow("sample-data", str(data))
    keep = False
    try:
        cxrflow(
            "run", "--quick", "--covid", str(covid), "--kermany", str(data / kermany.DIRECTORY),
            "--recipes", ",".join(RECIPES), "--gate", GATE, "--output", str(output),
        )  # fmt: skip
        if not local.running(server):
            sys.exit("demo: nothing is served; the lines above say why")
        cxrflow("predict", str(covid / "images/phantom-0000.png"), "--output", str(output))
        keep = given.keep
        if keep:
            print("The server is still running. To stop it:")
            show("stop", "--output", str(output))
    finally:
        # Not as a command, because after a signal this process starts no others.
        if not keep and local.stop(server):
            print("the server is stopped", flush=True)


if __name__ == "__main__":
    begin(main)
