"""What a user does: run everything on the two datasets, look at the report, ask the winner."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx
import pandas as pd
import pytest

from components.data.sources.covid_chestxray import MASKS
from tests.conftest import real_x_rays
from tests.pipelines.cli import cxrflow

RECIPE = "cnn-dubey+lungs+augmented+balanced"
QUICK = ("--quick", "--recipes", RECIPE, "--epochs", "1", "--weights", "none")


def latest_run(output: Path) -> Path:
    return max((output / "runs").iterdir())


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a user has: the two datasets, and options for more of them."""

    covid: Path
    kermany: Path
    real: bool
    further: tuple[str, ...] = ()
    external: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        return ("--covid", str(self.covid), "--kermany", str(self.kermany), *self.further)


@pytest.fixture
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> Sources:
    """Real X-rays if there are any, otherwise phantoms.

    Real ones include a third source of adults, and images for `--external`.
    """
    if not (real_x_rays() or os.environ.get("CI")):
        covid, kermany = map(request.getfixturevalue, ("covid_directory", "kermany_directory"))
        return Sources(covid=covid, kermany=kermany, real=False)
    real = request.getfixturevalue("real_data")
    for folder, every in (("No_findings", 6), ("Pneumonia", 25)):
        (tmp_path / folder / folder).mkdir(parents=True)
        for file in sorted((real / "nih-chestxray" / folder).iterdir())[::every]:
            shutil.copy(file, tmp_path / folder / folder)
    covid, kermany = cut_down(real, tmp_path)
    third = rf"nih={tmp_path / 'No_findings'},patient=^(\d+)_"
    return Sources(
        covid=covid,
        kermany=kermany,
        real=True,
        further=("--source", third),
        external=("--external", f"ill={tmp_path / 'Pneumonia'}"),
    )


def cut_down(source: Path, target: Path) -> tuple[Path, Path]:
    """Copies the real metadata whole and some of the images; the others are then absent."""
    covid, kermany = target / "covid-chestxray-dataset", target / "chest_xray"
    (covid / "images").mkdir(parents=True)
    real = source / "covid-chestxray-dataset"
    shutil.copy(real / "metadata.csv", covid)
    for file in sorted((real / "images").iterdir())[::5]:
        shutil.copy(file, covid / "images")
    shutil.copytree(real / MASKS, covid / MASKS)
    for folder in sorted((source / "chest_xray").glob("*/*")):
        (kermany / folder.relative_to(source / "chest_xray")).mkdir(parents=True)
        for file in sorted(folder.iterdir())[::8]:
            shutil.copy(file, kermany / file.relative_to(source / "chest_xray"))
    return covid, kermany


def test_from_datasets_to_an_answer(sources: Sources, tmp_path: Path) -> None:
    output = tmp_path / "output"
    common = (*sources.options, "--output", str(output))
    measured = (*common, *sources.external)
    said = cxrflow("run", *measured, *QUICK, "--gate", "default=0")
    name = f"{RECIPE}+quick"
    try:
        assert steps(said)[:5] == [
            "check for new data", "ingest", "validate", "choose to train", "write records",
        ]  # fmt: skip
        assert {*steps(said)[5:7]} == {"champion", "find lungs"}
        assert steps(said)[7] == "train"
        assert {*steps(said)[8:10]} == {"evaluate", "audit"}
        assert steps(said)[10] == "gate"
        assert {*steps(said)[11:]} == {"report", "deploy"}
        pages = ("report", f"evaluation-{name}", f"audit-{name}", "lungs", "validation")
        for page in (output / "report" / f"{page}.html" for page in pages):
            assert str(page) in said
            of_networks = page.stem not in ("lungs", "validation")
            assert ("<b>A first look.</b>" in page.read_text()) == of_networks
        assert "test images accuracy" in said
        require_recorded(latest_run(output), sources)
        page = (output / "report" / "report.html").read_text()
        assert ("Drawn images" in page) != sources.real

        version = output / "store" / "cxrflow" / "1"
        assert json.loads((version / "decision.json").read_text())["winner"] == name
        image = min((sources.covid / "images").glob("*.png"))
        answer = cxrflow("predict", str(image), "--output", str(output))
        _, _, about = answer.partition(str(image))
        shares = re.findall(r"(covid|normal) \d+\.\d %", about)  # the more probable first
        assert sorted(shares) == ["covid", "normal"] or (sources.real and "abstained" in about)
        trust = json.loads((version / "decision.json").read_text())["candidates"][0]["trust"]
        for told in (said, answer):
            assert f"is {trust['verdict']}\n  {trust['reasons'][0]}" in told
        assert "flag: candidates that pass the gate are deployed with their verdict" in said

        # What is served is audited again, as long after as one likes.
        said = cxrflow("audit", str(version), *measured)
        assert any(line.startswith(("kept", "broken", "not judged")) for line in said.splitlines())
        assert str(output / "audit" / "audit" / "audit.html") in said
        assert (output / "audit" / "audit" / "audit.html").is_file()
        said = cxrflow("lungs", *common)
        # Of the real masks, these are a fifth; `make bench ONLY=lungs` measures with all of them.
        (dice,) = re.findall(r"Dice +(0\.\d{3}) on \d+ masks held out", said)
        assert float(dice) > 0.8
        assert (output / "audit" / "lungs" / "lungs.html").is_file()

        # Once more, beside another recipe and with a gate that nobody passes: an outcome, not an error. What
        # serves stays, and what was trained is found again.
        both = ("--recipes", f"{RECIPE},cnn-dubey", "--gate", "default=1", "--trust", "enforce")
        said = cxrflow("run", *measured, *QUICK, *both)
        assert "No candidate passed: nothing was deployed" in said
        tried = said.partition("What you can try:\n")[2]
        assert "--trust flag" in tried
        (refused,) = (line for line in said.splitlines() if f"{name} is refused" in line)
        assert trust["verdict"] in refused
        assert "enforce: only trusted candidates that pass the gate are deployed" in said
        (again,) = (line for line in said.splitlines() if "already trained" in line)
        assert f"{name}:" in again
        assert "cnn-dubey+quick: trained in" in said
        assert "the lung segmenter of these" in said
        assert "deploy" not in steps(said)
        assert [
            entry.name for entry in (output / "store/cxrflow").iterdir() if entry.name.isdigit()
        ] == ["1"]
        (server,) = (line.split()[1] for line in said.splitlines() if line.startswith("server"))
        assert httpx.get(server).status_code == 200
    finally:
        assert "stopped" in cxrflow("stop", "--output", str(output))


def steps(said: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in said.splitlines() if line[:1].isdigit()]


def require_recorded(home: Path, sources: Sources) -> None:
    """Checks what a run has recorded of its data and its model."""
    (run,) = home.glob("*/")
    examples = pd.read_parquet(run / "ingest-step" / "examples" / "examples.parquet")
    summary = json.loads((run / "ingest-step" / "examples" / "summary.json").read_text())
    assert examples.groupby("patient")["split"].nunique().max() == 1
    assert summary["leakage"]["ours"] == 0
    (card,) = (json.loads(file.read_text()) for file in run.glob("*/train-step/model/model.json"))
    assert card["recipe"]["view"] == "lungs"
    assert summary["phantoms"] != sources.real
    if sources.real:
        assert len(examples) > 200
        assert len(summary["absent"]) > 300
        assert set(examples["source"]) == {"covid-chestxray", "kermany", "nih"}
        assert card["further_sources"] == ["nih"]
        (file,) = run.glob("*/audit-step/audit/audit.json")
        (place,) = json.loads(file.read_text())["external"]
        assert (place["name"], place["images"]) == ("ill", 12)


def test_a_dataset_that_is_not_there_is_said_before_anything_runs(tmp_path: Path) -> None:
    sources = ("--covid", str(tmp_path), "--kermany", str(tmp_path))
    error = cxrflow("run", *sources, "--output", str(tmp_path / "out"), fails=True)
    assert "github.com/ieee8023/covid-chestxray-dataset" in error
    assert not (tmp_path / "out").exists()


def test_a_step_that_fails_ends_the_run_and_leaves_the_log(
    covid_directory: Path, kermany_directory: Path, tmp_path: Path
) -> None:
    covid = tmp_path / "covid"
    shutil.copytree(covid_directory, covid)
    for file in (covid / "images").iterdir():
        file.write_text("no image")
    sources = ("--covid", str(covid), "--kermany", str(kermany_directory))
    error = cxrflow("run", *sources, *QUICK, "--output", str(tmp_path / "out"), fails=True)
    assert "no usable image is labelled covid" in error
    log = latest_run(tmp_path / "out") / "run.log"
    assert str(log) in error
    assert "UserError" in log.read_text()
