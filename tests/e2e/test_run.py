"""What a user does: run everything on the two datasets, look at the report, ask the winner."""

import json
import re
import shutil
from pathlib import Path

import httpx
import pandas as pd

from components.data.sources.covid_chestxray import MASKS
from tests.pipelines.cli import cxrflow

QUICK = ("--quick", "--recipes", "cnn-dubey", "--epochs", "1", "--weights", "none")


def latest_run(output: Path) -> Path:
    return max((output / "runs").iterdir())


def test_from_datasets_to_an_answer(
    covid_directory: Path, kermany_directory: Path, lungs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    # An earlier run on the same masks has trained the segmenter.
    shutil.copytree(lungs.parent / "kept", output / "archive" / "checkpoints")
    sources = ("--covid", str(covid_directory), "--kermany", str(kermany_directory))
    said = cxrflow("run", *sources, *QUICK, "--gate", "default=0", "--output", str(output))
    try:
        begun = [line.split(" ", 1)[1] for line in said.splitlines() if line[:1].isdigit()]
        assert begun[:4] == ["check for new data", "ingest", "validate", "choose to train"]
        assert begun[4] == "write records"
        assert {*begun[5:7]} == {"champion", "find lungs"}
        assert begun[7] == "train"
        assert {*begun[8:10]} == {"evaluate", "audit"}
        assert begun[10] == "gate"
        assert set(begun[11:]) == {"report", "deploy"}
        for page in (
            "report.html",
            "evaluation-cnn-dubey+quick.html",
            "audit-cnn-dubey+quick.html",
            "lungs.html",
            "validation.html",
        ):
            assert str(output / "report" / page) in said
            assert (output / "report" / page).is_file()
        version = output / "store" / "cxrflow" / "1"
        assert json.loads((version / "decision.json").read_text())["winner"] == "cnn-dubey+quick"

        image = covid_directory / "images" / "phantom-0000.png"
        answer = cxrflow("predict", str(image), "--output", str(output))
        assert "covid" in answer
        trust = json.loads((version / "decision.json").read_text())["candidates"][0]["trust"]
        for told in (said, answer):
            assert f"is {trust['verdict']}\n  {trust['reasons'][0]}" in told
        assert "flag: candidates that pass the gate are deployed with their verdict" in said
        assert "%" in answer

        # What is served is audited again, as long after as one likes.
        said = cxrflow("audit", str(version), *sources, "--output", str(output))
        assert any(line.startswith(("kept", "broken", "not judged")) for line in said.splitlines())
        assert str(output / "audit" / "audit" / "audit.html") in said
        assert (output / "audit" / "audit" / "audit.html").is_file()
        said = cxrflow("lungs", *sources, "--output", str(output))
        assert re.search(r"Dice +0\.\d{3} on \d+ masks held out", said)
        assert (output / "audit" / "lungs" / "lungs.html").is_file()

        # Once more, with a gate that nobody passes: an outcome, not an error; what serves stays.
        said = cxrflow("run", *sources, *QUICK, "--gate", "default=1", "--output", str(output))
        assert "nothing is deployed" in said
        assert said.count("already trained") == 1
        assert "the lung segmenter of these" in said
        assert "deploy" not in [
            line.split()[-1] for line in said.splitlines() if line[:1].isdigit()
        ]
        assert [
            entry.name for entry in (output / "store/cxrflow").iterdir() if entry.name.isdigit()
        ] == ["1"]
        (server,) = (line.split()[1] for line in said.splitlines() if line.startswith("server"))
        assert httpx.get(server).status_code == 200
    finally:
        assert "stopped" in cxrflow("stop", "--output", str(output))


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


def test_on_real_x_rays(real_data: Path, tmp_path: Path) -> None:
    """With adults of a third source, and more of them to be measured on, for a model of the lungs alone."""
    covid, kermany = cut_down(real_data, tmp_path)
    for folder, every in (("No_findings", 6), ("Pneumonia", 25)):
        (tmp_path / folder / folder).mkdir(parents=True)
        for file in sorted((real_data / "nih-chestxray" / folder).iterdir())[::every]:
            shutil.copy(file, tmp_path / folder / folder)
    output = tmp_path / "output"
    name = "cnn-dubey+lungs+augmented+balanced"
    said = cxrflow(
        "run", "--covid", str(covid), "--kermany", str(kermany), *QUICK, "--recipes", name,
        "--source", rf"nih={tmp_path / 'No_findings'},patient=^(\d+)_",
        "--external", f"ill={tmp_path / 'Pneumonia'}",
        "--trust", "enforce", "--output", str(output), "--no-serve",
    )  # fmt: skip
    (run,) = latest_run(output).glob("*/")
    examples = pd.read_parquet(run / "ingest-step" / "examples" / "examples.parquet")
    summary = json.loads((run / "ingest-step" / "examples" / "summary.json").read_text())
    assert len(examples) > 200
    assert examples.groupby("patient")["split"].nunique().max() == 1
    assert summary["leakage"]["ours"] == 0
    assert len(summary["absent"]) > 300
    assert not summary["phantoms"]
    assert set(examples["source"]) == {"covid-chestxray", "kermany", "nih"}
    (card,) = (json.loads(file.read_text()) for file in run.glob("*/train-step/model/model.json"))
    assert card["recipe"]["view"] == "lungs"
    assert card["further_sources"] == ["nih"]
    (audit,) = (json.loads(file.read_text()) for file in run.glob("*/audit-step/audit/audit.json"))
    (place,) = audit["external"]
    assert (place["name"], place["images"]) == ("ill", 12)
    assert f"{name}+quick is refused" in said
    assert "enforce: only trusted candidates that pass the gate are deployed" in said
    page = (output / "report" / "report.html").read_text()
    assert "Drawn images" not in page
    assert "test images accuracy" in said


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
