import numpy as np
import pytest

from training import calibration


def drawn(temperature: float, size: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right, and truth drawn by them; then sharpened by a temperature."""
    random = np.random.default_rng(0)
    right = random.dirichlet([0.7, 0.7, 0.7], size)
    truth = (right.cumsum(axis=1) < random.random((size, 1))).sum(axis=1)
    return calibration.scaled(right, 1 / temperature), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_a_model_that_is_off_is_recovered(temperature: float) -> None:
    probabilities, truth = drawn(temperature)
    assert calibration.fitted_temperature(probabilities, truth) == pytest.approx(
        temperature, rel=0.06
    )
    mended = calibration.scaled(probabilities, temperature)
    assert calibration.reliability(mended, truth)["error"] < 0.015


def test_a_model_that_is_too_sure_has_a_large_error() -> None:
    probabilities, truth = drawn(3.0)
    assert calibration.reliability(probabilities, truth)["error"] > 0.1


def test_the_error_is_the_distance_of_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10)
    truth = np.array([0] * 6 + [1] * 4)
    found = calibration.reliability(probabilities, truth)
    assert found["error"] == pytest.approx(0.3)
    assert found["bins"] == [
        {"confidence": pytest.approx(0.9), "accuracy": pytest.approx(0.6), "images": 10}
    ]
