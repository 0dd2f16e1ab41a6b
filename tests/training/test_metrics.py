import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from training.metrics import drop, duel, evaluate, rate

CLASSES = ("covid", "normal", "viral")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 80))
def test_the_figures_are_scikit_learns(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, count)
    probabilities = random.dirichlet([1, 1, 1], count)
    predicted = probabilities.argmax(axis=1)
    figures = evaluate(truth, probabilities, CLASSES)
    expected = precision_recall_fscore_support(
        truth, predicted, labels=range(3), zero_division=np.nan
    )
    for name, precision, recall, f1, images in zip(CLASSES, *expected, strict=True):
        of_class = figures["per_class"][name]
        assert of_class["images"] == images
        for value, reference in ((of_class["precision"], precision), (of_class["recall"], recall)):
            assert (value["value"] is None) == np.isnan(reference)
            assert value["value"] is None or np.isclose(value["value"], reference)
        if of_class["f1"]["value"] is not None:
            assert np.isclose(of_class["f1"]["value"], f1)
    assert np.isclose(figures["accuracy"]["value"], accuracy_score(truth, predicted))
    assert np.sum(figures["confusion"]) == count


def test_specificity_is_recall_of_the_rest() -> None:
    truth = np.array([0, 0, 1, 1, 1, 2])
    probabilities = np.eye(3)[[0, 1, 1, 0, 1, 2]]
    figures = evaluate(truth, probabilities, CLASSES)["per_class"]
    assert figures["covid"]["specificity"]["value"] == 3 / 4
    assert figures["viral"]["roc_auc"] == 1.0


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"), [(10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (81, 263, 0.2553, 0.3662)]
)  # fmt: skip
def test_intervals_are_wilsons(hits: int, total: int, low: float, high: float) -> None:
    """The last is the example of Newcombe, 1998, Statistics in Medicine 17:857, table I."""
    interval = rate(hits, total)
    assert interval["low"] == pytest.approx(low, abs=1e-4)
    assert interval["high"] == pytest.approx(high, abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_value(pair: tuple[int, int]) -> None:
    value = rate(*pair)
    assert 0 <= value["low"] <= value["value"] + 1e-12
    assert value["value"] <= value["high"] + 1e-12 <= 1 + 1e-9


def test_what_was_not_counted_has_no_figure() -> None:
    figures = evaluate(np.array([0, 0]), np.eye(3)[[0, 0]], CLASSES)
    assert figures["per_class"]["normal"]["recall"]["value"] is None
    assert figures["per_class"]["covid"]["roc_auc"] is None


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


def asked(*answers: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(answers, columns=["id", "truth", "predicted"])


def test_a_duel_counts_what_one_alone_gets_right() -> None:
    # Of five images ours alone gets five right, of one theirs; two both, one neither.
    truth = ["covid", "covid", "normal", "normal", "normal", "covid", "covid", "normal", "normal"]
    other = {"covid": "normal", "normal": "covid"}
    ours_right = [True] * 5 + [False, True, True, False]
    theirs_right = [False] * 5 + [True, True, True, False]
    ours, theirs = (
        asked(
            *(
                (str(i), one, one if is_right else other[one])
                for i, (one, is_right) in enumerate(zip(truth, right, strict=True))
            )
        )
        for right in (ours_right, theirs_right)
    )
    found = duel(ours, theirs)
    assert found["images"] == 9
    assert found["covid_recall"] == [3 / 4, 2 / 4]
    assert found["accuracy"] == [7 / 9, 3 / 9]
    assert (found["only_ours"], found["only_theirs"]) == (5, 1)
    assert found["p"] == pytest.approx(2 * (1 + 6) / 2**6), "McNemar's exact test"
    assert duel(theirs, ours)["p"] == found["p"]
    assert duel(ours, ours)["p"] == 1


def test_a_duel_is_on_the_images_that_both_were_asked_about() -> None:
    ours = asked(("a", "normal", "normal"), ("b", "normal", "covid"))
    found = duel(ours, asked(("b", "normal", "normal"), ("c", "covid", "covid")))
    assert found["images"] == 1
    assert found["covid_recall"] == [None, None]
    assert found["accuracy"] == [0, 1]


def test_models_of_other_classes_are_compared_by_covid_alone() -> None:
    four = asked(("a", "viral", "bacterial"), ("b", "covid", "covid"), ("c", "normal", "covid"))
    two = asked(("a", "normal", "normal"), ("b", "covid", "normal"), ("c", "normal", "normal"))
    found = duel(four, two)
    assert found["accuracy"] == [2 / 3, 2 / 3], "bacterial for viral is right: neither is covid"
    assert found["covid_recall"] == [1, 0]
