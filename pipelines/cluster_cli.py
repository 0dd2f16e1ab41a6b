"""The commands that talk to a cluster: compile, submit, schedule, runs, deploy, promote, rollback."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from components.data.choose_to_train import NEW_COVID
from components.trust.rules import GATE
from core.artifacts import Trust
from core.errors import UserError
from pipelines.console import console, parts_of, print_rows, quiet
from pipelines.options import CANARY, CANARY_MINUTES, spread
from serving.cluster.policy import Policy, parse_steps
from serving.verdict import DEPLOYED

if TYPE_CHECKING:
    from pipelines.kubeflow import Kubeflow
    from pipelines.targets import Target
    from serving.cluster.inference_service import InferenceService

app = typer.Typer()

Unseen = Annotated[
    bool,
    typer.Option(
        "--canary-unseen", help="Promote a version even if too few requests came to judge it."
    ),
]
Namespace = Annotated[str, typer.Option(help="Of the InferenceService.")]
Name = Annotated[str, typer.Option(help="Of the InferenceService.")]


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """The overlay of manifests/ that a pipeline is compiled for, and changes to it."""

    target: Annotated[
        Literal["kind", "minikube", "gke"],
        typer.Option(help="The cluster to run on, as in manifests/overlays."),
    ] = "kind"
    registry: Annotated[
        str | None,
        typer.Option(help="Prefix of the images' names, e.g. registry.example.org/cxrflow/."),
    ] = None
    store: Annotated[str | None, typer.Option(help="Model store, at gs:// or s3://.")] = None
    gpus: Annotated[int | None, typer.Option(min=0, help="Of each training step.")] = None
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Nodes that train one candidate together, with Kubeflow Trainer.",
            show_default="1",
        ),
    ] = None

    def placed(self) -> "Target":
        """Returns the target with these changes."""
        with quiet():
            from pipelines.targets import TARGETS

        changes = {name: value for name, value in vars(self).items() if value is not None}
        target = replace(TARGETS[changes.pop("target")], **changes)
        for value in (target.registry, target.store):
            if "PROJECT" in value or "BUCKET" in value:
                raise UserError(
                    f"{target.name}: replace the placeholder in {value!r}: give --registry and --store"
                )
        return target


@dataclass(frozen=True, kw_only=True)
class Job:
    """Parameters of the main job, named as there; those not given keep its defaults."""

    covid_directory: Annotated[
        str | None,
        typer.Option("--covid", help="covid-chestxray-dataset, as steps see it: below /data."),
    ] = None
    kermany_directory: Annotated[
        str | None, typer.Option("--kermany", help="Kermany's chest X-rays, as steps see them.")
    ] = None
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source", help="A further source, NAME=SPEC, as steps see it; see `run`. Repeatable."
        ),
    ] = None
    external: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SPEC of radiographs that are never trained on. Repeatable."),
    ] = None
    recipes: Annotated[str | None, typer.Option(help="Candidates, separated by commas.")] = None
    gate: Annotated[str | None, typer.Option(help=f"Lowest recall by class, e.g. {GATE}.")] = None
    trust: Annotated[
        Trust | None,
        typer.Option(
            help="enforce: deploy only trusted candidates; flag: all that pass.",
            show_default=Trust.ENFORCE.value,
        ),
    ] = None
    epochs: Annotated[
        str | None, typer.Option(help="Instead of the recipe's own, e.g. cnn-dubey=5.")
    ] = None
    weights: Annotated[
        str | None, typer.Option(help="imagenet, none, or a path below /data on the cluster.")
    ] = None
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 2, help="The same seed gives the same result.")
    ] = None
    canary: Annotated[
        str | None,
        typer.Option(help=f"Traffic shares of a new version, in percent, e.g. {CANARY}."),
    ] = None
    canary_minutes: Annotated[float | None, typer.Option(min=0, help="Time at each share.")] = None
    canary_unseen: Unseen = False
    beam_options: Annotated[
        list[str] | None,
        typer.Option("--beam-option", help="Option of the Beam runner. Repeatable."),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Returns the given parameters.

        Raises:
          UserError: a parameter is wrong, as far as this shows without the data.
        """
        with quiet():
            from components.data.sources import listed
            from components.trust import rules
            from pipelines import checks
            from training.recipes import CANDIDATES

        recipes = None if self.recipes is None else parts_of(self.recipes)
        checks.candidates(
            CANDIDATES if recipes is None else recipes,
            self.epochs or "",
            rules.parse(self.gate or ""),
        )
        for specs in (self.sources, self.external):
            listed.parse(specs or [])
        if self.canary is not None:
            parse_steps(self.canary)
        parameters = vars(self) | {"recipes": recipes}
        return {
            name: value
            for name, value in parameters.items()
            if not (value is None or value is False or value == [])
        }


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The connection to Kubeflow Pipelines."""

    host: Annotated[
        str | None,
        typer.Option(
            envvar="KF_PIPELINES_ENDPOINT",
            help="URL of Kubeflow Pipelines. Default: through the cluster of the kubeconfig.",
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(envvar="KF_PIPELINES_TOKEN", help="Bearer token.", show_envvar=True),
    ] = None

    def opened(self) -> "Kubeflow":
        """Returns the connection."""
        with quiet():
            from pipelines.kubeflow import Kubeflow

        return Kubeflow(self.host, self.token)


@app.command("compile")
@spread
def compile_pipeline(
    overlay: Overlay,
    file: Annotated[
        Path | None,
        typer.Argument(help="The YAML to write. Default: cxrflow-<PIPELINE>.yaml", dir_okay=False),
    ] = None,
    pipeline: Annotated[
        Literal["training", "cross-validation"],
        typer.Option(help="The main job, or the protocol of a paper."),
    ] = "training",
) -> None:
    """Write a pipeline as YAML for a Kubeflow Pipelines cluster."""
    with quiet():
        from pipelines import kubeflow
        from pipelines.cross_validation import cross_validation_pipeline
        from pipelines.training_pipeline import training_pipeline

    make = training_pipeline if pipeline == "training" else cross_validation_pipeline
    file = file or Path(f"cxrflow-{pipeline}.yaml")
    kubeflow.write(make(overlay.placed()), file)
    console.print(f"wrote {file}")


@app.command()
@spread
def submit(overlay: Overlay, job: Job, connection: Connection) -> None:
    """Run the whole pipeline once on a cluster."""
    target, arguments = overlay.placed(), job.arguments()
    run = connection.opened().submit(target, arguments)
    print_rows(
        [
            ("run", run.id),
            ("name", run.name),
            ("state", run.state),
            ("trust", DEPLOYED[job.trust or target.trust]),
        ]
    )


@app.command()
@spread
def schedule(
    overlay: Overlay,
    job: Job,
    connection: Connection,
    cron: Annotated[str, typer.Option(help='When, e.g. "0 3 * * 1": Mondays at three.')] = "",
    every: Annotated[str, typer.Option(help="How often, e.g. 12h or 7d.")] = "",
    new_covid: Annotated[
        int, typer.Option(min=1, help="New images of covid that are enough to train again.")
    ] = NEW_COVID,
    archive: Annotated[
        str,
        typer.Option(
            help="Archive of the data's states, as steps see it.", show_default="/data/archive"
        ),
    ] = "",
) -> None:
    """Run the whole pipeline regularly on a cluster. A second call replaces the schedule.

    A run trains only if enough is new since the last training, and continues from the champion.
    """
    with quiet():
        from pipelines.kubeflow import parse_schedule

    when = parse_schedule(cron, every)
    arguments = job.arguments() | {"if_new": True, "new_covid": new_covid}
    if archive:
        arguments["archive"] = archive
    target = overlay.placed()
    name, changed = connection.opened().schedule(target, arguments, when)
    console.print(f"{name} is scheduled" if changed else f"{name} is already scheduled like this")
    print_rows([("trust", DEPLOYED[job.trust or target.trust])])


@app.command()
@spread
def runs(
    connection: Connection,
    most: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 10,
) -> None:
    """List the runs on a cluster."""
    newest = connection.opened().runs(most)
    if not newest:
        console.print("no run yet; `cxrflow submit` starts one")
        return
    table = Table("created (UTC)", "state", "took", "name", "id", box=None, header_style="bold")
    for run in newest:
        took = "" if run.seconds is None else f"{run.seconds / 60:.0f} min"
        table.add_row(f"{run.created:%Y-%m-%d %H:%M}", run.state, took, run.name, run.id)
    console.print(table)


@app.command()
def deploy(
    version: Annotated[Path, typer.Argument(help="A version of a model store in a directory.")],
    check: Annotated[
        bool,
        typer.Option("--check", help="Only check that a server of it gives its known answers."),
    ] = False,
    namespace: Namespace = "cxrflow",
    name: Name = "cxrflow",
    store: Annotated[
        str, typer.Option(help="The model store that KServe reads, at gs:// or s3://.")
    ] = "",
    canary: Annotated[str, typer.Option(help="Shares of the traffic, in percent.")] = CANARY,
    canary_minutes: Annotated[
        float, typer.Option(min=0, help="Time at each share.")
    ] = CANARY_MINUTES,
    canary_unseen: Unseen = False,
) -> None:
    """Check a version on this machine, publish it to an object store, and roll it out on KServe."""
    from core.artifacts import CARD, DECISION
    from core.files import read_json
    from serving import local, verdict
    from serving import store as stores
    from serving.cluster import known_answers, rollout
    from serving.cluster.state import Release

    directory = stores.version_in(version)
    stores.verified(directory)
    if check:
        console.print(local.check(directory))
        return
    if "://" not in store:
        raise UserError(
            "deploy: give the --store that KServe reads, at gs:// or s3://, or use --check alone"
        )
    policy = Policy(
        steps=parse_steps(canary), step_seconds=60 * canary_minutes, unseen=canary_unseen
    )
    service = _service(namespace, name)
    console.print(local.check(directory))
    uri = stores.publish(directory, store)
    console.print(f"published as {uri}")
    decision = read_json(directory / DECISION)
    release = Release(
        version=stores.number_of(uri),
        uri=uri,
        decided=decision["decided"],
        reason=decision["reason"],
        fingerprint=read_json(directory / CARD)["fingerprint"],
        trust=verdict.in_words(verdict.of_winner(decision)),
    )
    rollout.roll_out(service, release, policy, known_answers.read(directory), _Printed())


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
            min=1, help="Any earlier version of the store. Default: roll the canary back."
        ),
    ] = None,
    namespace: Namespace = "cxrflow",
    name: Name = "cxrflow",
) -> None:
    """Roll back to an earlier version, or roll the canary back."""
    from serving.cluster import rollout

    service = _service(namespace, name)
    if version is None:
        stable = rollout.take_back(service)
        console.print(f"the canary is rolled back; version {stable.version} stays")
    else:
        rollout.go_back(service, str(version), Policy(), _Printed())
        console.print(f"version {version} is served")


class _Printed(list[str]):
    """Prints each line that is appended."""

    def append(self, line: str) -> None:
        console.print(line, markup=False, highlight=False)
        super().append(line)


def _service(namespace: str, name: str) -> "InferenceService":
    from serving.cluster.inference_service import InferenceService

    return InferenceService(namespace, name)
