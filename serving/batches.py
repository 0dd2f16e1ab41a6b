"""Answers single questions in batches: those that arrive while the model is busy form the next batch.

No question waits for a batch to fill. A single question is answered at once, and batches grow with load.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batches(Generic[Question, Answer]):
    """A thread that answers questions in the order of their arrival."""

    def __init__(
        self, answer: Callable[[Sequence[Question]], Sequence[Answer]], largest: int
    ) -> None:
        """Starts the thread.

        Args:
          answer: answers all questions of a batch, in their order. If it raises, or returns a wrong number
            of answers, every question of the batch gets the error.
          largest: the most questions in a batch.
        """
        self._answer = answer
        self._largest = largest
        self._waiting: queue.SimpleQueue[tuple[Question, Future[Answer]] | None]
        self._waiting = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ask(self, question: Question) -> "Future[Answer]":
        """Returns a future of the answer; if it is cancelled before its turn, nothing is computed."""
        future: Future[Answer] = Future()
        self._waiting.put((question, future))
        return future

    def close(self) -> None:
        """Ends the thread after the questions asked so far are answered."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, ended = [first], False
            while len(batch) < self._largest and not ended:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                else:
                    batch.append(following)
            self._answer_all([pair for pair in batch if pair[1].set_running_or_notify_cancel()])
            if ended:
                return

    def _answer_all(self, batch: list[tuple[Question, "Future[Answer]"]]) -> None:
        if not batch:
            return
        try:
            answers = self._answer([question for question, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} questions got {len(answers)} answers")
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
