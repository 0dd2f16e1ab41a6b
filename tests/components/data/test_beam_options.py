import apache_beam as beam
import pytest
from apache_beam.runners.direct.direct_runner import SwitchingDirectRunner

from components.data.beam_options import pipeline_options


def test_pipelines_name_their_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam's default runner tries to download another one first."""
    monkeypatch.setattr(SwitchingDirectRunner, "run_pipeline", None)
    with beam.Pipeline(options=pipeline_options([], images=1)) as pipeline:
        _ = pipeline | beam.Create([1])
