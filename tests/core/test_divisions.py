import pytest

from core import divisions
from core.errors import UserError


def test_a_protocol_tests_every_image_as_often_as_it_says() -> None:
    assert divisions.divisions("80/20") == ("80/20",)
    folds = [divisions.division(name) for name in divisions.divisions("4-fold")]
    assert [fold.test for fold in folds] == [
        (name,) for name in ("fold-01-of-04", "fold-02-of-04", "fold-03-of-04", "fold-04-of-04")
    ]
    assert all(len(fold.train) == 3 and not set(fold.train) & set(fold.test) for fold in folds)
    assert divisions.division("80/20").train == ("train", "validation")
    assert divisions.division("70/10/20").validation == ("validation",)


@pytest.mark.parametrize("protocol", ["1-fold", "fold", "90/10", "100-fold"])
def test_a_protocol_that_is_none_is_an_error(protocol: str) -> None:
    with pytest.raises(UserError, match=r"unknown (protocol|division)"):
        divisions.divisions(protocol)
    with pytest.raises(UserError, match=r"unknown (protocol|division)"):
        divisions.division(protocol)
