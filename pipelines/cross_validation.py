"""A paper's protocol, from the datasets to a page that compares the figures: a hold-out split or folds."""

from typing import Any

from kfp import dsl

from components.data.sources import covid_chestxray, kermany
from components.steps import (
    evaluate_step,
    ingest_step,
    reproduce_step,
    train_step,
    write_records_step,
)
from pipelines.options import SEED
from pipelines.targets import LOCAL, Target, job_template, place
from training.precision import AUTO
from training.recipes import recipe_named
from training.start_weights import IMAGENET

NAME = "cxrflow-cross-validation"

# The default on a cluster.
_DEFAULT = recipe_named("resnet50-10fold")


def cross_validation_pipeline(target: Target = LOCAL) -> Any:
    """Returns the pipeline; the same wiring is compiled for a cluster and run by `kfp.local`.

    Args:
      target: where it runs.
    """

    @dsl.pipeline(  # type: ignore[untyped-decorator]
        name=NAME,
        description="Trains and tests published systems as their papers did, on every fold where "
        "they cross-validate, and shows the figures beside the published ones.",
    )
    def pipeline(
        covid_directory: str = f"{target.data}/{covid_chestxray.DIRECTORY}",
        kermany_directory: str = f"{target.data}/{kermany.DIRECTORY}",
        trials: list[str] = list(_DEFAULT.trials(_DEFAULT.protocol)),
        views: list[str] = list(covid_chestxray.FRONTAL_VIEWS),
        folds: int = 10,
        split_by: str = "patient",
        subset: str = "",
        epochs: str = "",
        weights: str = IMAGENET,
        precision: str = AUTO,
        seed: int = SEED,
        beam_options: list[str] = [],
        checkpoints: str = f"{target.data}/checkpoints",
    ) -> None:
        """Runs a published protocol.

        Args:
          covid_directory: Path of the covid-chestxray-dataset, as every step sees it.
          kermany_directory: Path of Kermany's chest X-rays, as every step sees it.
          trials: What to train, each as recipe@division, e.g. resnet50-10fold@fold-01-of-10.
          views: Projections to keep of the covid-chestxray-dataset.
          folds: Number of folds; 0 for a hold-out split.
          split_by: What no two splits share: patient or origin; or random, as in the papers, which leaks.
          subset: Recipe whose paper's numbers of images are drawn; empty for all images.
          epochs: Epochs by recipe, e.g. cnn-dubey=5,default=2; empty for the recipes' own.
          weights: imagenet, none, the path of a weights file of the base, or of a pretrained base.
          precision: auto, float32, mixed_bfloat16 or mixed_float16.
          seed: Of the split, the initial weights, dropout and shuffling.
          beam_options: Options of the Beam runner; none: this machine, all cores.
          checkpoints: Directory that outlives a step; it also keeps the features of frozen bases.
        """
        ingested = ingest_step(
            covid_directory=covid_directory,
            kermany_directory=kermany_directory,
            views=views,
            seed=seed,
            beam_options=beam_options,
            sources=[],
            folds=folds,
            split_by=split_by,
            subset=subset,
        ).set_display_name("Ingest both datasets, divide by patient")
        # The key of the cache does not include the content of directories.
        ingested.set_caching_options(False)

        recorded = write_records_step(
            examples=ingested.outputs["examples"],
            covid_directory=covid_directory,
            kermany_directory=kermany_directory,
            beam_options=beam_options,
            sources=[],
        ).set_display_name("Write TFRecords")

        with dsl.ParallelFor(trials, name="trials", parallelism=target.at_once) as trial:
            trained = train_step(
                examples=ingested.outputs["examples"],
                records=recorded.outputs["records"],
                trial=trial,
                epochs=epochs,
                weights=weights,
                precision=precision,
                seed=seed,
                checkpoints=checkpoints,
                job=job_template(target),
            ).set_display_name("Train, holding out a part")

            evaluated = evaluate_step(
                model=trained.outputs["model"], records=recorded.outputs["records"]
            ).set_display_name("Evaluate on what was held out")

        reproduce_step(
            examples=ingested.outputs["examples"],
            models=dsl.Collected(trained.outputs["model"]),
            evaluations=dsl.Collected(evaluated.outputs["evaluation"]),
        ).set_display_name("Compare with the published figures")

        place(target)

    return pipeline
