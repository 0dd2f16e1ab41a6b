"""Steps that start as forks of a process that has imported what they need."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tenacity

from components.steps import train_step
from pipelines import preloaded

LIGHT = """
import os, sys
from pipelines import preloaded
sys.path.insert(0, sys.path[0] + "/imported")
preloaded._IMPORTED = ("colorsys", "odd")
if "NO_FORKS" in os.environ:
    os.fork = lambda: os.open("/nowhere", os.O_RDONLY)  # an error of the system
preloaded.main()
"""
# What imports do now and then.
ODD = """
import atexit, logging, os, shutil
os.environ["SET_BY_AN_IMPORT"] = "1"
print("imported")
atexit.register(shutil.rmtree, "shared")
if not logging.root.handlers:
    logging.root.addHandler(logging.StreamHandler())
"""


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen]:
    """A process that has imported a small module, to be forked."""
    program, log, address = (tmp_path / name for name in ("light.py", "log", "preloaded"))
    program.write_text(LIGHT)
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported" / "odd.py").write_text(ODD)
    monkeypatch.setenv(preloaded.ADDRESS, str(address))
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, program, preloaded._SERVE, address],
            stdin=subprocess.PIPE, stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    wait_until(address.exists)
    yield process
    forks = psutil.Process(process.pid).children() if process.poll() is None else []
    for started in (*forks, process):
        started.kill()
    process.communicate()
    assert log.read_text() == "imported\n"


@tenacity.retry(
    retry=tenacity.retry_if_result(lambda met: not met),
    wait=tenacity.wait_fixed(0.02),
    stop=tenacity.stop_after_delay(60),
)
def wait_until(condition: Callable[[], object]) -> object:
    return condition()


ROOT = Path(preloaded.__file__).parents[1]


def start(directory: Path, program: str, *arguments: str, **options) -> subprocess.Popen:
    (directory / "step.py").write_text(program)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipelines.preloaded", "step", *arguments],
        env={**os.environ, "PYTHONPATH": f"{directory}:{ROOT}", **options.pop("env", {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


TOLD = """
import atexit, gc, json, logging, os, signal, subprocess, sys
atexit.register(print, "at exit")
print(json.dumps({
    "imported": "colorsys" in sys.modules, "argv": sys.argv[1:], "name": __name__,
    "directory": os.getcwd(), "said": sys.stdin.read(), "only": os.environ.get("ONLY"),
    "parent": os.getppid(), "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "child": subprocess.run(["false"]).returncode, "handlers": len(logging.root.handlers),
    "spared": gc.get_freeze_count() > 1000, "collects": gc.isenabled(),
}))
print("an error", file=sys.stderr)
"""


@pytest.mark.parametrize("as_fork", [True, False])
def test_a_step_is_run_as_python_runs_a_module(
    ready: subprocess.Popen, as_fork: bool, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    env = {"ONLY": "here"} if as_fork else {"ONLY": "here", preloaded.ADDRESS: ""}
    step = start(
        tmp_path, TOLD, "--one", "two words",
        env=env, cwd=tmp_path / "there", stdin=subprocess.PIPE,
    )  # fmt: skip
    output, _ = step.communicate("asked")
    *more, told = sorted(output.splitlines())  # the streams have buffers of their own
    assert more == ["an error", "at exit"]
    assert json.loads(told) == {
        "imported": as_fork,
        "argv": ["--one", "two words"],
        "name": "__main__",
        "directory": str(tmp_path / "there"),
        "said": "asked",
        "only": "here",
        "parent": ready.pid if as_fork else os.getpid(),
        "interrupts": True,
        "child": 1,
        "handlers": 0,
        "spared": as_fork,
        "collects": True,
    }
    assert step.returncode == 0


@pytest.mark.parametrize(
    ("program", "said", "code"),
    [
        ("raise ValueError('what is wrong')", "ValueError: what is wrong", 1),
        ("import sys; sys.exit('what is wrong')", "what is wrong", 1),
        ("import sys; print('done'); sys.exit()", "done", 0),
        ("import sys; print('done'); sys.exit(3)", "done", 3),
        (
            "import atexit, os; atexit.register(os.kill, os.getpid(), 9)",
            "the step ended without a code; was it killed?",
            1,
        ),
        ("import sys; print('done'); sys.stdout.close()", "done", 0),
        ("import os, sys; os.fork() or sys.exit(5); os.wait(); print('done')", "done", 0),
        (
            (
                "import logging.handlers as h, sys; from logging import StreamHandler, warning, root\n"
                "root.addHandler(h.MemoryHandler(9, target=StreamHandler(sys.stdout))); warning('done')"
            ),
            "done",
            0,
        ),
    ],
)
def test_its_end_is_that_of_a_process(
    ready: subprocess.Popen, tmp_path: Path, program: str, said: str, code: int
) -> None:
    step = start(tmp_path, program)
    output, _ = step.communicate()
    assert output.splitlines()[-1] == said
    assert step.returncode == code


def test_what_an_import_shares_outlives_a_fork(ready: subprocess.Popen, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    assert start(tmp_path, "", cwd=tmp_path).wait(60) == 0
    assert (tmp_path / "shared").is_dir()


def test_what_an_import_sets_is_set_in_a_fork(ready: subprocess.Popen, tmp_path: Path) -> None:
    step = start(tmp_path, "import os; print(os.environ['SET_BY_AN_IMPORT'])")
    assert step.communicate()[0] == "1\n"


def test_a_working_directory_may_be_gone(ready: subprocess.Popen, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    step = start(tmp_path, "print('done')", cwd=gone, preexec_fn=lambda: gone.rmdir())
    assert step.communicate()[0] == "done\n"


def test_a_closed_stream_is_closed_in_the_step(ready: subprocess.Popen, tmp_path: Path) -> None:
    step = start(tmp_path, "import sys; print(sys.stdin)", preexec_fn=lambda: os.close(0))
    assert step.communicate()[0] == "None\n"


def test_a_directory_of_the_same_name_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").touch()
    step = start(tmp_path, "print('done')", cwd=tmp_path, env={"PYTHONPATH": f"{ROOT}:{tmp_path}"})
    assert step.communicate()[0] == "done\n"


def test_where_no_socket_fits_steps_stay_new_processes(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    before = psutil.Process().children()
    with preloaded.available(directory, sys.stderr) as step_begins:
        step_begins(True)
        step_begins(True)
        assert preloaded.ADDRESS not in os.environ
        assert psutil.Process().children() == before


def test_without_the_process_a_step_is_run_all_the_same(
    ready: subprocess.Popen, tmp_path: Path
) -> None:
    ready.kill()
    ready.wait()
    step = start(tmp_path, "print('done')")
    assert step.communicate()[0] == "done\n"
    assert step.returncode == 0


@pytest.fixture
def no_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no memory for one."""
    monkeypatch.setenv("NO_FORKS", "1")


def test_where_it_cannot_be_forked_a_step_is_a_new_process(
    no_forks: None, ready: subprocess.Popen, tmp_path: Path
) -> None:
    for _ in range(2):
        step = start(tmp_path, "import os; print(os.getppid())")
        assert step.communicate()[0] == f"{os.getpid()}\n"
    assert ready.poll() is None


def test_after_the_first_step_that_computes_they_are_forks(tmp_path: Path) -> None:
    before = psutil.Process().children()
    with (
        (tmp_path / "log").open("w+") as log,
        preloaded.available(tmp_path, log) as step_begins,
    ):
        step_begins(False)
        assert set(psutil.Process().children()) == set(before)
        step_begins(True)
        assert preloaded.ADDRESS not in os.environ, "it would wait for the imports"
        (process,) = set(psutil.Process().children()) - set(before)
        step_begins(False)
        wait_until(Path(os.environ[preloaded.ADDRESS]).exists)
        step = start(tmp_path, "import os; print(os.getppid())")  # which waits for them
        assert step.communicate()[0] == f"{process.pid}\n"
    assert preloaded.ADDRESS not in os.environ
    assert not process.is_running()


WAITS = "import os, threading; print(os.getpid(), flush=True); threading.Event().wait()"


def test_a_fork_that_is_killed_is_a_failure(ready: subprocess.Popen, tmp_path: Path) -> None:
    step = start(tmp_path, WAITS)
    assert step.stdout
    os.kill(int(step.stdout.readline()), signal.SIGKILL)
    assert step.wait(60) == 1


def test_a_fork_does_not_outlive_the_step_that_was_killed(
    ready: subprocess.Popen, tmp_path: Path
) -> None:
    step = start(tmp_path, WAITS)
    assert step.stdout
    fork = psutil.Process(int(step.stdout.readline()))
    step.kill()
    fork.wait(60)
    assert ready.poll() is None


def test_a_fork_stays_below_the_run_if_the_process_is_killed(
    ready: subprocess.Popen, tmp_path: Path
) -> None:
    with preloaded.available(tmp_path, sys.stderr):
        step = start(tmp_path, WAITS)
        assert step.stdout
        fork = psutil.Process(int(step.stdout.readline()))
        ready.kill()
        ready.wait()
        assert fork.parent() == psutil.Process()
        fork.kill()
        os.waitpid(fork.pid, 0)
    assert step.wait(60) == 1


def test_it_does_not_outlive_the_run(ready: subprocess.Popen) -> None:
    assert ready.stdin
    ready.stdin.close()  # as where the run is killed
    assert ready.wait(60) == 0


def test_interrupted_it_is_the_last_to_end(ready: subprocess.Popen, tmp_path: Path) -> None:
    step = start(tmp_path, f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {WAITS}")
    assert step.stdout
    fork = psutil.Process(int(step.stdout.readline()))
    for process in (ready, fork, step):
        process.send_signal(signal.SIGINT)
    waiting = psutil.Process(ready.pid)
    wait_until(lambda: not waiting.connections("unix"))
    assert fork.parent() == waiting
    fork.kill()
    assert ready.wait(60) == 0
    assert step.wait(60) == 1


def test_what_is_imported_has_not_begun_to_compute() -> None:
    """Nor has it threads, but for those that stop around a fork; both would make a fork unsafe."""
    program = (
        "import importlib, json, pathlib\n"
        f"for name in {preloaded._IMPORTED}: importlib.import_module(name)\n"
        "import tensorflow as tf\n"
        "from tensorflow.python.eager import context\n"
        "tf.config.threading.set_inter_op_parallelism_threads(1)\n"  # an error after that
        "assert context.context()._physical_devices is None\n"  # CUDA is initialised to list them
        "tasks = pathlib.Path('/proc/self/task').glob('*/comm')\n"
        "print(json.dumps([task.read_text().strip() for task in tasks]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        # OpenBLAS would have threads of its own.
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    others = [name for name in json.loads(done.stdout) if name != "jemalloc_bg_thd"]
    assert len(others) == 1


def test_the_command_of_a_component_is_changed_and_no_more() -> None:
    whole = train_step.component_spec.implementation.container.command
    changed = preloaded.command(whole)
    assert changed[3] == whole[3], "the source of the step"
    wanted = "python3 -P -m pipelines.preloaded kfp.dsl.executor_main "
    assert changed[2].replace(wanted, "python3 -m kfp.dsl.executor_main ") == whole[2]
    assert changed[2] != whole[2]
