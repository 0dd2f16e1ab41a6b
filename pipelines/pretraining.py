"""Pretrains a base on chest X-rays, for sites that cannot download ImageNet's weights."""

from typing import Any

from kfp import dsl

from components.steps import choose_step, ingest_step, pretrain_step, write_records_step

NAME = "cxrflow-pretraining"


def pretraining_pipeline() -> Any:
    """Returns the pipeline; see `components.candidates.pretrain`."""

    @dsl.pipeline(  # type: ignore[untyped-decorator]
        name=NAME,
        description="Trains a network's base on chest X-rays that the recipe is not tested on.",
    )
    def pipeline(
        covid_directory: str,
        kermany_directory: str,
        recipe: str,
        views: list[str],
        folds: int,
        split_by: str,
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
            sources=[],
            folds=folds,
            split_by=split_by,
            subset=subset,
        ).set_display_name("Ingest both datasets, divide by patient")

        chosen = choose_step(
            examples=ingested.outputs["examples"], recipe=recipe, seed=seed
        ).set_display_name("Choose images that are not tested on")

        recorded = write_records_step(
            examples=chosen.outputs["chosen"],
            covid_directory=covid_directory,
            kermany_directory=kermany_directory,
            beam_options=[],
            sources=[],
        ).set_display_name("Write TFRecords")

        pretrain_step(
            chosen=chosen.outputs["chosen"],
            records=recorded.outputs["records"],
            recipe=recipe,
            epochs=epochs,
            size=size,
            precision=precision,
            seed=seed,
            checkpoints=checkpoints,
        ).set_display_name("Pretrain a base on chest X-rays")

    return pipeline
