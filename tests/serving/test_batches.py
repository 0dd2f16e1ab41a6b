import threading
from collections.abc import Sequence

import pytest

from serving.batches import Batches


class Doubling:
    """Doubles numbers once it may, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may, self.began = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.began.set()
        assert self.may.wait(30)
        if -1 in numbers:
            raise ValueError("minus one")
        return [2 * number for number in numbers]


def test_what_waits_while_it_works_is_the_next_batch() -> None:
    doubling = Doubling()
    batches = Batches(doubling, largest=4)
    first = batches.ask(1)
    assert doubling.began.wait(30)
    others = [batches.ask(number) for number in range(2, 8)]
    doubling.may.set()
    assert [future.result(30) for future in (first, *others)] == [2, 4, 6, 8, 10, 12, 14]
    assert doubling.batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_who_is_gone_is_not_worked_for() -> None:
    doubling = Doubling()
    batches = Batches(doubling, largest=4)
    first = batches.ask(1)
    assert doubling.began.wait(30)
    gone, last = batches.ask(2), batches.ask(3)
    assert gone.cancel()
    doubling.may.set()
    assert (first.result(30), last.result(30)) == (2, 6)
    assert doubling.batches == [[1], [3]]


def test_an_error_is_everyones_in_the_batch_and_nobodys_else() -> None:
    doubling = Doubling()
    doubling.may.set()
    batches = Batches(doubling, largest=1)
    with pytest.raises(ValueError, match="minus one"):
        batches.ask(-1).result(30)
    assert batches.ask(4).result(30) == 8


@pytest.mark.parametrize("answers", [[], [1, 2, 3], None])
def test_a_wrong_number_of_answers_is_everyones_error_and_the_next_batch_is_answered(
    answers: list[int] | None,
) -> None:
    given = [answers]
    batches = Batches(lambda numbers: given.pop() if given else list(numbers), largest=1)
    with pytest.raises((RuntimeError, TypeError)):
        batches.ask(1).result(30)
    assert batches.ask(4).result(30) == 4


def test_closed_it_answers_what_was_asked_before() -> None:
    doubling = Doubling()
    batches = Batches(doubling, largest=2)
    futures = [batches.ask(number) for number in range(5)]
    batches.close()
    doubling.may.set()
    assert [future.result(30) for future in futures] == [0, 2, 4, 6, 8]
    batches._thread.join(30)
    assert not batches._thread.is_alive()
