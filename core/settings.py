"""Parses settings of several numbers in one text, for command lines and pipeline parameters."""

from core.errors import UserError

# The name whose number applies to everything not named.
DEFAULT = "default"


def parse_numbers(what: str, text: str, example: str) -> dict[str, float]:
    """Parses `name=number` pairs separated by commas, e.g. `covid=0.9,default=0.7`.

    Args:
      what: the setting's name, for the error.
      text: may be empty.
      example: of the setting, for the error.

    Raises:
      UserError: the text cannot be parsed, or has a name twice.
    """
    numbers: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not name or value != value or name in numbers:
            raise UserError(
                f"{what}: {part!r} in {text!r} is not NAME=NUMBER, or has a name again; example: "
                f"{example}"
            )
        numbers[name] = value
    return numbers
