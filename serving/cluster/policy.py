"""The settings of a rollout on KServe; see `serving.cluster.rollout`."""

from dataclasses import dataclass

from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The settings of a rollout.

    Attributes:
      steps: successive shares of the traffic that a canary gets, in percent.
      step_seconds: how long it is watched at each share.
      unseen: whether it may be promoted even if too few requests came to judge it.
      ready_seconds: time limit for it to become ready, for KServe to give it a share, and for Kubernetes' API
        to be available again.
      poll_seconds: pause between two looks.
    """

    steps: tuple[int, ...] = (10, 50, 100)
    step_seconds: float = 300
    unseen: bool = False
    ready_seconds: float = 900
    poll_seconds: float = 5


def parse_steps(text: str) -> tuple[int, ...]:
    """Parses the shares of a canary, e.g. `10,50,100`; an empty text means no canary.

    Raises:
      UserError: the text is not rising percentages.
    """
    try:
        steps = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UserError(
            f"canary: {text!r} is not a list of percentages such as 10,50,100"
        ) from error
    if any(not 0 < step <= 100 for step in steps) or sorted(set(steps)) != list(steps):
        raise UserError(
            f"canary: {text!r} must be rising percentages from 1 to 100, e.g. 10,50,100"
        )
    return steps
