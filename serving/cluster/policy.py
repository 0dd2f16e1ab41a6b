"""How a version is rolled out on KServe, by `serving.cluster.rollout`."""

from dataclasses import dataclass

from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a version is rolled out.

    Attributes:
      steps: shares of the traffic that a canary gets one after the other, in percent.
      step_seconds: how long it is watched at each.
      unseen: whether it may be promoted although too few requests came to judge it.
      ready_seconds: within which it must be ready, and KServe must have given it a share.
      poll_seconds: between two looks.
    """

    steps: tuple[int, ...] = (10, 50, 100)
    step_seconds: float = 300
    unseen: bool = False
    ready_seconds: float = 900
    poll_seconds: float = 5


def parse_steps(text: str) -> tuple[int, ...]:
    """Reads the shares of a canary, e.g. `10,50,100`; an empty text: no canary.

    Raises:
      UserError: they are not growing percentages.
    """
    try:
        steps = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UserError(
            f"canary: {text!r} is not percentages with commas, e.g. 10,50,100"
        ) from error
    if any(not 0 < step <= 100 for step in steps) or sorted(set(steps)) != list(steps):
        raise UserError(
            f"canary: {text!r} must be percentages from 1 to 100 that grow, e.g. 10,50,100"
        )
    return steps
