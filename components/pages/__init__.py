"""Renders the HTML pages that steps write: self-contained, for light and dark mode, without scripts."""

import base64
import io
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image


def render(template: str, **values: Any) -> str:
    """Returns a page.

    Args:
      template: a file of `components/pages/templates`, HTML or Markdown.
      values: the template's variables, besides `version`. In HTML, text is escaped; markup must be a
        `Markup`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("components.pages"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent,
        measure=measure,
        interval=_interval,
        words=_words,
        area=_area,
        area_words=_area_words,
    )
    return environment.get_template(template).render({"version": version("cxrflow"), **values})


def image_uri(image: Image.Image) -> str:
    """Returns a data URI of a picture as JPEG, so that a page needs no other files."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def measure(value: float | None) -> str:
    """Returns the text of a count (an int), of a share in 0..1, or of neither (None)."""
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def _interval(rate: Mapping[str, float | None]) -> Markup:
    """Formats a rate of `training.intervals` with its interval."""
    if rate["value"] is None:
        return Markup("–")
    low, high = rate["low"], rate["high"]
    if low is None or high is None:
        return Markup(f"<b>{100 * rate['value']:.1f}</b>")
    return Markup(
        f"<b>{100 * rate['value']:.1f}</b> <small>{100 * low:.0f}–{100 * high:.0f}</small>"
    )


def _words(rate: Mapping[str, float | None]) -> str:
    """Formats a rate with its interval as text."""
    if rate["value"] is None:
        return "–"
    low, high = rate["low"], rate["high"]
    return f"{100 * rate['value']:.1f}\u00a0% ({100 * (low or 0):.0f}–{100 * (high or 0):.0f})"


def _area(rate: Mapping[str, float | None]) -> Markup:
    """Formats an area under a ROC curve with its interval."""
    value, interval = _area_words(rate).partition(" ")[::2]
    return Markup(f"<b>{value}</b> <small>{interval.strip('()')}</small>" if interval else value)


def _area_words(rate: Mapping[str, float | None]) -> str:
    """Formats an area under a ROC curve with its interval as text."""
    if rate["value"] is None:
        return "–"
    return f"{rate['value']:.3f} ({rate['low'] or 0:.2f}–{rate['high'] or 0:.2f})"
