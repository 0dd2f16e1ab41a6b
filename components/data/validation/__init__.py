"""What every ingested example must be, and the program that says whether it is."""

from pathlib import Path

SCHEMA = Path(__file__).parent / "schema.pbtxt"
WARNINGS = Path(__file__).parent / "warnings.pbtxt"
