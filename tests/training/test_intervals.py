import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from training.intervals import _area, chance_of_difference, drop, rate, roc_auc, share

COPIES = 4


def several(images: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns hits, scores (with equal ones) and patients, who have up to five images each."""
    random = np.random.default_rng(seed)
    patients = random.integers(0, max(1, images // 2), images).astype(str)
    hits = random.random(images) < random.random()
    return hits, random.integers(0, 8, images) / 8, patients


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"), [(10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (81, 263, 0.2553, 0.3662)]
)  # fmt: skip
def test_intervals_are_wilsons(hits: int, total: int, low: float, high: float) -> None:
    """The last is the example of Newcombe, 1998, Statistics in Medicine 17:857, table I."""
    interval = rate(hits, total)
    assert interval["low"] == pytest.approx(low, abs=1e-4)
    assert interval["high"] == pytest.approx(high, abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_value_and_is_scipys(pair: tuple[int, int]) -> None:
    value = rate(*pair)
    assert 0 <= value["low"] <= value["value"] + 1e-12
    assert value["value"] <= value["high"] + 1e-12 <= 1 + 1e-9
    expected = binomtest(*pair).proportion_ci(0.95, method="wilson")
    assert (value["low"], value["high"]) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_with_one_image_of_each_patient_it_is_wilsons(hits: list[bool]) -> None:
    found = share(hits, [str(i) for i in range(len(hits))])
    assert found == pytest.approx(rate(sum(hits), len(hits)))


@settings(max_examples=50, deadline=None)
@given(images=st.integers(1, 80), seed=st.integers(0, 10_000))
def test_copies_of_each_image_make_no_share_surer(images: int, seed: int) -> None:
    for patients in (np.arange(images).astype(str), several(images, seed)[2]):
        hits = several(images, seed)[0]
        once = share(hits, patients)
        copied = share(np.tile(hits, COPIES), np.tile(patients, COPIES))
        assert copied["value"] == pytest.approx(once["value"])
        assert copied["low"] <= once["low"] + 1e-9
        assert copied["high"] >= once["high"] - 1e-9


@settings(max_examples=50, deadline=None)
@given(images=st.integers(1, 80), seed=st.integers(0, 10_000))
def test_an_interval_over_patients_is_never_narrower_than_for_one_image_of_each(
    images: int, seed: int
) -> None:
    hits, _, patients = several(images, seed)
    count = len(np.unique(patients))
    least, found = rate(hits.mean() * count, count), share(hits, patients)
    assert 0 <= found["low"] <= least["low"] + 1e-9
    assert least["high"] - 1e-9 <= found["high"] <= 1


@settings(max_examples=50, deadline=None)
@given(images=st.integers(4, 60), seed=st.integers(0, 10_000))
def test_an_area_within_groups_compares_images_of_one_group(images: int, seed: int) -> None:
    truth, score, patients = several(images, seed)
    groups = np.arange(images) % 3
    truth[:4] = [True, False, True, True]
    pairs = [
        np.sign(score[i] - score[j]) / 2 + 0.5
        for i in np.flatnonzero(truth)
        for j in np.flatnonzero(~truth)
        if groups[i] == groups[j]
    ]
    if not pairs:
        assert roc_auc(truth, score, patients, groups)["value"] is None
        return
    found = roc_auc(truth, score, patients, groups)
    assert found["value"] == pytest.approx(np.mean(pairs))
    assert found["low"] <= found["value"] + 1e-9
    assert found["value"] <= found["high"] + 1e-9
    copied = roc_auc(*(np.tile(values, COPIES) for values in (truth, score, patients, groups)))
    assert copied["low"] <= found["low"] + 1e-9


def test_patients_with_many_images_widen_an_interval() -> None:
    """Of 60 patients one has 40 images, all missed: whether he is drawn makes the difference."""
    hits = np.r_[np.ones(59, bool), np.zeros(40, bool)]
    patients = np.r_[np.arange(59), np.full(40, 59)].astype(str)
    found = share(hits, patients)
    assert found["value"] == pytest.approx(59 / 99)
    assert found["low"] < rate(59, 99)["low"] - 0.1
    assert found["high"] == 1


def test_nothing_has_no_share_and_one_side_no_area() -> None:
    nothing = {"value": None, "low": None, "high": None}
    assert share([], []) == nothing
    assert roc_auc([True, True], [0.1, 0.2], ["a", "b"]) == nothing


@settings(max_examples=50, deadline=None)
@given(images=st.integers(2, 60), seed=st.integers(0, 10_000))
def test_a_weighted_area_is_that_of_repeated_images(images: int, seed: int) -> None:
    truth, score, _ = several(images, seed)
    truth[:2] = [True, False]
    weights = np.random.default_rng(seed).integers(0, 4, images)
    weights[:2] = 1
    repeated = np.repeat(np.arange(images), weights)
    expected = roc_auc_score(truth[repeated], score[repeated])
    assert _area(truth, score)(weights[np.newaxis])[0] == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(images=st.integers(2, 60), seed=st.integers(0, 10_000))
def test_copies_of_each_image_make_no_area_surer(images: int, seed: int) -> None:
    truth, score, patients = several(images, seed)
    truth[:2] = [True, False]
    for of in (np.arange(images).astype(str), patients):
        once = roc_auc(truth, score, of)
        copied = roc_auc(*(np.tile(values, COPIES) for values in (truth, score, of)))
        assert once["value"] == pytest.approx(roc_auc_score(truth, score))
        assert once["low"] <= once["value"] + 1e-9
        assert once["value"] <= once["high"] + 1e-9
        assert copied["low"] <= once["low"] + 1e-9
        assert copied["high"] >= once["high"] - 1e-9


def test_a_perfect_area_of_few_patients_is_not_certain() -> None:
    few, more = (
        roc_auc([True] * n + [False] * n, np.arange(2 * n)[::-1], [str(i) for i in range(2 * n)])
        for n in (2, 30)
    )
    assert few["value"] == few["high"] == more["value"] == 1
    assert few["low"] < 0.6 < 0.9 < more["low"]


def test_the_interval_of_an_area_covers_the_truth() -> None:
    """Of normal scores one deviation apart the area is 0.760; 40 patients of 1 to 4 images a side."""
    covered = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        of = np.repeat(np.arange(80), random.integers(1, 5, 80))
        truth = of < 40
        score = random.normal(0, 0.8, 80)[of] + random.normal(0, 0.6, len(of)) + truth
        found = roc_auc(truth, score, of.astype(str))
        covered += found["low"] <= 0.760 <= found["high"]
    assert covered >= 54


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 40), st.integers(1, 40))
def test_a_drop_has_an_interval_that_holds_it(a: int, m: int, b: int, n: int) -> None:
    before, after = rate(min(a, m), m), rate(min(b, n), n)
    found = drop(before, after)
    assert found["value"] == pytest.approx(before["value"] - after["value"])
    assert -1 - 1e-9 <= found["low"] <= found["value"] <= found["high"] <= 1 + 1e-9


def test_newcombes_own_example() -> None:
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 by his method 10."""
    found = drop(rate(56, 70), rate(48, 80))
    assert (found["low"], found["high"]) == pytest.approx((0.0524, 0.3339), abs=1e-4)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
def test_with_one_image_of_each_patient_the_test_is_mcnemars(
    ours: int, theirs: int, both: int
) -> None:
    only_ours = np.repeat([True, False, False], [ours, theirs, both])
    only_theirs = np.repeat([False, True, False], [ours, theirs, both])
    patients = np.arange(len(only_ours)).astype(str)
    expected = binomtest(ours, ours + theirs, 0.5).pvalue if ours + theirs else 1.0
    for copies in (1, COPIES):
        arrays = (np.tile(values, copies) for values in (only_ours, only_theirs, patients))
        assert chance_of_difference(*arrays) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=12))
def test_of_patients_with_several_images_every_sign_is_as_likely(differences: list[int]) -> None:
    """Compared with all signs, one by one."""
    of_patient = np.array(differences, int)
    signs = np.array(list(itertools.product([-1, 1], repeat=len(of_patient))))
    expected = np.mean(np.abs(signs @ of_patient) >= abs(of_patient.sum()))
    patients = np.repeat(np.arange(len(of_patient)), np.abs(of_patient)).astype(str)
    ours = np.repeat(of_patient > 0, np.abs(of_patient))
    assert chance_of_difference(ours, ~ours, patients) == pytest.approx(expected)


def test_many_images_are_compared_without_a_table_of_their_square() -> None:
    """What one by one takes minutes; the normal distribution is near."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, 6, 20_000)
    patients = np.repeat(np.arange(len(sizes)), sizes).astype(str)
    ours = np.repeat(random.random(len(sizes)) < 0.507, sizes)
    z = abs((np.where(ours, 1, -1)).sum()) / np.sqrt((sizes.astype(float) ** 2).sum())
    assert chance_of_difference(ours, ~ours, patients) == pytest.approx(2 * norm.sf(z), rel=0.02)
