import numpy as np
import pytest

from core.errors import UserError
from training import ood


@pytest.fixture
def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Features of two classes, stretched along one axis, with one feature that never varies."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 800)
    features = random.normal(0, (5.0, 0.5, 1.0, 0.0), (800, 4))
    features[:, 1] += 4 * truth
    return features.astype(np.float32), truth


def test_as_many_are_known_as_shall_be(clusters) -> None:
    features, truth = clusters
    known = ood.fitted(features[:400], truth[:400], features[400:600])
    assert (ood.scores(known, features[400:600]) <= 1).mean() == pytest.approx(0.95, abs=0.01)
    assert (ood.scores(known, features[600:]) <= 1).mean() == pytest.approx(0.95, abs=0.05)


def test_distance_counts_in_what_varies_little(clusters) -> None:
    features, truth = clusters
    known = ood.fitted(features[:400], truth[:400], features[400:])
    along, across = np.array([[9, 0, 0, 0]], np.float32), np.array([[0, -3.5, 0, 0]], np.float32)
    assert ood.scores(known, along)[0] < 1 < ood.scores(known, across)[0]


def test_fewer_images_than_features_do() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 128)).astype(np.float32)
    known = ood.fitted(features, np.arange(40) % 2, features)
    assert np.isfinite(ood.scores(known, features)).all()


@pytest.mark.parametrize("which", [0, 1])
def test_features_that_are_not_finite_are_refused(clusters, which: int) -> None:
    features, truth = clusters
    sides = [features[:400].copy(), features[400:].copy()]
    sides[which][3, 1] = np.inf
    with pytest.raises(UserError, match="training has diverged"):
        ood.fitted(sides[0], truth[:400], sides[1])


def test_a_threshold_that_is_no_number_is_refused(clusters) -> None:
    features, truth = clusters
    with pytest.raises(AssertionError, match="a class without an image"):
        ood.fitted(features[:400], truth[:400] * 2, features[400:])


def test_risk_rises_to_that_of_all_answers() -> None:
    curve = ood.risk_coverage(np.array([0.1, 0.9, 0.2, 0.8]), np.array([False, True, False, False]))
    assert curve["coverage"] == [0.25, 0.5, 0.75, 1.0]
    assert curve["risk"] == [0.0, 0.0, 0.0, 0.25]
