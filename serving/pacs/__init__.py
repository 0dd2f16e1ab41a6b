"""A worker between a PACS and a model server: new chest radiographs in, reports and captures back.

The PACS itself is the record of what has been answered. Report and capture have identifiers that follow from
the image, the model and its version, so that storing them again changes nothing, whichever worker does it.
"""


class Away(Exception):
    """The PACS or the endpoint cannot work now: wait, then try again.

    Attributes:
      system: `pacs` or `endpoint`.
      reason: in a few words, without anything from a request.
    """

    def __init__(self, system: str, reason: str) -> None:
        super().__init__(f"{system}: {reason}")
        self.system = system
        self.reason = reason


class Failed(Exception):
    """A step failed for one image or study, and may succeed later.

    Attributes:
      step: `find`, `fetch`, `ask` or `store`.
      reason: in a few words, without anything from a request.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class Unusable(Exception):
    """An image that can never be answered by this version; `reason` is one of few words, for metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
