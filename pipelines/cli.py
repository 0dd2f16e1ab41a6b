"""The commands of `cxrflow`. Each imports its heavy packages itself."""

import sys
import traceback
from datetime import datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from components.data.choose_to_train import NEW_COVID
from components.trust.rules import GATE, Outcome
from core.artifacts import AUDIT_PAGE, LUNGS_PAGE, PRETRAINING, Trust, Verdict
from core.errors import UserError
from core.imports import uncollected
from core.locations import absolute, is_remote, location
from pipelines import cluster_cli, data_cli, stopping
from pipelines.console import console, live_line, parts_of, print_error, print_rows, quiet
from pipelines.options import (
    OUTPUT,
    SEED,
    Datasets,
    FromWeights,
    Output,
    Protocol,
    Seed,
    Training,
    spread,
)
from pipelines.refusals import next_steps, refusals
from serving.verdict import DEPLOYED
from training.recipes import CANDIDATES, RECIPES, quick_name, recipe_named, with_epochs

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From public chest X-ray datasets to a served model. Not a diagnostic device.",
)
app.add_typer(cluster_cli.app)
app.add_typer(data_cli.app)
_debug = False
_command = ""

# The extra of the package with all that a command needs; other commands need all extras.
_EXTRAS = {
    **dict.fromkeys(("data", "sample-data"), "data"),
    **dict.fromkeys(("deploy", "predict", "promote", "rollback", "serve", "stop"), "serving"),
    "pacs": "pacs",
}
_ALL_EXTRAS = "data,training,serving,pipelines"

Archive = Annotated[
    str,
    typer.Option(
        help="Archive of the data's states: a directory, gs:// or s3://.",
        show_default="OUTPUT/archive",
    ),
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        help="A further source, NAME=SPEC: a CSV of path, label, patient, or a directory with a folder "
        r"for each finding, e.g. nih=data/nih,patient=(\d+)_. Repeatable.",
    ),
]
Externals = Annotated[
    list[str] | None,
    typer.Option(help="NAME=SPEC, as for --source, of images never trained on. Repeatable."),
]


def fail(error: Exception) -> NoReturn:
    """Ends a command that raised an error: in one line on standard error; `--debug` adds a traceback."""
    if isinstance(error, UserError):
        message = str(error)
    elif isinstance(error, ModuleNotFoundError):
        extras = _EXTRAS.get(_command, _ALL_EXTRAS)
        message = (
            f"`cxrflow {_command}` needs the package {error.name}, which is not installed: "
            f"pip install 'cxrflow[{extras}]'"
        )
    else:
        message = f"{type(error).__name__}: {error} (`cxrflow --debug …` shows where)"
    if _debug:
        traceback.print_exception(error)
    print_error(message)
    sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"cxrflow {version('cxrflow')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option(help="Show all output of steps, and tracebacks.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    global _debug, _command
    _debug, _command = debug, context.invoked_subcommand or ""


@app.command()
@spread
def run(
    datasets: Datasets,
    training: FromWeights,
    source: Sources = None,
    external: Externals = None,
    recipes: Annotated[
        str,
        typer.Option(help="Candidates, separated by commas; `cxrflow recipes` lists all."),
    ] = ",".join(CANDIDATES),
    gate: Annotated[
        str,
        typer.Option(help="Lowest recall by class (default: of all others)."),
    ] = GATE,
    trust: Annotated[
        Trust,
        typer.Option(help="flag: deploy all that pass, with their verdict; enforce: only trusted."),
    ] = Trust.FLAG,
    output: Output = OUTPUT,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A first look within minutes: smaller images, few epochs. Not the papers' networks.",
        ),
    ] = False,
    beam_option: Annotated[
        list[str] | None,
        typer.Option(help="Option of the Beam runner, e.g. --runner=FlinkRunner. Repeatable."),
    ] = None,
    serve: Annotated[bool, typer.Option(help="Start a model server for the winner.")] = True,
    archive: Archive = "",
    store: Annotated[
        str,
        typer.Option(help="Model store: a directory, gs:// or s3://.", show_default="OUTPUT/store"),
    ] = "",
    if_new: Annotated[
        bool, typer.Option("--if-new", help="Train only if enough is new; see --new-covid.")
    ] = False,
    new_covid: Annotated[
        int, typer.Option(min=1, help="New images of covid that are enough to train again.")
    ] = NEW_COVID,
    schema: Annotated[
        str, typer.Option(help="Your own schema, as `cxrflow schema accept` writes it.")
    ] = "",
    served: Annotated[
        str, typer.Option(help="Feature log of a server, to compare with the data.")
    ] = "",
) -> None:
    """Run the whole pipeline on this machine: ingest, validate, train, evaluate, gate, deploy."""
    from pipelines import checks, local_run
    from serving import NAME
    from serving import local as servers
    from serving.store import newest

    home = output.resolve()
    names = parts_of(recipes)
    if quick:
        # Looked up first, so that an error has the name that was typed.
        names = [quick_name(recipe_named(name).name) for name in names]
    arguments = {
        **datasets.arguments(),
        "sources": _specs(source),
        "external": _specs(external),
        "recipes": names,
        "gate": gate,
        "epochs": training.epochs,
        "weights": training.path(),
        "seed": training.seed,
        "archive": absolute(archive or home / "archive"),
        "store": absolute(store or home / "store"),
        "schema": absolute(schema) if schema else "",
    }
    checks.check(**arguments, needs_lungs=True)
    done = local_run.run(
        _training,
        {
            **arguments,
            "trust": trust.value,
            "precision": training.precision,
            "beam_options": beam_option or [],
            "if_new": if_new,
            "new_covid": new_covid,
            "served": absolute(served) if served else "",
            "checkpoints": _checkpoints(arguments["archive"], home),
            "server": str(home / "server") if serve else "",
        },
        home,
        console,
        verbose=_debug,
    )
    pages = local_run.collect_pages(done.directory, home / "report")
    if not pages:
        console.print("Nothing is new: nothing was done.")
    rows = [("" if number else "report", str(page)) for number, page in enumerate(pages)]
    rows += [("artifacts", str(done.directory)), ("log", str(done.log))]
    model = newest(arguments["store"], NAME)
    if model:
        rows.append(("model", model))
    server = servers.running(home / "server")
    if server:
        rows.append(("server", server.url))
    console.print()
    print_rows(rows)
    decision = local_run.decision(done.directory)
    if decision:
        _say_verdicts(decision)
    if decision and not decision["winner"]:
        console.print("\n[bold yellow]No candidate passed: nothing was deployed.[/]")
        print_rows(refusals(decision))
        console.print("\nWhat you can try:")
        print_rows(next_steps(decision, gate))


def _say_verdicts(decision: dict[str, Any]) -> None:
    console.print()
    for row in decision["candidates"]:
        _say_verdict(row["recipe"], row["trust"])
    print_rows([("trust", DEPLOYED[Trust(decision["trust"])])])


def _say_verdict(name: str, trust: dict[str, Any]) -> None:
    colour = {Verdict.TRUSTED: "green", Verdict.NOT_TRUSTED: "red"}.get(trust["verdict"], "yellow")
    console.print(f"{escape(name)} is [bold {colour}]{trust['verdict']}[/]", highlight=False)
    for reason in trust["reasons"]:
        console.print(f"  {reason}", markup=False, highlight=False)


@app.command("recipes")
def list_recipes() -> None:
    """List the published systems that can be trained."""
    for paper, recipes in groupby(RECIPES.values(), key=lambda recipe: recipe.paper):
        console.print(f"\n{escape(paper)}", highlight=False, style="dim")
        for recipe in recipes:
            height, width = recipe.input_size
            trained = "trains the head" if recipe.frozen else "trains all layers"
            print_rows([(f"{recipe.name:<17}", ", ".join(recipe.classes))])
            console.print(
                f"{'':<19}{recipe.base} at {height} × {width}, {recipe.parameters:,} parameters, "
                f"{trained}; {recipe.epochs} epochs, {recipe.protocol}",
                highlight=False,
            )
    console.print(
        "\nEach has variants that are not from a paper, e.g. cnn-dubey+lungs or "
        "cnn-dubey+lungs+augmented+balanced:",
        style="dim",
    )
    print_rows(
        [
            ("+lungs", "sees only the lungs, cropped and equalised; the rest is blanked"),
            (
                "+mixed-surroundings",
                "puts the lungs of many images into the surroundings of other classes",
            ),
            ("+augmented", "changes exposure, blur and rotation of images in each epoch"),
            ("+balanced", "gives all sources of a class the same weight"),
            ("+quick", "a first look with small images and few epochs, as in `run --quick`"),
        ]
    )


@app.command()
@spread
def reproduce(
    recipe: Annotated[
        str, typer.Argument(help="A recipe, or several separated by commas, side by side.")
    ],
    datasets: Datasets,
    training: FromWeights,
    published: Protocol,
    output: Output = OUTPUT,
) -> None:
    """Run a paper's protocol and show our figures beside the published ones."""
    import shutil

    from core.divisions import folds_of
    from core.files import write_aside
    from pipelines import checks, local_run

    recipes = [with_epochs(recipe_named(name), training.epochs) for name in parts_of(recipe)]
    protocols = {recipe.protocol for recipe in recipes}
    if any(recipe.name not in RECIPES for recipe in recipes):
        raise UserError("reproduce: no paper has variants; `cxrflow run --recipes` trains those")
    if len(protocols) > 1 and not published.folds:
        raise UserError(
            f"reproduce: these recipes have {len(protocols)} protocols; name recipes of one protocol"
        )
    drawn = published.subset == "paper"
    if drawn and len({tuple(recipe.subset.items()) for recipe in recipes}) > 1:
        raise UserError(
            "reproduce: the papers had different numbers of images; with --subset name one recipe"
        )
    checks.check(
        **datasets.arguments(),
        recipes=[recipe.name for recipe in recipes],
        epochs=training.epochs,
        weights=training.path(),
    )
    protocol = f"{published.folds}-fold" if published.folds else protocols.pop()
    home = output.resolve()
    done = local_run.run(
        _cross_validation,
        {
            **datasets.arguments(),
            "trials": [trial for recipe in recipes for trial in recipe.trials(protocol)],
            "folds": folds_of(protocol),
            "split_by": published.split,
            "subset": recipes[0].name if drawn else "",
            **vars(training),
            "weights": training.path(),
            "beam_options": [],
            "checkpoints": str(_kept(home)),
        },
        home,
        console,
        verbose=_debug,
    )
    name = "+".join(recipe.name for recipe in recipes)
    page, figures = home / f"{name}.html", home / f"{name}.json"
    with write_aside(page) as aside:
        shutil.copyfile(next(done.directory.glob("*/reproduce-step/page")), aside)
    with write_aside(figures) as aside:
        shutil.copyfile(next(done.directory.glob("*/reproduce-step/reproduction/*.json")), aside)
    console.print()
    print_rows(
        [
            ("report", str(page)),
            ("figures", str(figures)),
            ("artifacts", str(done.directory)),
            ("log", str(done.log)),
        ]
    )


@app.command()
@spread
def pretrain(
    recipe: Annotated[
        str, typer.Argument(help="The recipe whose base is trained, and that it is for.")
    ],
    datasets: Datasets,
    training: Training,
    published: Protocol,
    target: Annotated[Path, typer.Option(help="The directory to write.", file_okay=False)],
    output: Output = OUTPUT,
    size: Annotated[
        int, typer.Option(min=0, help="Side of the images in pixels. Default: the recipe's.")
    ] = 0,
) -> None:
    """Train a recipe's base on Kermany's images, for machines without internet: see --weights.

    The base sees no image that the recipe is tested on later, if you give the same data, --seed,
    --split, --folds and --subset to `run` or `reproduce`.
    """
    import shutil

    from core.divisions import folds_of
    from core.files import write_aside
    from pipelines import checks, local_run

    chosen = with_epochs(recipe_named(recipe), training.epochs)
    if not chosen.pretrained:
        raise UserError(f"pretrain: {chosen.name} is trained from scratch, as published")
    if target.exists() and any(target.iterdir()) and not (target / PRETRAINING).is_file():
        raise UserError(
            f"pretrain: {target} holds something else, which is not overwritten; give another --target"
        )
    checks.check(**datasets.arguments(), recipes=[recipe])
    home = output.resolve()
    done = local_run.run(
        _pretraining,
        {
            **datasets.arguments(),
            "recipe": chosen.name,
            "folds": folds_of(f"{published.folds}-fold" if published.folds else chosen.protocol),
            "split_by": published.split,
            "subset": chosen.name if published.subset == "paper" else "",
            "size": size,
            **vars(training),
            "checkpoints": str(_kept(home)),
        },
        home,
        console,
        verbose=_debug,
    )
    with write_aside(target) as aside:
        shutil.copytree(next(done.directory.glob("*/pretrain-step/base")), aside)
    console.print()
    print_rows([("weights", str(target)), ("log", str(done.log))])


@app.command()
@spread
def audit(
    model: Annotated[
        str, typer.Argument(help="A version of the model store: a directory, gs:// or s3://.")
    ],
    datasets: Datasets,
    output: Output = OUTPUT,
    source: Sources = None,
    external: Externals = None,
    archive: Archive = "",
) -> None:
    """Measure what a model's answers follow, and give a verdict: trusted, unproven or not trusted.

    Images are split as in the archive, and without one as in a first run.
    """
    from components.pages import measure
    from pipelines import checks
    from pipelines.local_run import CONTINUES

    stopping.say_when_stopped(f"interrupted; {CONTINUES}")
    given = {**datasets.arguments(), "sources": _specs(source)}
    checks.check(**given, external=_specs(external), needs_lungs=True, model=model)
    if archive:
        checks.require_span(archive)
    home = output.resolve() / "audit"
    kept_data = absolute(archive or output.resolve() / "archive")
    with quiet(), live_line():
        with uncollected():
            from pipelines import auditing

        measured = auditing.audit(
            model,
            auditing.Data(**given),
            _specs(external),
            home,
            Path(_checkpoints(kept_data, output.resolve())),
            location(kept_data),
        )
    console.print()
    for row in measured["rules"]:
        value = measure(row["value"])
        colour = {Outcome.KEPT: "green", Outcome.BROKEN: "red"}.get(row["outcome"], "dim")
        outcome = f"[{colour}]{row['outcome']:<10}[/]"
        console.print(f"{outcome} {value:>6}  {escape(row['what'])}", highlight=False)
    console.print()
    _say_verdict(measured["recipe"], measured["trust"])
    print_rows([("report", str(home / "audit" / AUDIT_PAGE))])


@app.command()
@spread
def lungs(
    datasets: Datasets, output: Output = OUTPUT, source: Sources = None, seed: Seed = SEED
) -> None:
    """Train the lung segmenter on the dataset's masks, as every run does, and show its quality."""
    from pipelines import checks
    from pipelines.local_run import CONTINUES

    stopping.say_when_stopped(f"interrupted; {CONTINUES}")
    given = {**datasets.arguments(), "sources": _specs(source)}
    checks.check(**given, needs_lungs=True)
    home = output.resolve() / "audit"
    with quiet(), live_line():
        with uncollected():
            from pipelines import auditing

        card = auditing.learn_lungs(auditing.Data(**given), home, seed, _kept(output.resolve()))
    dice = f"{card['dice']:.3f} on {card['tested_on']} masks held out, {card['worst']:.3f} at worst"
    console.print()
    print_rows([("Dice", dice), ("report", str(home / auditing.LUNGS / LUNGS_PAGE))])


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP or DICOM files.")],
    url: Annotated[
        str, typer.Option(help="URL of the endpoint. Default: the server that `run` started.")
    ] = "",
    output: Output = OUTPUT,
) -> None:
    """Send images to a model server and print its answers.

    If a file gets no answer, a line says why, and the exit code is 1.
    """
    from serving import client, local

    if not url:
        server = local.running(output.resolve() / "server")
        if not server:
            raise UserError(
                f"predict: no server was started for {output}. Give --url, or start one with "
                "`cxrflow run` or `cxrflow serve`."
            )
        url = server.url
    failed, trust = False, None
    for image in images:
        try:
            answer = client.predict(image, url)
        except client.NoServer:
            raise
        except UserError as error:
            failed = True
            print_error(f"{image}: {error}")
            continue
        told = answer.get("trust")  # servers of other programs give none
        if told and told != trust:
            trust = told
            _say_verdict("the model", trust)
        ordered = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in ordered)
        print_rows([(str(image), "no answer" if answer["abstained"] else shares)])
        if answer["abstained"]:
            console.print(
                f"  [yellow]abstained:[/] unlike the images that the model was trained on "
                f"(out-of-distribution score {answer['ood_score']:.2f}, over 1)"
            )
        if answer["suspect"]:
            console.print(f"  [yellow]doubtful:[/] {escape('; '.join(answer['reasons']))}")
    if failed:
        raise typer.Exit(1)


@app.command()
def serve(
    model_dir: Annotated[
        str,
        typer.Argument(
            help="A version of the model store, or a directory of versions. Also at gs:// or s3://."
        ),
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="gRPC port.")] = 8081,
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0: reachable from other machines.")
    ] = "127.0.0.1",
) -> None:
    """Serve a model, with a page to drop X-rays on, in the foreground until interrupted."""
    from serving import NAME, ports, store

    # In a directory, the server follows `latest`; a version in an object store is fixed.
    directory = store.fetched(model_dir) if is_remote(model_dir) else Path(model_dir)
    # Checked before the server is imported, which takes seconds.
    store.version_in(directory)
    for number, option in ((port, "--port"), (grpc_port, "--grpc-port")):
        ports.bound(host, number, option).close()
    with quiet(), uncollected():
        from serving import server

    def say() -> None:
        open_to_all = not ports.is_loopback(host)
        console.print(
            f"serving {model_dir} at http://{host if open_to_all else 'localhost'}:{port}"
        )
        if open_to_all:
            console.print(
                f"[yellow]open:[/] anyone who can reach {host} can use it: there is no authentication "
                "and no TLS"
            )

    server.serve(directory, NAME, host, port, grpc_port, say)


@app.command()
def pacs(
    dicomweb: Annotated[
        str, typer.Option(help="DICOMweb service, e.g. http://orthanc:8042/dicom-web.")
    ],
    url: Annotated[str, typer.Option(help="URL of the endpoint.")],
    name: Annotated[str, typer.Option(help="Of the model at the endpoint.")] = "cxrflow",
    watermark: Annotated[
        Path, typer.Option(help="File of the day from which studies are searched.", dir_okay=False)
    ] = OUTPUT / "pacs" / "watermark.json",
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="If there is no watermark, the first study date. Default: --days ago.",
        ),
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, help="Days that an image may reach the PACS after its study.")
    ] = 7,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two searches.")] = 10,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the metrics.")] = 9090,
    host: Annotated[
        str, typer.Option(help="Address of the metrics. 0.0.0.0: reachable from other machines.")
    ] = "127.0.0.1",
) -> None:
    """Answer new chest radiographs of a PACS: store a report and a capture beside each.

    Runs until interrupted. CXRFLOW_DICOMWEB_TOKEN, or CXRFLOW_DICOMWEB_USER and CXRFLOW_DICOMWEB_PASSWORD,
    authenticate to the PACS, CXRFLOW_ENDPOINT_TOKEN to the endpoint.
    """
    from serving.pacs import service

    service.run(
        service.Settings(
            dicomweb=dicomweb,
            url=url,
            model=name,
            watermark=watermark,
            since=since.date() if since else None,
            days=days,
            every=every,
            host=host,
            port=port,
        )
    )


@app.command()
def stop(output: Output = OUTPUT) -> None:
    """Stop the model server that `run` started."""
    from serving import local

    server = local.stop(output.resolve() / "server")
    console.print(f"stopped {server.url}" if server else "no server is running")


@app.command()
def sample_data(
    directory: Annotated[Path, typer.Argument(help="The directory to write.", file_okay=False)],
    patients: Annotated[int, typer.Option(min=10, help="Patients of each label.")] = 60,
    seed: Seed = SEED,
) -> None:
    """Draw phantom radiographs in the layouts of both datasets, with their quirks, for a first run."""
    from components.data import phantoms
    from components.data.sources import covid_chestxray, kermany

    with live_line():
        phantoms.write(directory, patients, seed)
    print_rows(
        [
            ("covid", str(directory / covid_chestxray.DIRECTORY)),
            ("kermany", str(directory / kermany.DIRECTORY)),
        ]
    )


# The pipelines are imported after `local_run.run` has started, so that the output of their packages goes to
# its log. Candidates are trained one after the other, because each training uses the whole machine.


def _training() -> Any:
    from pipelines.training_pipeline import training_pipeline

    return training_pipeline()


def _cross_validation() -> Any:
    from pipelines.cross_validation import cross_validation_pipeline

    return cross_validation_pipeline()


def _pretraining() -> Any:
    from pipelines.pretraining import pretraining_pipeline

    return pretraining_pipeline()


def _kept(home: Path) -> Path:
    """Returns where a command without `--archive` keeps trainings, and finds those of `run`."""
    return Path(_checkpoints(str(home / "archive"), home))


def _checkpoints(archive: str, home: Path) -> str:
    """Returns where trainings are kept: beside the archive of their data, where every run finds them."""
    return str(home / "checkpoints" if is_remote(archive) else Path(archive, "checkpoints"))


def _specs(texts: list[str] | None) -> list[str]:
    """Returns sources as every step sees them, after checking that they can be parsed."""
    from components.data.sources import listed

    listed.parse(texts or [])
    return [listed.absolute_spec(text) for text in texts or []]
