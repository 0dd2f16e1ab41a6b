import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from training.metrics import duel, evaluate

CLASSES = ("covid", "normal", "viral")


def one_each(truth: np.ndarray) -> np.ndarray:
    return np.arange(len(truth)).astype(str)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 80))
def test_the_figures_are_scikit_learns(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, count)
    probabilities = random.dirichlet([1, 1, 1], count)
    predicted = probabilities.argmax(axis=1)
    figures = evaluate(truth, probabilities, CLASSES, one_each(truth))
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
    figures = evaluate(truth, probabilities, CLASSES, one_each(truth))["per_class"]
    assert figures["covid"]["specificity"]["value"] == 3 / 4
    assert figures["viral"]["roc_auc"]["value"] == 1.0


def test_what_was_not_counted_has_no_figure() -> None:
    figures = evaluate(np.array([0, 0]), np.eye(3)[[0, 0]], CLASSES, ["a", "b"])
    assert figures["per_class"]["normal"]["recall"]["value"] is None
    assert figures["per_class"]["covid"]["roc_auc"]["value"] is None


def asked(*answers: tuple[str, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(answers, columns=["id", "truth", "predicted"])
    return table.assign(patient=table["id"])


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


def test_a_duel_with_copies_of_each_image_is_no_surer() -> None:
    ours = asked(*((str(i), "covid", "covid") for i in range(6)))
    theirs = asked(*((str(i), "covid", "normal") for i in range(6)))

    def copied(table: pd.DataFrame) -> pd.DataFrame:
        return pd.concat(table.assign(id=table["id"] + copy) for copy in "abcd")

    assert duel(ours, theirs)["p"] == pytest.approx(2 / 2**6)
    found = duel(copied(ours), copied(theirs))
    assert found["p"] == pytest.approx(2 / 2**6)
    assert (found["images"], found["patients"], found["only_ours"]) == (24, 6, 24)


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
