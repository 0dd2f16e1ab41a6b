"""Draws the capture: the radiograph, beside it the radiograph with the heat map, below both the answer."""

import io
import textwrap

from PIL import Image, ImageDraw, ImageFont

from serving.pacs.endpoint import Answer

RESEARCH_ONLY = "Research use only. Not a diagnosis; must not inform anyone's care."
_SIZE, _LINE, _MARGIN, _COLUMNS = 18, 26, 14, 100
_ASCII = str.maketrans("–—−×“”‘’", "---x\"\"''")
_WHITE, _GREY, _YELLOW = (255, 255, 255), (190, 190, 190), (255, 214, 92)


def drawn(answer: Answer) -> Image.Image:
    """Returns the capture, 8-bit RGB, with nothing of the patient but the radiograph itself.

    If the model abstains, there is no heat map: it would explain an answer that means nothing.
    """
    picture = Image.open(io.BytesIO(answer.picture)).convert("RGB")
    heat = picture
    if not answer.abstained:
        overlay = Image.open(io.BytesIO(answer.overlay)).convert("RGBA")
        heat = Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")
    font = ImageFont.load_default(_SIZE)
    lines = [
        (line, colour)
        for text, colour in _caption(answer)
        for line in textwrap.wrap(_drawable(text), _COLUMNS)
    ]
    width = max(2 * picture.width + _MARGIN, 2 * 512 + _MARGIN)
    sheet = Image.new("RGB", (width, picture.height + 2 * _MARGIN + _LINE * len(lines)))
    left = (width - 2 * picture.width - _MARGIN) // 2
    sheet.paste(picture, (left, 0))
    sheet.paste(heat, (left + picture.width + _MARGIN, 0))
    pen = ImageDraw.Draw(sheet)
    for row, (line, colour) in enumerate(lines):
        place = (_MARGIN, picture.height + _MARGIN + _LINE * row)
        pen.text(place, line, fill=colour, font=font)
    return sheet


def _drawable(text: str) -> str:
    """Returns a text in the characters that Pillow's own font has."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def _caption(answer: Answer) -> list[tuple[str, tuple[int, int, int]]]:
    if answer.abstained:
        said = "No answer: the model abstains, because this image is unlike its training images"
    else:
        ordered = sorted(answer.probabilities.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in ordered)
        said = f"{answer.label} ({shares}; right: heat map for {answer.label})"
    score = f"out-of-distribution score {answer.ood_score:.2f} (abstains above 1)"
    reasons = f": {answer.trust_reasons}" if answer.trust_reasons else ""
    return [
        (RESEARCH_ONLY, _YELLOW),
        (said, _WHITE),
        *([(f"Doubtful: {answer.doubts}", _YELLOW)] if answer.doubts else []),
        (f"The model is {answer.trust}{reasons}", _WHITE),
        (f"Model {answer.model}, version {answer.version}; {score}", _GREY),
    ]
