"""Whatever is sent, the server answers, and the decoders do not crash."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import imagecodecs
import numpy as np
import schemathesis
from hypothesis import given, settings
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless

from tests.serving import dcmtk
from tests.serving.files import dicom, encapsulated, encoded

# Of one allocation: libFuzzer takes the test's own memory, which a process inherits, for the fuzzer's.
MEMORY = ("-rss_limit_mb=0", "-malloc_limit_mb=512")
FUZZ = Path(__file__).with_name("fuzz_radiograph.py")


def test_nothing_that_openapi_allows_is_a_servers_error(url: str) -> None:
    asked = []
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()

        @settings(max_examples=60, deadline=None)
        @given(case=operation.as_strategy())
        def ask(case) -> None:
            answer = case.call(base_url=url)
            assert answer.status_code < 500, answer.text

        ask()
        asked.append(operation.path)
    assert "/v1/models/{model_name}:explain" in asked


def test_openapi_describes_what_is_sent(url: str) -> None:
    text = httpx.get(f"{url}/openapi.json").text
    told = json.loads(text)
    schemas = told["components"]["schemas"]
    assert schemas["V1Request"]["required"] == ["instances"]
    assert schemas["V2Request"]["required"] == ["inputs"]
    assert set(re.findall(r'"\$ref":"#/components/schemas/(\w+)"', text)) <= set(schemas)
    for path, schema in (
        ("v1/models/{model_name}:predict", "V1"),
        ("v2/models/{model_name}/infer", "V2"),
    ):
        body = told["paths"][f"/{path}"]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"]["$ref"].endswith(f"/{schema}Request")
    assert not any("repository" in path for path in told["paths"])


def test_the_decoders_do_not_crash(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    image = Image.linear_gradient("L").resize((24, 24))
    seeds = [encoded(image, kind) for kind in ("PNG", "JPEG", "WEBP")]
    seeds += [encoded(image.convert("CMYK"), "JPEG"), encoded(image.convert("P"))]
    values = np.asarray(image)
    seeds += [dicom(values), dicom(values.astype(np.int16), bits=12, WindowCenter=9, WindowWidth=5)]
    deep = values.astype(np.uint16) * 16
    for syntax, frame in (
        (JPEGLSLossless, imagecodecs.jpegls_encode(deep)),
        (JPEG2000Lossless, imagecodecs.jpeg2k_encode(deep, codecformat="j2k")),
        (JPEGExtended12Bit, imagecodecs.jpeg8_encode(deep, bitspersample=12)),
        (JPEGLosslessSV1, imagecodecs.jpeg8_encode(deep, lossless=True, bitspersample=16)),
    ):
        seeds += [encapsulated(dicom(deep, bits=12), syntax, frame)]
    seeds += [dcmtk.compressed(dicom(deep, bits=12), "dcmcrle")]
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)
    done = subprocess.run(
        [
            sys.executable,
            str(FUZZ),
            "-runs=20000",
            "-seed=1",
            "-max_len=4096",
            *MEMORY,
            str(corpus),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Done 20000" in done.stderr
