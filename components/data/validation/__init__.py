"""The schema of the examples, and the program that validates them."""

from pathlib import Path

SCHEMA = Path(__file__).parent / "schema.pbtxt"
WARNINGS = Path(__file__).parent / "warnings.pbtxt"
