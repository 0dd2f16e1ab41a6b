"""The page, in a real browser."""

import base64
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from serving.cluster import known_answers
from tests.browser import opened
from tests.serving.files import dicom, encoded, v1


@pytest.fixture
def files(tmp_path: Path, picture, known: list[np.ndarray]) -> dict[str, Path]:
    """Returns files as a user has them: good ones, one that is no X-ray, and one that is no image."""
    contents = {
        "front.png": encoded(known[0]),
        "second.jpg": encoded(known[1], "JPEG"),
        "third.dcm": dicom(known[2].astype(np.uint16), bits=8),
        "waves.png": encoded(picture(120, 100, seed=1)),
        "notes.png": b"only text",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


@pytest.fixture
def known(version: Path, url: str) -> list[np.ndarray]:
    """Drawn radiographs that are answered, uint8 [height, width]."""
    contents = [base64.b64decode(row["image"]) for row in known_answers.read(version)]
    told = httpx.post(f"{url}/v1/models/cxrflow:predict", json=v1(*contents), timeout=60).json()
    pairs = zip(contents, told["predictions"], strict=True)
    answered = [content for content, prediction in pairs if not prediction["abstained"]]
    return [np.asarray(Image.open(io.BytesIO(content)).convert("L")) for content in answered]


def answered(page: Page, count: int) -> None:
    expect(page.get_by_role("status")).to_have_text(f"{count} of {count} answered", timeout=60_000)


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (360, "dark")])
def test_files_are_answered_each_with_its_picture_or_its_error(
    browser: Browser, url: str, files: dict[str, Path], width: int, scheme: str
) -> None:
    page = opened(browser, url, width, scheme)
    page.get_by_label("Drop X-rays here").set_input_files(list(files.values()))
    answered(page, 5)
    results = page.get_by_label("Results").get_by_role("article")
    assert [one.get_by_role("heading").inner_text() for one in results.all()] == list(files)
    for result in results.all()[:3]:
        assert result.locator(".label").inner_text() in ("covid", "normal")
        shares = [float(text[:-2]) for text in result.locator(".shares .value").all_inner_texts()]
        assert sum(shares) == pytest.approx(100, abs=0.2)
        assert shares == sorted(shares, reverse=True)
        bars = [bar.bounding_box()["width"] for bar in result.locator(".bar i").all()]
        whole = result.locator(".bar").first.bounding_box()["width"]
        assert bars == pytest.approx([whole * share / 100 for share in shares], abs=1)
        for image in result.get_by_role("img").all():
            assert image.evaluate("image => image.naturalWidth") > 0
    unlike = results.nth(3)
    assert unlike.locator(".label").inner_text() == "no answer"
    expect(unlike.locator(".abstained")).to_contain_text("The model abstains")
    assert unlike.locator(".shares li").count() == 0
    expect(results.nth(4).get_by_role("alert")).to_contain_text("This file is not an image")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_heat_map_fades_with_its_slider(
    browser: Browser, url: str, files: dict[str, Path]
) -> None:
    page = opened(browser, url, 900)
    page.get_by_label("Drop X-rays here").set_input_files(files["front.png"])
    answered(page, 1)
    overlay = page.locator(".overlay")
    slider = page.get_by_role("slider", name="heat map")
    slider.focus()
    for key, opacity in (("Home", "0"), ("End", "1"), ("ArrowLeft", "0.99")):
        slider.press(key)
        assert overlay.evaluate("image => getComputedStyle(image).opacity") == opacity
    picture = page.locator(".picture").bounding_box()
    assert overlay.bounding_box() == pytest.approx(picture)
    page.close()


def test_a_file_is_dropped(browser: Browser, url: str, files: dict[str, Path]) -> None:
    page = opened(browser, url, 900)
    content = list(files["front.png"].read_bytes())
    transfer = page.evaluate_handle(
        """content => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], "dropped.png"));
            return transfer;
        }""",
        content,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    answered(page, 1)
    expect(page.get_by_role("article").get_by_role("heading")).to_have_text("dropped.png")
    page.close()


def test_it_is_used_with_a_keyboard_alone(
    browser: Browser, url: str, files: dict[str, Path]
) -> None:
    page = opened(browser, url, 900)
    # From the first listener on the browser hands its dialog over, but nothing waits for that.
    page.on("filechooser", lambda _: None)
    expect(page.locator("#model")).to_contain_text("version")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Drop X-rays here")).to_be_focused()
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Space")
    chosen.value.set_files(files["third.dcm"])
    answered(page, 1)
    page.close()


def test_the_verdict_is_above_the_first_result(
    browser: Browser, url: str, files: dict[str, Path]
) -> None:
    trust = httpx.get(f"{url}/model").json()["trust"]
    page = opened(browser, url, 900)
    verdict = page.get_by_label("Verdict")
    expect(verdict).to_contain_text(f"This model is {trust['verdict']}")
    for reason in trust["reasons"]:
        expect(verdict).to_contain_text(reason)
    page.get_by_label("Drop X-rays here").set_input_files(files["front.png"])
    answered(page, 1)
    result = page.get_by_label("Results").get_by_role("article").first
    expect(verdict).to_be_visible()
    above = verdict.bounding_box()
    assert above["y"] + above["height"] <= result.bounding_box()["y"]
    page.close()


def test_the_verdict_is_that_of_the_version_that_answers(
    browser: Browser, url: str, files: dict[str, Path]
) -> None:
    page = opened(browser, url, 900)

    def newer(route) -> None:
        answer = route.fetch()
        told = answer.json()
        told["predictions"][0]["trust"] = {"verdict": "trusted", "reasons": []}
        route.fulfill(response=answer, json=told)

    page.route("**/*:explain", newer)
    page.get_by_label("Drop X-rays here").set_input_files(files["front.png"])
    answered(page, 1)
    expect(page.get_by_label("Verdict")).to_contain_text("This model is trusted")
    expect(page.get_by_label("Verdict").get_by_role("listitem")).to_have_count(0)
    page.close()


def test_it_says_what_the_model_is_and_how_well_it_does(browser: Browser, url: str) -> None:
    page = opened(browser, url, 900)
    told = httpx.get(f"{url}/model").json()
    expect(page.locator("#model")).to_contain_text(f"version {told['version']}: cnn-dubey")
    expect(page.get_by_text("Research software, not a medical device.")).to_be_visible()
    expect(page.get_by_text("Trained on drawings.")).to_be_visible()
    rows = page.get_by_role("table").get_by_role("row").all_inner_texts()[1:]
    assert [row.split()[0] for row in rows] == told["classes"]
    assert f"{100 * told['recall'][0]['low']:.1f} %" in rows[0]
    for link, heading in (("what it is for", "Intended use"), ("what it looks at", "Calibration")):
        page.get_by_role("link", name=link).click()
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        assert (
            page.evaluate("getComputedStyle(document.body).margin") == "0px"
        )  # its style is let in
        page.go_back()
    page.close()


def test_a_server_that_is_gone_is_said_so(
    browser: Browser, url: str, files: dict[str, Path]
) -> None:
    page = opened(browser, url, 900)
    page.route("**/*:explain", lambda route: route.abort())
    page.get_by_label("Drop X-rays here").set_input_files(files["front.png"])
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    page.close()


def test_a_busy_server_is_asked_again(browser: Browser, url: str, files: dict[str, Path]) -> None:
    page = opened(browser, url, 900)
    turned_away = []

    def once(route) -> None:
        if turned_away:
            route.continue_()
        else:
            turned_away.append(route)
            route.fulfill(status=503, json={"error": "the server is busy"})

    page.route("**/*:explain", once)
    page.get_by_label("Drop X-rays here").set_input_files(files["front.png"])
    answered(page, 1)
    expect(page.locator(".shares li")).to_have_count(2)
    page.close()


def test_no_script_but_the_pages_own_may_run(url: str) -> None:
    for path in ("/", "/page/page.js", "/v2/health/live"):
        headers = httpx.get(f"{url}{path}").headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    text = httpx.get(url).text
    assert "http://" not in text
    assert "https://" not in text
