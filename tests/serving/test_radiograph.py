from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.images import MAX_PIXELS
from serving import radiograph
from tests.serving.files import dicom, encoded


def test_hardly_a_real_chest_x_ray_is_doubted(real_data: Path) -> None:
    covid = real_data / "covid-chestxray-dataset"
    rows = pd.read_csv(covid / "metadata.csv")
    frontal = rows[rows["view"].isin(["PA", "AP", "AP Supine"])]["filename"]
    files = [covid / "images" / name for name in frontal[::2]]
    files += sorted((real_data / "chest_xray").rglob("*.jpeg"))[::7]
    files += sorted((real_data / "nih-chestxray").rglob("*.png"))[::7]
    read, doubted = 0, []
    for file in filter(Path.is_file, files):
        made = radiograph.read(file.read_bytes(), MAX_PIXELS)
        pixels = np.asarray(radiograph.shown(made.content), np.float32)
        doubts = [*made.doubts, *radiograph.doubts_about_pixels(pixels)]
        read += 1
        doubted += [(file.name, doubts)] if doubts else []
    assert read > 400
    assert len(doubted) <= read / 100, doubted


@pytest.mark.parametrize("kind", [encoded, dicom])
def test_what_has_too_few_pixels_is_doubted(picture, kind) -> None:
    def doubts(height: int, width: int) -> tuple[str, ...]:
        return radiograph.read(kind(picture(height, width)), MAX_PIXELS).doubts

    assert doubts(8, 8) == ("it is too small, 8 x 8 pixels",)
    assert doubts(200, 127) == ("it is too small, 127 x 200 pixels",)
    assert doubts(127, 200) == ("it is too small, 200 x 127 pixels",)
    assert doubts(128, 128) == ()


def test_colour_is_doubted_in_dicom_as_elsewhere() -> None:
    photo = np.asarray(
        Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * i) for i in range(3)])
    )
    for content in (encoded(photo), dicom(photo, photometric="RGB")):
        assert radiograph.read(content, MAX_PIXELS).doubts == ("it is in colour",)


def test_a_picture_is_shown_upright_and_no_larger_than_need_be(picture) -> None:
    import io

    buffer = io.BytesIO()
    large = Image.fromarray(picture(900, 1800))
    exif = large.getexif()
    exif[0x0112] = 6  # to be turned right by 90 degrees
    large.save(buffer, "JPEG", exif=exif)
    shown = radiograph.shown(buffer.getvalue())
    assert (shown.size, shown.mode) == ((256, 512), "L")
