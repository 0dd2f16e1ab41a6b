"""The command `cxrflow`. Heavy packages are imported by the command that needs them."""

import os
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.errors import UserError

OUTPUT = Path("cxrflow-output")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From public chest X-ray datasets to a served model. Not a diagnostic device.",
)
# Bound to the real output, because `run` lends sys.stdout to the pipeline.
_console = Console(file=sys.stdout, soft_wrap=True)
_debug = False

Output = Annotated[Path, typer.Option(help="Where everything is written.", file_okay=False)]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]


def main() -> None:
    """Runs the command line; an error is one line, and a traceback only with `--debug`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except Exception as error:
        _fail(f"{type(error).__name__}: {error} (`cxrflow --debug …` shows where)")


def _fail(message: str) -> None:
    if _debug:
        traceback.print_exc()
    Console(stderr=True, soft_wrap=True).print(
        f"[bold red]error:[/] {escape(message)}", highlight=False
    )
    sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        _console.print(f"cxrflow {version('cxrflow')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show all that steps print, and tracebacks.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    global _debug
    _debug = debug


@app.command()
def run(
    covid: Annotated[Path, typer.Option(help="covid-chestxray-dataset: has metadata.csv.")],
    kermany: Annotated[Path, typer.Option(help="Kermany's chest X-rays: has train/NORMAL etc.")],
    recipes: Annotated[str, typer.Option(help="Candidates, with commas. Default: all.")] = "",
    gate: Annotated[
        str, typer.Option(help="Least recall by class; default is for every other class.")
    ] = "covid=0.9,default=0.7",
    output: Output = OUTPUT,
    epochs: Annotated[
        str, typer.Option(help="Other than a recipe's own, e.g. cnn-dubey=5,default=2.")
    ] = "",
    weights: Annotated[
        str,
        typer.Option(
            help="Start of pretrained bases: imagenet (downloads), none, or a file's path."
        ),
    ] = "imagenet",
    precision: Annotated[
        Precision, typer.Option(help="auto: what the hardware is quickest in.")
    ] = "auto",
    seed: Seed = 0,
    views: Annotated[
        str, typer.Option(help="Projections to keep of the covid dataset, with commas.")
    ] = "PA,AP,AP Supine,AP semi erect",
    beam_option: Annotated[
        list[str] | None,
        typer.Option(help="Option of a Beam runner, e.g. --runner=FlinkRunner; may be repeated."),
    ] = None,
    serve: Annotated[bool, typer.Option(help="Start a model server of the winner.")] = True,
) -> None:
    """Run the whole pipeline on this machine: ingest, validate, train, evaluate, gate, deploy."""
    from components import gate as gates
    from pipelines import local
    from serving import NAME
    from serving import local as servers
    from training.recipes import RECIPES, recipe_named, with_epochs

    names = _split(recipes) or list(RECIPES)
    for name in names:
        with_epochs(recipe_named(name), epochs)
    gates.parse(gate)
    home = output.resolve()
    done = local.run(
        {
            "covid_directory": str(covid.resolve()),
            "kermany_directory": str(kermany.resolve()),
            "views": _split(views),
            "recipes": names,
            "gate": gate,
            "epochs": epochs,
            "weights": str(Path(weights).resolve()) if Path(weights).is_file() else weights,
            "precision": precision,
            "seed": seed,
            "beam_options": beam_option or [],
            "checkpoints": str(home / "checkpoints"),
            "store": str(home / "store"),
            "server": str(home / "server") if serve else "",
        },
        home,
        _console,
        verbose=_debug,
    )
    rows = [("report", str(done.pages[0]))]
    rows += [("", str(page)) for page in done.pages[1:]]
    rows += [("artifacts", str(done.directory)), ("log", str(done.log))]
    latest = home / "store" / NAME / "latest"
    if latest.exists():
        rows.append(("model", str(latest.resolve())))
    server = servers.running(home / "server")
    if server:
        rows.append(("server", f"{server.url}/v1/models/{NAME}"))
    _console.print()
    _print_rows(rows)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG or WebP files.")],
    url: Annotated[
        str, typer.Option(help="Of the endpoint. Default: the server that `run` started.")
    ] = "",
    output: Output = OUTPUT,
) -> None:
    """Send images to a model server and print its answer."""
    from serving import client, local

    if not url:
        server = local.running(output.resolve() / "server")
        if not server:
            raise UserError(
                f"predict: no server was started for {output}. Give --url, or start one with "
                "`cxrflow run` or `cxrflow serve`."
            )
        url = server.url
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("image", "label", "probabilities"):
        table.add_column(heading, overflow="fold")
    for image, answer in zip(images, client.predict(images, url), strict=True):
        ordered = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in ordered)
        table.add_row(escape(str(image)), answer["label"], shares)
    _console.print(table)


@app.command()
def serve(
    model_dir: Annotated[Path, typer.Argument(help="A version of the model store, or its parent.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
) -> None:
    """Serve a model in the foreground (KServe, V1 protocol), until interrupted."""
    from serving import NAME, server

    _console.print(f"serving {model_dir} at http://localhost:{port}/v1/models/{NAME}")
    server.main(model_dir, NAME, port)


@app.command()
def stop(output: Output = OUTPUT) -> None:
    """Stop the model server that `run` started."""
    from serving import local

    server = local.stop(output.resolve() / "server")
    _console.print(f"stopped {server.url}" if server else "no server runs")


@app.command("compile")
def compile_pipeline(
    file: Annotated[Path, typer.Argument(help="The YAML to write.", dir_okay=False)] = Path(
        "cxrflow-training.yaml"
    ),
) -> None:
    """Write the pipeline as YAML for a Kubeflow Pipelines cluster."""
    from kfp import compiler

    from components.files import write_aside
    from pipelines.training_pipeline import training_pipeline

    with write_aside(file) as aside:
        # The compiler wants to see the ending.
        written = aside.with_suffix(".yaml")
        compiler.Compiler().compile(training_pipeline(), str(written))
        written.rename(aside)
    _console.print(f"wrote {file}")


@app.command()
def sample_data(
    directory: Annotated[Path, typer.Argument(help="To be made.", file_okay=False)],
    patients: Annotated[int, typer.Option(min=10, help="Of each label.")] = 60,
    seed: Seed = 0,
) -> None:
    """Draw phantom radiographs in both datasets' layouts, with their quirks, for a first run."""
    from components import phantoms

    phantoms.write(directory, patients, seed)
    _print_rows(
        [
            ("covid", str(directory / phantoms.COVID_DIRECTORY)),
            ("kermany", str(directory / phantoms.KERMANY_DIRECTORY)),
        ]
    )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _console.print(f"[bold]{name:<{width}}[/]  {escape(value)}", highlight=False)
