"""The main job: from two public datasets to a served model, repeated as the datasets grow."""

from typing import Any

from kfp import dsl

from components.data.choose_to_train import NEW_COVID
from components.data.sources import covid_chestxray, kermany
from components.steps import (
    audit_step,
    champion_step,
    check_for_new_data_step,
    choose_to_train_step,
    deploy_step,
    evaluate_step,
    find_lungs_step,
    gate_step,
    ingest_step,
    report_step,
    train_step,
    validate_step,
    write_records_step,
)
from components.trust.rules import GATE
from core.artifacts import NewData, ToDeploy, ToTrain
from pipelines.options import CANARY, CANARY_MINUTES, SEED
from pipelines.targets import LOCAL, Target, job_template, place
from serving import NAME as MODEL_NAME
from training.precision import AUTO
from training.recipes import CANDIDATES
from training.start_weights import IMAGENET

NAME = "cxrflow-training"


def training_pipeline(target: Target = LOCAL) -> Any:
    """Returns the pipeline; the same wiring is compiled for a cluster and run by `kfp.local`.

    Args:
      target: where it runs.
    """

    @dsl.pipeline(  # type: ignore[untyped-decorator]
        name=NAME,
        description="Ingests and validates chest X-rays of two public datasets, trains candidates, "
        "audits what they look at, passes those with sufficient recall for every class, and deploys the "
        "best with a verdict on whether it can be trusted.",
    )
    def pipeline(
        covid_directory: str = f"{target.data}/{covid_chestxray.DIRECTORY}",
        kermany_directory: str = f"{target.data}/{kermany.DIRECTORY}",
        sources: list[str] = [],
        external: list[str] = [],
        views: list[str] = list(covid_chestxray.FRONTAL_VIEWS),
        recipes: list[str] = list(CANDIDATES),
        gate: str = GATE,
        trust: str = target.trust.value,
        epochs: str = "",
        weights: str = IMAGENET,
        precision: str = AUTO,
        seed: int = SEED,
        beam_options: list[str] = [],
        archive: str = f"{target.data}/archive",
        if_new: bool = False,
        new_covid: int = NEW_COVID,
        schema: str = "",
        served: str = "",
        checkpoints: str = f"{target.data}/checkpoints",
        store: str = target.store,
        model_name: str = MODEL_NAME,
        server: str = "",
        namespace: str = target.namespace,
        canary: str = CANARY,
        canary_minutes: float = CANARY_MINUTES,
        canary_unseen: bool = False,
    ) -> None:
        """Runs the main job.

        Args:
          covid_directory: Path of the covid-chestxray-dataset, as every step sees it.
          kermany_directory: Path of Kermany's chest X-rays, as every step sees it.
          sources: Further sources to train on, each NAME=SPEC, e.g. clinic=/data/clinic/images.csv.
          external: Further sources for audits only, each NAME=SPEC; models are never trained on them.
          views: Projections to keep of the covid-chestxray-dataset.
          recipes: Names of the candidates to train.
          gate: Lowest recall by class, e.g. covid=0.9,default=0.7.
          trust: enforce: only trusted candidates are deployed; flag: all that pass, with their verdict.
          epochs: Epochs by recipe, e.g. cnn-dubey=5,default=2; empty for the recipes' own.
          weights: imagenet, none, the path of a weights file of the base, or of a pretrained base.
          precision: auto, float32, mixed_bfloat16 or mixed_float16.
          seed: Of the split, the initial weights, dropout and shuffling.
          beam_options: Options of the Beam runner; none: this machine, all cores.
          archive: Directory that outlives a run, or place at gs:// or s3://, for the states of the data.
          if_new: Train only if enough is new since the last training, and continue from the champion.
          new_covid: New images of covid that are enough to train again.
          schema: Path of the site's own schema; empty: that of the package.
          served: Directory of a server's feature log, to compare with the data; empty: none.
          checkpoints: Directory that outlives a step, from which a killed training resumes.
          store: Model store: a directory, or a place at gs:// or s3://.
          model_name: Name of the model in the store, and of its InferenceService.
          server: Directory for the state of a local server; empty: none is started.
          namespace: Of the InferenceService; empty: none is created.
          canary: Successive shares of the traffic that a new version gets, in percent.
          canary_minutes: How long it is watched at each.
          canary_unseen: Promote it even if too few requests came to judge it.
        """
        checked = check_for_new_data_step(
            covid_directory=covid_directory,
            kermany_directory=kermany_directory,
            views=views,
            archive=archive,
            if_new=if_new,
            sources=sources,
            external=external,
            recipes=recipes,
            epochs=epochs,
            gate=gate,
            trust=trust,
        ).set_display_name("Check for new data")
        # The key of the cache does not include the content of directories.
        checked.set_caching_options(False)

        with dsl.If(checked.output == NewData.NEW, name="there-is-something-new"):
            ingested = ingest_step(
                covid_directory=covid_directory,
                kermany_directory=kermany_directory,
                views=views,
                seed=seed,
                beam_options=beam_options,
                sources=sources,
                archive=archive,
            ).set_display_name("Ingest what is new, split by patient")
            ingested.set_caching_options(False)

            validated = validate_step(
                examples=ingested.outputs["examples"],
                covid_directory=covid_directory,
                kermany_directory=kermany_directory,
                sources=sources,
                schema=schema,
                served=served,
            ).set_display_name("Validate against the schema, look for drift")
            validated.set_caching_options(False)

            chosen = choose_to_train_step(
                examples=ingested.outputs["examples"],
                validation=validated.outputs["validation"],
                archive=archive,
                if_new=if_new,
                new_covid=new_covid,
            ).set_display_name("Choose whether to train")
            chosen.set_caching_options(False)

            with dsl.If(chosen.outputs["Output"] == ToTrain.TRAIN, name="enough-is-new"):
                recorded = write_records_step(
                    examples=ingested.outputs["examples"],
                    covid_directory=covid_directory,
                    kermany_directory=kermany_directory,
                    beam_options=beam_options,
                    sources=sources,
                    archive=archive,
                ).set_display_name("Write TFRecords")

                lungs = find_lungs_step(
                    covid_directory=covid_directory,
                    examples=ingested.outputs["examples"],
                    records=recorded.outputs["records"],
                    seed=seed,
                    checkpoints=checkpoints,
                ).set_display_name("Learn where the lungs are")

                champion = champion_step(
                    records=recorded.outputs["records"],
                    store=store,
                    name=model_name,
                    namespace=namespace,
                    continues=if_new,
                ).set_display_name("Predict with the version that is served")
                champion.set_caching_options(False)

                with dsl.ParallelFor(
                    recipes, name="candidates", parallelism=target.at_once
                ) as recipe:
                    trained = train_step(
                        examples=ingested.outputs["examples"],
                        records=recorded.outputs["records"],
                        trial=recipe,
                        epochs=epochs,
                        weights=weights,
                        precision=precision,
                        seed=seed,
                        checkpoints=checkpoints,
                        job=job_template(target),
                        champion=champion.outputs["champion"],
                        lungs=lungs.outputs["lungs"],
                    ).set_display_name("Train a candidate")

                    evaluated = evaluate_step(
                        model=trained.outputs["model"], records=recorded.outputs["records"]
                    ).set_display_name("Evaluate it on the test split")

                    audited = audit_step(
                        model=trained.outputs["model"],
                        records=recorded.outputs["records"],
                        examples=ingested.outputs["examples"],
                        lungs=lungs.outputs["lungs"],
                        external=external,
                        views=views,
                    ).set_display_name("Audit what it looks at")

                decided = gate_step(
                    models=dsl.Collected(trained.outputs["model"]),
                    evaluations=dsl.Collected(evaluated.outputs["evaluation"]),
                    audits=dsl.Collected(audited.outputs["audit"]),
                    thresholds=gate,
                    trust=trust,
                    champion=champion.outputs["champion"],
                    examples=ingested.outputs["examples"],
                    run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                    archive=archive,
                ).set_display_name("Gate on recall, trust and the champion")
                # The key of the cache does not include the counts in the archive.
                decided.set_caching_options(False)

                report_step(
                    examples=ingested.outputs["examples"],
                    validation=validated.outputs["validation"],
                    evaluations=dsl.Collected(evaluated.outputs["evaluation"]),
                    decision=decided.outputs["decision"],
                ).set_display_name("Report")

                # Not a named output: kfp.local resolves conditions on the unnamed one alone.
                with dsl.If(
                    decided.outputs["Output"] == ToDeploy.DEPLOY, name="a-candidate-passed"
                ):
                    deployed = deploy_step(
                        model=decided.outputs["winner"],
                        evaluation=decided.outputs["winners_evaluation"],
                        audit=decided.outputs["winners_audit"],
                        decision=decided.outputs["decision"],
                        store=store,
                        name=model_name,
                        server=server,
                        namespace=namespace,
                        canary=canary,
                        canary_minutes=canary_minutes,
                        canary_unseen=canary_unseen,
                        run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                        archive=archive,
                    ).set_display_name("Deploy the winner")
                    deployed.set_caching_options(False)

        place(target)

    return pipeline
