"""Settings of several numbers in one text, as command lines and pipeline parameters take them."""

from core.errors import UserError

# The name whose number is for everything that is not named.
DEFAULT = "default"


def parse_numbers(what: str, text: str, example: str) -> dict[str, float]:
    """Reads `name=number` with commas between, e.g. `covid=0.9,default=0.7`.

    Args:
      what: the setting's name, for the error.
      text: may be empty.
      example: of the setting, for the error.

    Raises:
      UserError: the text cannot be read so, or names something twice.
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
                f"{what}: {part!r} in {text!r} is not NAME=NUMBER, or names something again; an "
                f"example is {example}"
            )
        numbers[name] = value
    return numbers
