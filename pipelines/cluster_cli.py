"""The commands that talk to a cluster: compile, submit, schedule, runs, deploy, promote, rollback."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from core.errors import UserError
from pipelines.console import console, parts_of, print_rows, quiet

if TYPE_CHECKING:
    from pipelines.kubeflow import Kubeflow
    from pipelines.targets import Target
    from serving.cluster.inference_service import InferenceService

app = typer.Typer()

Overlay = Annotated[
    Literal["kind", "minikube", "gke"],
    typer.Option(help="Where it will run, as in manifests/overlays."),
]
Registry = Annotated[
    str | None, typer.Option(help="Before the images' names, e.g. registry.example.org/cxrflow/.")
]
Store = Annotated[str | None, typer.Option(help="Model store: a place at gs:// or s3://.")]
Gpus = Annotated[int | None, typer.Option(min=0, help="Of each training.")]
Nodes = Annotated[
    int | None,
    typer.Option(
        min=1, help="That train one candidate together, by Kubeflow Trainer.", show_default="1"
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        envvar="KF_PIPELINES_ENDPOINT",
        help="URL of Kubeflow Pipelines. Default: through the cluster of the kubeconfig.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(envvar="KF_PIPELINES_TOKEN", help="To be let in with.", show_envvar=True),
]
Recipes = Annotated[str | None, typer.Option(help="Candidates, with commas.")]
Gate = Annotated[
    str | None, typer.Option(help="Least recall by class, e.g. covid=0.9,default=0.7.")
]
Epochs = Annotated[str | None, typer.Option(help="Other than a recipe's own, e.g. cnn-dubey=5.")]
Weights = Annotated[
    str | None, typer.Option(help="imagenet, none, or a path below /data on the cluster.")
]
Seed = Annotated[int | None, typer.Option(min=0)]
Canary = Annotated[
    str | None, typer.Option(help="Shares of the traffic of a new version, in percent: 10,50,100.")
]
CanaryMinutes = Annotated[float | None, typer.Option(min=0, help="At each share.")]
CanaryUnseen = Annotated[
    bool,
    typer.Option("--canary-unseen", help="Promote it even if too few requests came to judge it."),
]
BeamOptions = Annotated[
    list[str] | None,
    typer.Option("--beam-option", help="Option of a Beam runner; may be repeated."),
]
Covid = Annotated[
    str | None, typer.Option(help="covid-chestxray-dataset, as steps see it: below /data.")
]
Kermany = Annotated[str | None, typer.Option(help="Kermany's chest X-rays, as steps see them.")]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source", help="A further source, NAME=SPEC, as steps see it; see `run`. Repeatable."
    ),
]
Externals = Annotated[
    list[str] | None,
    typer.Option(help="NAME=SPEC of radiographs that training never sees. Repeatable."),
]
Namespace = Annotated[str, typer.Option(help="Of the InferenceService.")]
Name = Annotated[str, typer.Option(help="Of the InferenceService.")]


@app.command("compile")
def compile_pipeline(
    file: Annotated[
        Path | None,
        typer.Argument(help="The YAML to write. Default: cxrflow-<PIPELINE>.yaml", dir_okay=False),
    ] = None,
    target: Overlay = "kind",
    pipeline: Annotated[
        Literal["training", "cross-validation"],
        typer.Option(help="The main job, or the protocol of a paper."),
    ] = "training",
    registry: Registry = None,
    store: Store = None,
    gpus: Gpus = None,
    nodes: Nodes = None,
) -> None:
    """Write a pipeline as YAML for a Kubeflow Pipelines cluster."""
    with quiet():
        from pipelines import kubeflow
        from pipelines.cross_validation import cross_validation_pipeline
        from pipelines.training_pipeline import training_pipeline

    chosen = _target(target, registry, store, gpus, nodes)
    make = training_pipeline if pipeline == "training" else cross_validation_pipeline
    file = file or Path(f"cxrflow-{pipeline}.yaml")
    kubeflow.write(make(chosen), file)
    console.print(f"wrote {file}")


@app.command()
def submit(
    target: Overlay = "kind",
    covid: Covid = None,
    kermany: Kermany = None,
    source: Sources = None,
    external: Externals = None,
    recipes: Recipes = None,
    gate: Gate = None,
    epochs: Epochs = None,
    weights: Weights = None,
    seed: Seed = None,
    canary: Canary = None,
    canary_minutes: CanaryMinutes = None,
    canary_unseen: CanaryUnseen = False,
    beam_option: BeamOptions = None,
    registry: Registry = None,
    store: Store = None,
    gpus: Gpus = None,
    nodes: Nodes = None,
    host: Host = None,
    token: Token = None,
) -> None:
    """Run the whole pipeline once on a cluster."""
    arguments = _arguments(
        covid,
        kermany,
        source,
        external,
        recipes,
        gate,
        epochs,
        weights,
        seed,
        canary,
        canary_minutes,
        canary_unseen,
        beam_option,
    )
    run = _kubeflow(host, token).submit(_target(target, registry, store, gpus, nodes), arguments)
    print_rows([("run", run.id), ("name", run.name), ("state", run.state)])


@app.command()
def schedule(
    target: Overlay = "kind",
    cron: Annotated[str, typer.Option(help='When, e.g. "0 3 * * 1": Mondays at three.')] = "",
    every: Annotated[str, typer.Option(help="How often, e.g. 12h or 7d.")] = "",
    new_covid: Annotated[
        int, typer.Option(min=1, help="New images of covid that are enough.")
    ] = 20,
    archive: Annotated[
        str,
        typer.Option(help="States of the data, as steps see it.", show_default="/data/archive"),
    ] = "",
    covid: Covid = None,
    kermany: Kermany = None,
    source: Sources = None,
    external: Externals = None,
    recipes: Recipes = None,
    gate: Gate = None,
    epochs: Epochs = None,
    weights: Weights = None,
    seed: Seed = None,
    canary: Canary = None,
    canary_minutes: CanaryMinutes = None,
    canary_unseen: CanaryUnseen = False,
    beam_option: BeamOptions = None,
    registry: Registry = None,
    store: Store = None,
    gpus: Gpus = None,
    nodes: Nodes = None,
    host: Host = None,
    token: Token = None,
) -> None:
    """Run the whole pipeline again and again on a cluster. Called again, it replaces the schedule.

    A run trains only where enough is new since models were last trained, and goes on from the champion.
    """
    with quiet():
        from pipelines.kubeflow import parse_schedule

    when = parse_schedule(cron, every)
    arguments = _arguments(
        covid,
        kermany,
        source,
        external,
        recipes,
        gate,
        epochs,
        weights,
        seed,
        canary,
        canary_minutes,
        canary_unseen,
        beam_option,
    )
    arguments |= {"if_new": True, "new_covid": new_covid}
    if archive:
        arguments["archive"] = archive
    chosen = _target(target, registry, store, gpus, nodes)
    name, changed = _kubeflow(host, token).schedule(chosen, arguments, when)
    console.print(f"{name} is scheduled" if changed else f"{name} is scheduled so already")


@app.command()
def runs(
    most: Annotated[int, typer.Option(min=1, max=100, help="How many, the newest first.")] = 10,
    host: Host = None,
    token: Token = None,
) -> None:
    """List the runs on a cluster."""
    found = _kubeflow(host, token).runs(most)
    if not found:
        console.print("no run yet; `cxrflow submit` makes one")
        return
    table = Table("created (UTC)", "state", "took", "name", "id", box=None, header_style="bold")
    for run in found:
        took = "" if run.seconds is None else f"{run.seconds / 60:.0f} min"
        table.add_row(f"{run.created:%Y-%m-%d %H:%M}", run.state, took, run.name, run.id)
    console.print(table)


@app.command()
def deploy(
    version: Annotated[Path, typer.Argument(help="A version of a model store in a directory.")],
    check: Annotated[
        bool, typer.Option("--check", help="Only ask a server of it for its known answers.")
    ] = False,
    namespace: Namespace = "cxrflow",
    name: Name = "cxrflow",
    store: Annotated[
        str, typer.Option(help="Where KServe finds it: a model store at gs:// or s3://.")
    ] = "",
    canary: Annotated[str, typer.Option(help="Shares of the traffic, in percent.")] = "10,50,100",
    canary_minutes: Annotated[float, typer.Option(min=0, help="At each share.")] = 5,
    canary_unseen: CanaryUnseen = False,
) -> None:
    """Check a version on this machine, publish it to an object store, and roll it out on KServe."""
    from core.artifacts import CARD, DECISION
    from core.files import read_json
    from serving import local
    from serving import store as stores
    from serving.cluster import known_answers, rollout
    from serving.cluster.inference_service import InferenceService
    from serving.cluster.policy import Policy, parse_steps
    from serving.cluster.state import Release

    found = stores.version_in(version)
    stores.verified(found)
    if check:
        console.print(local.check(found))
        return
    if "://" not in store:
        raise UserError(
            "deploy: name the --store that KServe reads, at gs:// or s3://, or only --check"
        )
    policy = Policy(
        steps=parse_steps(canary), step_seconds=60 * canary_minutes, unseen=canary_unseen
    )
    service = InferenceService(namespace, name)
    console.print(local.check(found))
    uri = stores.publish(found, store)
    console.print(f"published as {uri}")
    decision = read_json(found / DECISION)
    release = Release(
        version=stores.number_of(uri),
        uri=uri,
        decided=decision["decided"],
        reason=decision["reason"],
        fingerprint=read_json(found / CARD)["fingerprint"],
    )
    rollout.roll_out(service, release, policy, known_answers.read(found), _Printed())


@app.command()
def promote(namespace: Namespace = "cxrflow", name: Name = "cxrflow") -> None:
    """Give the canary all of the traffic now."""
    from serving.cluster import rollout

    release = rollout.promote(_service(namespace, name))
    console.print(f"version {release.version} is promoted")


@app.command()
def rollback(
    version: Annotated[
        int | None,
        typer.Argument(
            min=1, help="Any earlier version of the store. Default: take the canary back."
        ),
    ] = None,
    namespace: Namespace = "cxrflow",
    name: Name = "cxrflow",
) -> None:
    """Go back to an earlier version, or take the canary back."""
    from serving.cluster import rollout
    from serving.cluster.policy import Policy

    service = _service(namespace, name)
    if version is None:
        stable = rollout.take_back(service)
        console.print(f"the canary is taken back; version {stable.version} goes on")
    else:
        rollout.go_back(service, str(version), Policy(), _Printed())
        console.print(f"version {version} is served")


class _Printed(list[str]):
    """Prints what it gets."""

    def append(self, line: str) -> None:
        console.print(line, markup=False, highlight=False)
        super().append(line)


def _target(
    name: str, registry: str | None, store: str | None, gpus: int | None, nodes: int | None
) -> "Target":
    with quiet():
        from pipelines.targets import TARGETS

    changes: dict[str, Any] = {"registry": registry, "store": store, "gpus": gpus, "nodes": nodes}
    given = {key: value for key, value in changes.items() if value is not None}
    made = dataclasses.replace(TARGETS[name], **given)
    for value in (made.registry, made.store):
        if "PROJECT" in value or "BUCKET" in value:
            raise UserError(f"{name}: put your own names for {value!r}: --registry and --store")
    return made


def _arguments(
    covid: str | None,
    kermany: str | None,
    sources: list[str] | None,
    external: list[str] | None,
    recipes: str | None,
    gate: str | None,
    epochs: str | None,
    weights: str | None,
    seed: int | None,
    canary: str | None,
    canary_minutes: float | None,
    canary_unseen: bool,
    beam_options: list[str] | None,
) -> dict[str, Any]:
    """Returns the pipeline's parameters that were given, checked as far as can be from here."""
    with quiet():
        from components.data.sources import listed
        from components.trust import rules
        from serving.cluster.policy import parse_steps
        from training.recipes import CANDIDATES, recipe_named, with_epochs

    names = parts_of(recipes) if recipes else list(CANDIDATES)
    for name in names:
        with_epochs(recipe_named(name), epochs or "")
    for texts in (sources, external):
        listed.parse(texts or [])
    if gate is not None:
        rules.parse(gate)
    if canary is not None:
        parse_steps(canary)
    given = {
        "covid_directory": covid,
        "kermany_directory": kermany,
        "sources": sources or None,
        "external": external or None,
        "recipes": names if recipes else None,
        "gate": gate,
        "epochs": epochs,
        "weights": weights,
        "seed": seed,
        "canary": canary,
        "canary_minutes": canary_minutes,
        "canary_unseen": canary_unseen or None,
        "beam_options": beam_options or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _kubeflow(host: str | None, token: str | None) -> "Kubeflow":
    with quiet():
        from pipelines.kubeflow import Kubeflow

    return Kubeflow(host, token)


def _service(namespace: str, name: str) -> "InferenceService":
    from serving.cluster.inference_service import InferenceService

    return InferenceService(namespace, name)
