"""Fuzzes what reads clients' files: run by test_fuzz.py, or alone with libFuzzer's options."""

import sys

import atheris

with atheris.instrument_imports(include=["serving", "components", "pydicom"]):
    from core.images import BadImage
    from serving import radiograph


def read(content: bytes) -> None:
    try:
        radiograph.read(content, 1_000_000)
    except BadImage:
        return


atheris.Setup(sys.argv, read)
atheris.Fuzz()
