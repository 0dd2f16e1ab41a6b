"""Every step: its inputs and outputs, in the order of a run, and what it needs on a cluster.

Each step only calls the module that does its work; that module and the pipelines explain the parameters. KFP
keeps only the source of each function, so the imports are in its body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from kfp import dsl

Size = Literal["light", "data", "training"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a step needs on a cluster; see `pipelines.targets` for what each cluster provides.

    Attributes:
      size: which processors, memory and GPUs.
      hours: time limit.
      storage: whether it uses the datasets, archive, checkpoints or model store, which are on the data
        volume or in an object store.
      distributed: whether several nodes do its work, if the target has them; the step then waits for them.
    """

    size: Size
    hours: int
    storage: bool
    distributed: bool = False


NEEDS: dict[str, Needs] = {}  # by a step's name


def _step(
    image: Literal["data", "training", "serving"], needs: Needs
) -> Callable[[Callable[..., str | None]], Any]:
    """Makes a function a KFP component that runs in an image, and records what it needs."""

    def component(function: Callable[..., str | None]) -> Any:
        # The images hold this package and KFP already, so nothing is installed when a step starts.
        base_image = f"cxrflow-{image}:{version('cxrflow')}"
        made = dsl.component(function, base_image=base_image, install_kfp_package=False)
        NEEDS[made.name] = needs
        return made

    return component


@_step("data", Needs(size="light", hours=3, storage=True))
def check_for_new_data_step(
    covid_directory: str,
    kermany_directory: str,
    views: list[str],
    archive: str,
    if_new: bool,
    sources: list[str],
    external: list[str],
    recipes: list[str],
    epochs: str,
    gate: str,
    trust: str,
) -> str:
    """Checks what later steps take, and whether the sources have changed. See `check_for_new_data`."""
    from components.data.sources.listed import parse, require_images
    from components.trust import rules
    from core.artifacts import NewData
    from core.locations import location
    from training.recipes import recipe_named, with_epochs

    # Hours before the steps that need it: someone may have typed it in Kubeflow's own page.
    rules.parse(gate)
    rules.trust_named(trust)
    for recipe in recipes:
        with_epochs(recipe_named(recipe), epochs)
    for source in parse(external).values():
        require_images(source, to_train_on=False)
    if not if_new:
        return NewData.NEW

    from components.data.check_for_new_data import check_for_new_data

    return check_for_new_data(
        location(covid_directory),
        location(kermany_directory),
        location(archive) if archive else None,
        views=views,
        sources=parse(sources),
    )


@_step("data", Needs(size="data", hours=6, storage=True))
def ingest_step(
    covid_directory: str,
    kermany_directory: str,
    views: list[str],
    seed: int,
    beam_options: list[str],
    sources: list[str],
    examples: dsl.Output[dsl.Dataset],
    folds: int = 0,
    split_by: str = "patient",
    subset: str = "",
    archive: str = "",
) -> None:
    """Reads the datasets, checks every image and splits by patient. See `ingest`."""
    from pathlib import Path

    from components.data.ingest import ingest
    from components.data.sources.listed import parse
    from core.locations import location
    from training.recipes import recipe_named

    summary = ingest(
        location(covid_directory),
        location(kermany_directory),
        Path(examples.path),
        archive=location(archive) if archive else None,
        views=views,
        seed=seed,
        folds=folds,
        split_by=split_by,
        subset=recipe_named(subset) if subset else None,
        beam_options=beam_options,
        sources=parse(sources),
    )
    examples.metadata.update({key: summary[key] for key in ("used", "patients", "fingerprint")})


@_step("data", Needs(size="light", hours=3, storage=True))
def validate_step(
    examples: dsl.Input[dsl.Dataset],
    covid_directory: str,
    kermany_directory: str,
    sources: list[str],
    validation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    schema: str = "",
    served: str = "",
) -> None:
    """Checks the examples against the schema, with TensorFlow Data Validation. See `validate`."""
    import shutil
    from pathlib import Path

    from components.data.named_images import directories
    from components.data.validate import validate
    from core.artifacts import VALIDATION_PAGE
    from core.locations import local_copy, location

    try:
        validate(
            Path(examples.path),
            Path(validation.path),
            schema=local_copy(location(schema)) if schema else None,
            served=location(served) if served else None,
            directories=directories(covid_directory, kermany_directory, sources),
        )
    finally:
        if Path(validation.path, VALIDATION_PAGE).is_file():
            shutil.copyfile(Path(validation.path, VALIDATION_PAGE), page.path)


@_step("data", Needs(size="light", hours=3, storage=True))
def choose_to_train_step(
    examples: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    archive: str,
    if_new: bool,
    new_covid: int,
    reason: dsl.Output[dsl.Markdown],
) -> str:
    """Decides whether enough is new to train again. See `choose_to_train`."""
    from pathlib import Path

    from components.data.choose_to_train import choose_to_train
    from core.locations import location

    choice, why = choose_to_train(
        Path(examples.path),
        Path(validation.path),
        location(archive) if archive else None,
        new_covid,
        if_new=if_new,
    )
    Path(reason.path).write_text(why + "\n")
    return choice


@_step("data", Needs(size="data", hours=6, storage=True))
def write_records_step(
    examples: dsl.Input[dsl.Dataset],
    covid_directory: str,
    kermany_directory: str,
    beam_options: list[str],
    sources: list[str],
    records: dsl.Output[dsl.Dataset],
    archive: str = "",
) -> None:
    """Packs each split's images into TFRecord shards. See `write_records`."""
    from pathlib import Path

    from components.data.named_images import directories
    from components.data.write_records import write_records
    from core.locations import location

    manifest = write_records(
        Path(examples.path),
        directories(covid_directory, kermany_directory, sources),
        Path(records.path),
        beam_options=beam_options,
        archive=location(archive) if archive else None,
    )
    records.metadata["fingerprint"] = manifest["fingerprint"]
    for split, described in manifest["splits"].items():
        records.metadata[f"{split}_records"] = described["records"]


@_step("training", Needs(size="training", hours=72, storage=True))
def find_lungs_step(
    covid_directory: str,
    examples: dsl.Input[dsl.Dataset],
    records: dsl.Input[dsl.Dataset],
    seed: int,
    checkpoints: str,
    lungs: dsl.Output[dsl.Model],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Trains the lung segmenter from the dataset's masks. See `find_lungs`."""
    import shutil
    from pathlib import Path

    from components.trust.find_lungs import find_lungs
    from core.artifacts import LUNGS_PAGE
    from core.locations import location

    card = find_lungs(
        location(covid_directory),
        Path(examples.path),
        Path(records.path),
        Path(lungs.path),
        seed=seed,
        kept=Path(checkpoints) if checkpoints else None,
    )
    shutil.copyfile(Path(lungs.path, LUNGS_PAGE), page.path)
    lungs.metadata.update({key: card[key] for key in ("dice", "trained_on", "tested_on")})


@_step("serving", Needs(size="light", hours=3, storage=True))
def champion_step(
    records: dsl.Input[dsl.Dataset],
    store: str,
    name: str,
    namespace: str,
    continues: bool,
    champion: dsl.Output[dsl.Artifact],
) -> None:
    """Predicts the test split with the version that is served. See `champion`."""
    from pathlib import Path

    from components.candidates.champion import champion as predict

    service = None
    if namespace:
        from serving.cluster.inference_service import InferenceService

        service = InferenceService(namespace, name)
    predict(
        store, name, Path(records.path), Path(champion.path), service=service, continues=continues
    )


@_step("training", Needs(size="training", hours=72, storage=True, distributed=True))
def train_step(
    examples: dsl.Input[dsl.Dataset],
    records: dsl.Input[dsl.Dataset],
    trial: str,
    epochs: str,
    weights: str,
    precision: str,
    seed: int,
    checkpoints: str,
    job: dict[str, Any],
    model: dsl.Output[dsl.Model],
    champion: dsl.Input[dsl.Artifact] = None,
    lungs: dsl.Input[dsl.Model] = None,
) -> None:
    """Trains a recipe on all GPUs, with a `job` on several machines. See `train_trial`."""
    from pathlib import Path

    from components.candidates.trial import train_trial

    card = train_trial(
        trial,
        Path(examples.path),
        Path(records.path),
        Path(model.path),
        Path(checkpoints or f"{model.path}-checkpoints"),
        epochs=epochs,
        weights=weights,
        seed=seed,
        precision=precision,
        champion=Path(champion.path) if champion else None,
        lungs=Path(lungs.path) if lungs else None,
        job=job,
    )
    model.metadata.update(
        {key: card[key] for key in ("starting_point", "fingerprint", "parameters", "seed")},
        recipe=card["recipe"]["name"],
        framework="tensorflow",
    )


@_step("training", Needs(size="light", hours=3, storage=True))
def evaluate_step(
    model: dsl.Input[dsl.Model],
    records: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Evaluates a candidate on held-out images, through its exported signature. See `evaluate`."""
    import shutil
    from pathlib import Path

    from components.candidates.evaluate import evaluate, show
    from core.artifacts import EVALUATION_PAGE

    evaluation.metadata["recipe"] = model.metadata["recipe"]
    evaluate(Path(model.path), Path(records.path), Path(evaluation.path))
    shutil.copyfile(Path(evaluation.path, EVALUATION_PAGE), page.path)
    show(Path(evaluation.path), metrics, classification)


@_step("training", Needs(size="light", hours=3, storage=True))
def audit_step(
    model: dsl.Input[dsl.Model],
    records: dsl.Input[dsl.Dataset],
    examples: dsl.Input[dsl.Dataset],
    lungs: dsl.Input[dsl.Model],
    external: list[str],
    views: list[str],
    audit: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Measures whether a candidate decides by the lungs, and whether it can be trusted. See `audit`."""
    import shutil
    from pathlib import Path

    from components.data.sources import listed
    from components.trust.audit import audit as measure
    from core.artifacts import AUDIT_PAGE

    measure(
        Path(model.path),
        Path(records.path),
        Path(examples.path),
        Path(lungs.path),
        Path(audit.path),
        external=listed.parse(external),
        views=views,
    )
    audit.metadata["recipe"] = model.metadata["recipe"]
    shutil.copyfile(Path(audit.path, AUDIT_PAGE), page.path)


@_step("data", Needs(size="light", hours=3, storage=True))
def gate_step(
    models: dsl.Input[list[dsl.Model]],
    evaluations: dsl.Input[list[dsl.Artifact]],
    audits: dsl.Input[list[dsl.Artifact]],
    thresholds: str,
    trust: str,
    decision: dsl.Output[dsl.Artifact],
    winner: dsl.Output[dsl.Model],
    winners_evaluation: dsl.Output[dsl.Artifact],
    winners_audit: dsl.Output[dsl.Artifact],
    champion: dsl.Input[dsl.Artifact],
    examples: dsl.Input[dsl.Dataset],
    run: str,
    archive: str,
) -> str:
    """Decides which candidate passes on its recalls and, if trust is enforced, its verdict. See `gate`."""
    from pathlib import Path

    from components.trust.gate import gate, record
    from components.trust.rules import parse, trust_named
    from core.artifacts import ToDeploy
    from core.locations import location

    kept = location(archive) if archive else None
    decided = gate(
        [Path(evaluation.path) for evaluation in evaluations],
        parse(thresholds),
        Path(decision.path),
        Path(champion.path),
        [Path(audit.path) for audit in audits],
        trust=trust_named(trust),
        examples=Path(examples.path),
        archive=kept,
        run=run,
    )
    record(decided, Path(examples.path), kept)
    for output, candidates in (
        (winner, models),
        (winners_evaluation, evaluations),
        (winners_audit, audits),
    ):
        for candidate in candidates:
            if candidate.metadata["recipe"] == decided["winner"]:
                output.uri = candidate.uri
                output.metadata.update(candidate.metadata)
    return ToDeploy.DEPLOY if decided["winner"] else ToDeploy.KEEP


@_step("data", Needs(size="light", hours=3, storage=False))
def report_step(
    examples: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    evaluations: dsl.Input[list[dsl.Artifact]],
    decision: dsl.Input[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Puts the whole run on one page. See `report`."""
    from pathlib import Path

    from components.release.report import report

    report(
        Path(examples.path),
        Path(validation.path),
        [Path(evaluation.path) for evaluation in evaluations],
        Path(decision.path),
        Path(page.path),
    )


@_step("serving", Needs(size="light", hours=3, storage=True))
def deploy_step(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    audit: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    store: str,
    name: str,
    server: str,
    namespace: str,
    canary: str,
    canary_minutes: float,
    canary_unseen: bool,
    run: str,
    archive: str,
    report: dsl.Output[dsl.Markdown],
) -> str:
    """Publishes the winner in the model store and deploys it. See `deploy`."""
    from pathlib import Path

    from components.release.deploy import deploy
    from serving.cluster.policy import Policy, parse_steps

    service = None
    if namespace:
        from serving.cluster.inference_service import InferenceService

        service = InferenceService(namespace, name)
    return deploy(
        Path(model.path),
        Path(evaluation.path),
        Path(audit.path),
        Path(decision.path),
        store,
        name,
        server=Path(server) if server else None,
        service=service,
        policy=Policy(
            steps=parse_steps(canary), step_seconds=60 * canary_minutes, unseen=canary_unseen
        ),
        run=run,
        archive=archive,
        report=Path(report.path),
    )


@_step("training", Needs(size="light", hours=3, storage=False))
def reproduce_step(
    examples: dsl.Input[dsl.Dataset],
    models: dsl.Input[list[dsl.Model]],
    evaluations: dsl.Input[list[dsl.Artifact]],
    reproduction: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> None:
    """Shows the published figures beside ours. See `reproduce`."""
    import shutil
    from pathlib import Path

    from components.candidates.reproduce import reproduce
    from core.artifacts import REPRODUCTION_PAGE

    reproduce(
        Path(examples.path),
        [Path(model.path) for model in models],
        [Path(evaluation.path) for evaluation in evaluations],
        Path(reproduction.path),
    )
    shutil.copyfile(Path(reproduction.path, REPRODUCTION_PAGE), page.path)


@_step("data", Needs(size="light", hours=3, storage=False))
def choose_step(
    examples: dsl.Input[dsl.Dataset],
    recipe: str,
    seed: int,
    chosen: dsl.Output[dsl.Dataset],
) -> None:
    """Chooses images that a recipe is not tested on. See `choose`."""
    from pathlib import Path

    from components.candidates.choose import choose
    from training.recipes import recipe_named

    choose(recipe_named(recipe), Path(examples.path), Path(chosen.path), seed=seed)


@_step("training", Needs(size="training", hours=72, storage=True))
def pretrain_step(
    chosen: dsl.Input[dsl.Dataset],
    records: dsl.Input[dsl.Dataset],
    recipe: str,
    epochs: str,
    size: int,
    precision: str,
    seed: int,
    checkpoints: str,
    base: dsl.Output[dsl.Model],
) -> None:
    """Trains a base on chest X-rays. See `pretrain`."""
    from pathlib import Path

    from components.candidates.pretrain import pretrain
    from training.recipes import recipe_named, with_epochs

    described = pretrain(
        with_epochs(recipe_named(recipe), epochs),
        Path(chosen.path),
        Path(records.path),
        Path(base.path),
        Path(checkpoints),
        size=size,
        seed=seed,
        precision=precision,
    )
    base.metadata.update(
        {key: described[key] for key in ("recipe", "base", "images", "fingerprint")}
    )
