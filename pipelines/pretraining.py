"""A base for sites without ImageNet's weights: from the datasets to weights trained on chest X-rays."""

from typing import Any

from kfp import dsl

from components.ingest import ingest_step
from components.pretrain import pretrain_step

NAME = "cxrflow-pretraining"


def pretraining_pipeline() -> Any:
    """Returns the pipeline; see `components.pretrain`."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]
        name=NAME,
        description="Trains a network's base on chest X-rays that will not be tested on.",
    )
    def pipeline(
        covid_directory: str,
        kermany_directory: str,
        recipe: str,
        views: list[str],
        folds: int,
        grouped: bool,
        subset: str,
        epochs: str,
        size: int,
        precision: str,
        seed: int,
        checkpoints: str,
    ) -> None:
        ingested = ingest_step(
            covid_directory=covid_directory,
            kermany_directory=kermany_directory,
            views=views,
            seed=seed,
            beam_options=[],
            folds=folds,
            grouped=grouped,
            subset=subset,
        ).set_display_name("Ingest both datasets, divide by patient")

        pretrain_step(
            examples=ingested.outputs["examples"],
            covid_directory=covid_directory,
            kermany_directory=kermany_directory,
            recipe=recipe,
            epochs=epochs,
            size=size,
            precision=precision,
            seed=seed,
            checkpoints=checkpoints,
        ).set_display_name("Pretrain a base on chest X-rays")

    return pipeline
