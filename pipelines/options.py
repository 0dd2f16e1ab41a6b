"""Command-line options that several commands share, and the defaults of pipelines."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from components.data.sources.covid_chestxray import FRONTAL_VIEWS
from core.locations import absolute
from pipelines.console import parts_of
from serving.cluster.policy import Policy
from training.precision import AUTO, Precision
from training.start_weights import IMAGENET

OUTPUT = Path("cxrflow-output")
SEED = 0
CANARY, CANARY_MINUTES = ",".join(map(str, Policy.steps)), Policy.step_seconds / 60

Output = Annotated[Path, typer.Option(help="Where all results are written.", file_okay=False)]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 2, help="The same seed gives the same result.")
]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command for Typer that has an option for each field of its dataclass parameters.

    Args:
      command: with annotated parameters. If one is annotated with a dataclass, Typer sees its fields as
        options, and the command gets the dataclass.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups = {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in groups:
            parameters.append(
                parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name])
            )
            continue
        types = typing.get_type_hints(groups[name], include_extras=True)
        for field in dataclasses.fields(groups[name]):
            required = field.default is dataclasses.MISSING
            parameters.append(
                inspect.Parameter(
                    field.name,
                    parameter.KEYWORD_ONLY,
                    default=parameter.empty if required else field.default,
                    annotation=types[field.name],
                )
            )

    @functools.wraps(command)
    def called(**values: Any) -> None:
        for name, group in groups.items():
            fields = {field.name: values.pop(field.name) for field in dataclasses.fields(group)}
            values[name] = group(**fields)
        command(**values)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


@dataclasses.dataclass(frozen=True, kw_only=True)
class Datasets:
    """The two published datasets, and the views to use."""

    covid: Annotated[
        str,
        typer.Option(
            help="covid-chestxray-dataset: has metadata.csv. A directory, gs:// or s3://."
        ),
    ]
    kermany: Annotated[str, typer.Option(help="Kermany's chest X-rays: has train/NORMAL etc.")]
    views: Annotated[
        str, typer.Option(help="Projections of the covid dataset to keep, separated by commas.")
    ] = ",".join(FRONTAL_VIEWS)

    def arguments(self) -> dict[str, Any]:
        """Returns them as parameters of a pipeline."""
        return {
            "covid_directory": absolute(self.covid),
            "kermany_directory": absolute(self.kermany),
            "views": parts_of(self.views),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How recipes are trained."""

    epochs: Annotated[
        str,
        typer.Option(help="Instead of the recipe's own, e.g. 5, or cnn-dubey=5,default=2."),
    ] = ""
    precision: Annotated[
        Precision, typer.Option(help="auto: the fastest number format of the hardware.")
    ] = AUTO
    seed: Seed = SEED


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromWeights(Training):
    """How recipes are trained, and from which weights."""

    weights: Annotated[
        str,
        typer.Option(
            help="Initial weights of pretrained bases: imagenet (downloads), none, a weights file, or "
            "the output of `cxrflow pretrain`."
        ),
    ] = IMAGENET

    def path(self) -> str:
        """Returns the weights for a step, which runs in another directory."""
        return str(Path(self.weights).resolve()) if Path(self.weights).exists() else self.weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a paper divides its images."""

    folds: Annotated[
        int,
        typer.Option(min=0, max=99, help="Folds to cross-validate in. Default: as in the paper."),
    ] = 0
    split: Annotated[
        Literal["patient", "origin", "random"],
        typer.Option(
            help="origin: whole sites and publications are held out, too. random: as in the papers; "
            "then the same patient is in training and test."
        ),
    ] = "patient"
    subset: Annotated[
        Literal["all", "paper"],
        typer.Option(help="paper: draw as many images of each class as the paper had."),
    ] = "all"
