"""What becomes of a cluster's processes, if the run that started them is interrupted or killed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run")
# It and its child ignore whatever can be ignored, and hold the pipe until they end.
STUBBORN = "trap '' TERM INT HUP; (echo $CXRFLOW_CLUSTER; exec sleep infinity) & wait"


def environment(temporary: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TMPDIR": str(temporary)}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run whose processes have started."""
    process = subprocess.Popen(
        # In the background, shells start programs that ignore SIGINT.
        ["env", "--default-signal", RUN, "bash", "-c", STUBBORN],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    assert process.stdout
    assert process.stdout.readline().startswith(str(tmp_path))
    yield process
    process.kill()
    process.wait()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_its_processes_end_with_it(run: subprocess.Popen[str], with_signal: int) -> None:
    run.send_signal(with_signal)
    assert run.stdout
    # The pipe's end comes when none of them is left.
    assert run.stdout.read() == ""


@pytest.mark.timeout(60)
def test_what_a_killed_run_leaves_is_removed_by_the_next(
    run: subprocess.Popen[str], tmp_path: Path
) -> None:
    (left,) = tmp_path.iterdir()
    subprocess.run([RUN, "true"], env=environment(tmp_path), check=True)
    assert left.exists(), "it is in use"
    run.kill()
    assert run.stdout
    run.stdout.read()
    subprocess.run([RUN, "true"], env=environment(tmp_path), check=True)
    assert not list(tmp_path.iterdir())
