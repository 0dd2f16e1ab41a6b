"""The pages, in a real browser: drawn whole, legible in a narrow window and in the dark."""

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from components.release.report import report
from components.trust.gate import gate
from components.trust.rules import parse
from core.files import read_json, write_json
from tests.browser import opened, require_whole


@pytest.fixture(scope="module")
def pages(
    examples: Path,
    validation: Path,
    evaluation: Path,
    audit: Path,
    lungs: Path,
    version: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pages")
    gate([evaluation], parse("covid=0.5,default=1"), directory / "decision", audits=[audit])
    report(examples, validation, [evaluation], directory / "decision", directory / "report.html")
    return {
        "report": directory / "report.html",
        "evaluation": evaluation / "evaluation.html",
        "validation": validation / "validation.html",
        "audit": audit / "audit.html",
        "lungs": lungs / "lungs.html",
        "model card": version / "model_card.html",
    }


PAGES = ["report", "evaluation", "validation", "audit", "lungs", "model card"]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 1180])
def test_a_page_fits_its_window_and_shows_all_pictures(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    page = opened(browser, pages[name], width)
    require_whole(page, width)
    assert "Not a diagnostic device" in page.inner_text("footer")
    page.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str
) -> None:
    """WCAG 2.1 asks for a contrast of 4.5 for text."""
    page = opened(browser, pages[name], 1180, scheme)
    contrast = page.evaluate(
        """() => {
          const canvas = document.createElement("canvas").getContext("2d");
          const luminance = colour => {
            canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
              .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = element => {
            for (; element; element = element.parentElement) {
              const colour = getComputedStyle(element).backgroundColor;
              if (colour !== "rgba(0, 0, 0, 0)") return colour;
            }
            return "white";
          };
          return Math.min(...[...document.querySelectorAll("h1, h2, p, th, td, caption, footer")]
            .filter(element => element.innerText.trim())
            .map(element => [luminance(getComputedStyle(element).color), luminance(ground(element))])
            .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)));
        }"""
    )
    assert contrast >= 4.5
    page.close()


def test_the_report_says_what_was_decided_and_why(browser: Browser, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["report"], 1180)
    text = page.inner_text("main")
    decision = json.loads(pages["report"].with_name("decision").read_text())
    assert decision["reason"] in text
    for row in decision["candidates"]:
        reasons = [*row["reasons"], *row["trust"]["reasons"]]
        assert reasons
        # Each is a line of its own.
        lines = [line.text_content() for line in page.locator("td .line").all()]
        assert lines == reasons
        assert max(map(len, row["trust"]["reasons"])) < 130
    assert "would have had a relative in training" in text
    assert "says nothing about patients" in text, "phantoms are not shown as patients"
    page.close()


def test_the_report_says_how_candidates_that_pass_were_told_apart(
    examples: Path, validation: Path, evaluation: Path, tmp_path: Path
) -> None:
    metrics = read_json(evaluation / "metrics.json")
    candidates = [tmp_path / name for name in ("other", "twin")]
    for candidate in candidates:
        write_json(candidate / "metrics.json", {**metrics, "recipe": candidate.name})
    for run in ("one", "two", "three"):
        decided = gate(
            candidates, {"default": 0.0}, tmp_path / "decision",
            examples=examples, archive=tmp_path / "archive", run=run,
        )  # fmt: skip
    report(examples, validation, candidates, tmp_path / "decision", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    twin = decided["candidates"][1]
    assert "are those of other, which comes first" in twin["behind"]
    assert twin["behind"] in page
    assert "has a higher recall" not in page
    assert "--trust flag: candidates that pass the gate are deployed with their verdict." in page
    (caption,) = re.findall(r"<caption>(The gate requires.*?)</caption>", page, re.DOTALL)
    words = " ".join(caption.split())
    assert re.findall(r"[^.]* wins\b", words) == [
        " Of the candidates that pass, the most trusted one wins",
        " If several are trusted equally, the one with the highest COVID recall on the validation split wins",
    ]
    assert f"<br>{100 * metrics['validation']['macro_f1']:.1f}<td>" in page
    assert "Earlier decisions on this test split: 2." in page


def test_names_from_the_data_are_escaped(
    examples: Path, validation: Path, evaluation: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(examples, tmp_path / "examples"))
    summary = json.loads((copy / "summary.json").read_text())
    summary["excluded"][0].update(kind="metadata", reason="<script>alert(1)</script>")
    (copy / "summary.json").write_text(json.dumps(summary))
    gate([evaluation], {"default": 0.0}, tmp_path / "decision")
    report(copy, validation, [evaluation], tmp_path / "decision", tmp_path / "report.html")
    assert "<script>" not in (tmp_path / "report.html").read_text()
