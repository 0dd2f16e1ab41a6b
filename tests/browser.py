"""Pages in a real browser."""

from pathlib import Path

from playwright.sync_api import Browser, Page


def opened(browser: Browser, address: Path | str, width: int, scheme: str = "light") -> Page:
    """Opens a file or a URL; an error of a script or a file that is missing fails."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto(address.as_uri() if isinstance(address, Path) else address)
    assert not problems
    return page


def require_whole(page: Page, width: int) -> None:
    """Checks that a page fits its window and that every picture on it is drawn."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for picture in page.query_selector_all("img"):
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert page.query_selector("svg, img, table")
    drawings = page.query_selector_all("svg")
    assert all(drawing.bounding_box()["height"] > 40 for drawing in drawings)
