"""Measures the processor time to start steps and commands, as a ratio to that of importing KFP."""

import ast
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from components import steps
from components.data import spans
from components.data.ingest import ingest
from pipelines import preloaded
from tests.api import served
from tests.pipelines.kubeflow_api import Api

TURNS = 5
CXRFLOW = str(Path(sys.executable).parent / "cxrflow")


def importing(module: str) -> list[str]:
    """Returns the command that imports a module."""
    return [sys.executable, "-c", f"import {module}"]


KFP = importing("kfp")


def startup(home: Path, covid: Path, kermany: Path) -> Iterator[str]:
    """Yields the cost of each step's imports, of each light command, and of an idle run.

    Args:
      home: the directory for all output.
      covid, kermany: the datasets' directories.
    """
    components = home / "imports.py"
    components.write_text(of_steps(Path(steps.__file__).read_text(encoding="utf-8")))
    empty = executor(components, "empty")
    yield "steps: the imports of a step's body, in KFP's executor, to an empty component"
    for node in ast.parse(components.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name != "empty":
            yield compared(node.name, executor(components, node.name), empty)
    yield "wall-clock time of the start of `evaluate`: as a fork, compared with a new process"
    with (home / "preloaded.log").open("w") as log, preloaded.available(home, log) as step_begins:
        step_begins(True)
        step_begins(True)
        if preloaded.ADDRESS in os.environ:
            for _ in range(600):
                if not Path(os.environ[preloaded.ADDRESS]).exists():
                    time.sleep(0.05)
            yield on_the_clock(executor(components, "evaluate_step"))
        else:
            yield "steps are never forks here"
    yield "`import tensorflow` as the server does it, compared with a plain one"
    yield compared(
        "training.without_keras", importing("training.without_keras"), importing("tensorflow")
    )
    yield "commands, to `import kfp`"
    nowhere = {"KUBECONFIG": str(home / "none"), "HOME": str(home)}
    with served(Api().serve) as url:
        # Without a version or a cluster, some end with an error after their imports.
        for arguments, wanted, ends in (
            (["--help"], "at most 0.5 s", 0),
            (["compile", str(home / "pipeline.yaml")], "at most 2", 0),
            (["submit", "--host", url], "at most 2", 0),
            (["runs", "--host", url], "at most 2", 0),
            (["schedule", "--every", "7d", "--host", url], "at most 2", 0),
            (["lineage", "--store", str(home)], "at most 2", 1),
            (["promote"], "at most 2", 1),
            (["rollback"], "at most 2", 1),
        ):
            command = [CXRFLOW, *arguments]
            yield compared(arguments[0], command, KFP, wanted, nowhere, ends)
    yield "a run with nothing to do, to `import kfp`"
    archive = home / "startup" / "archive"
    ingest(covid, kermany, home / "startup" / "examples", archive=archive)
    spans.record_outcome(archive, 1, spans.State.REFUSED, "as if")
    run = [
        CXRFLOW, "run", "--if-new", "--covid", str(covid), "--kermany", str(kermany),
        "--archive", str(archive), "--output", str(home / "startup"), "--weights", "none",
    ]  # fmt: skip
    yield compared("run --if-new, including its step", run, KFP)


def of_steps(source: str) -> str:
    """Returns a module with a function for each step that has the imports of the step's body.

    Later imports, inside the functions that a step calls, are not included.
    """
    functions = ["def empty():\n    pass\n"]
    for step in ast.parse(source).body:
        if isinstance(step, ast.FunctionDef) and step.decorator_list:
            imports = [node for node in step.body if isinstance(node, ast.Import | ast.ImportFrom)]
            body = "\n".join(f"    {ast.unparse(node)}" for node in imports)
            functions.append(f"def {step.name}():\n{body}\n")
    return "\n\n".join(functions)


def executor(module: Path, function: str) -> list[str]:
    """Returns the command with which `kfp.local` starts a component."""
    return [
        sys.executable, "-m", "kfp.dsl.executor_main",
        "--component_module_path", str(module), "--function_to_execute", function,
        "--executor_input", json.dumps({"outputs": {"outputFile": str(module.with_suffix(".json"))}}),
    ]  # fmt: skip


def on_the_clock(new: list[str]) -> str:
    """Compares how long a step takes as a fork and as a new process; each is the median of its turns."""
    fork = [new[0], "-P", "-m", "pipelines.preloaded", *new[2:]]
    cost(fork, {}, 0)  # it waits until all is imported
    pairs = [(seconds(fork), seconds(new)) for _ in range(TURNS)]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    return f"[bold]{ours / theirs:6.2f}[/]  evaluate_step: {ours:.2f} s to {theirs:.2f} s"


def seconds(command: Sequence[str]) -> float:
    before = time.perf_counter()
    cost(command, {}, 0)
    return time.perf_counter() - before


def compared(
    what: str,
    command: Sequence[str],
    baseline: Sequence[str],
    wanted: str = "",
    environment: Mapping[str, str] = {},
    ends: int = 0,
) -> str:
    """Compares the processor time of a command with that of another; each is the median of its turns."""
    pairs = [
        (cost(command, environment, ends), cost(baseline, environment, 0)) for _ in range(TURNS)
    ]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(mine / other for mine, other in pairs)
    told = f" (wanted: {wanted})" if wanted else ""
    return f"[bold]{ratio:6.2f}[/]  {what}: {ours:.2f} s to {theirs:.2f} s{told}"


def cost(command: Sequence[str], environment: Mapping[str, str], ends: int) -> float:
    """Returns the processor time in seconds of a command and the processes that it waits for.

    Args:
      ends: the expected exit code.
    """
    runtime = {"_KFP_RUNTIME": "true"} if "kfp.dsl.executor_main" in command else {}
    before = os.times()
    done = subprocess.run(
        command,
        env={**os.environ, **runtime, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    after = os.times()
    assert done.returncode == ends, (command, done.returncode)
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
