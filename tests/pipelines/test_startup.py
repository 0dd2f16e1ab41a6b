"""What starts often, or does little, imports nothing that it does not compute with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.api import served
from tests.components.trust.test_gate import candidate
from tests.pipelines.kubeflow_api import Api

HEAVY = {"apache_beam", "keras", "scipy", "sklearn", "tensorflow"}

IMPORTED = """
import sys
from pathlib import Path
home, url = Path(sys.argv[1]), sys.argv[2]
{code}
print()
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""

STEPS = """
import components.data.check_for_new_data, components.release.deploy, components.release.report
import components.candidates.trial
from components.candidates.champion import champion
from components.data.choose_to_train import choose_to_train
from components.trust.gate import gate, record
champion("store", "cxrflow", home, home / "champion")
archive = home / "archive"
decided = gate(
    [home], {"default": 0.5}, home / "decision.json", home / "champion",
    examples=home, archive=archive, run="1",
)
record(decided, home, archive)
choose_to_train(home, home, None, 20, if_new=False)
"""

CALL = """
from core.errors import UserError
from pipelines.cli import app
def call(*arguments):
    try:
        app(arguments, standalone_mode=False)
    except UserError as error:
        print(error)
"""
OF_KUBEFLOW = """
call("compile", str(home / "pipeline.yaml"))
call("submit", "--host", url, "--canary", "50,100")
call("runs", "--host", url)
call("schedule", "--every", "7d", "--host", url)
"""
OTHERS = """
call("--help")
call("lineage", "--store", str(home))
call("promote")
call("rollback", "1")
call("pacs", "--dicomweb", "nowhere", "--url", "nowhere", "--watermark", str(home / "watermark.json"))
"""
WITHOUT_TRAINING = """
import components.data.write_shards, serving.server, tensorflow
assert all(tensorflow.__path__)
"""
PIPELINES = """
import components.steps, pipelines.cross_validation, pipelines.pretraining, pipelines.training_pipeline
"""


def imported(code: str, home: Path) -> tuple[str, set[str]]:
    """Returns what a fresh process says, and the packages that it has imported in the end."""
    environment = {**os.environ, "KUBECONFIG": str(home / "none"), "HOME": str(home)}
    with served(Api().serve) as url:
        done = subprocess.run(
            [sys.executable, "-c", IMPORTED.format(code=code), str(home), url],
            capture_output=True, text=True, check=False, cwd=home, env=environment,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, _, names = done.stdout.rstrip().rpartition("\n")
    return said, set(names.split())


@pytest.mark.parametrize(
    ("code", "unused"),
    [
        (STEPS, HEAVY | {"kfp", "kubernetes"}),
        (PIPELINES, HEAVY | {"pandas"}),
        (CALL + OF_KUBEFLOW, HEAVY | {"pandas"}),
        (CALL + OTHERS, HEAVY | {"kfp"}),
        (WITHOUT_TRAINING, {"keras", "kfp", "matplotlib", "sklearn"}),
    ],
    ids=["steps", "pipelines", "commands of Kubeflow", "other commands", "without training"],
)
def test_nothing_is_imported_that_is_not_used(code: str, unused: set[str], tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(candidate("a", covid=0.9)))
    (tmp_path / "summary.json").write_text(json.dumps({"span": {"number": 1}}))
    table = pd.DataFrame({"id": ["a"], "sha256": ["0"], "split": ["test"]})
    table.to_parquet(tmp_path / "examples.parquet")
    said, names = imported(code, tmp_path)
    assert not names & unused
    if code.endswith(OF_KUBEFLOW):  # they did what they are for
        assert (tmp_path / "pipeline.yaml").is_file()
        assert "run " in said
        assert "is scheduled" in said
