"""The examples of docs/serving.md, run as they stand but for the ports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving.limits import Limits
from serving.local import Server
from tests.serving.files import encoded

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
EXAMPLES = re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("language", "code"), EXAMPLES, ids=[kind for kind, _ in EXAMPLES])
def test_an_example_runs(server: Server, picture, tmp_path: Path, language: str, code: str) -> None:
    (tmp_path / "x-ray.png").write_bytes(encoded(picture(90, 80)))
    code = code.replace("http://localhost:8080", server.url).replace("localhost:8081", server.grpc)
    program = {"bash": ["bash", "-eu", "-c"], "python": [sys.executable, "-c"]}[language]
    said = subprocess.run(
        [*program, code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert "probabilities" in said.stdout


def test_there_is_an_example_of_each_way() -> None:
    assert [language for language, _ in EXAMPLES] == ["bash", "python", "python"]


def test_every_limit_is_told_with_its_default() -> None:
    rows = dict(re.findall(r"\| `CXRFLOW_(\w+)` \| (\S+) \|", PAGE))
    told = {name.lower(): float(value) for name, value in rows.items()}
    assert told == {name: float(value) for name, value in Limits().model_dump().items()}
