"""The commands about data: reviewing the schema, tracing a version, downloading the datasets."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import UserError
from core.locations import absolute, location
from pipelines.console import console, live_line, print_rows
from pipelines.options import OUTPUT

app = typer.Typer()
schema_app = typer.Typer(no_args_is_help=True, help="Review what is not in the kept schema.")
data_app = typer.Typer(no_args_is_help=True, help="Download public datasets.")
app.add_typer(schema_app, name="schema")
app.add_typer(data_app, name="data")

Archive = Annotated[
    str, typer.Option(help="Archive of the data's states: a directory, gs:// or s3://.")
]
SchemaFile = Annotated[
    Path, typer.Option(help="Your own schema, to keep under version control.", dir_okay=False)
]


@schema_app.command()
def diff(
    archive: Archive = str(OUTPUT / "archive"), schema: SchemaFile = Path("schema.pbtxt")
) -> None:
    """Show values and columns of the last span that are not in the schema."""
    from components.data import span_tables, spans
    from components.data.validation.kept_schema import listed_features, unknown

    place = location(absolute(archive))
    last = spans.newest(place)
    if not last:
        raise UserError(f"{archive} has no span yet; `cxrflow run` adds one")
    text = _schema_text(schema)
    table = span_tables.table(place, last, "examples")
    unknown_values = {
        feature: unknown(text, feature, table[feature].dropna())
        for feature in listed_features(text)
        if feature in table
    }
    unknown_values["columns"] = unknown(text, "columns", last.summary["columns"])
    news = [(feature, value) for feature, values in unknown_values.items() for value in values]
    for feature, value in news:
        count = "" if feature == "columns" else f"{int((table[feature] == value).sum())} images"
        print_rows([(f"+ {feature}", f'"{value}"  {count}'.rstrip())])
    if not news:
        console.print(f"the schema has all values and columns of span {last.number}")
    else:
        console.print("`cxrflow schema accept FEATURE VALUE …` accepts them", style="dim")


@schema_app.command()
def accept(
    feature: Annotated[
        str, typer.Argument(help="E.g. view; or columns, for the metadata's columns.")
    ],
    values: Annotated[list[str], typer.Argument(help="Values to accept.")],
    schema: SchemaFile = Path("schema.pbtxt"),
) -> None:
    """Accept more values of a feature; give the file to `cxrflow run --schema`."""
    from components.data.validation.kept_schema import accepting
    from core.files import write_text

    write_text(schema, accepting(_schema_text(schema), feature, values))
    console.print(f"{schema}: {feature} may be {', '.join(values)}")


@data_app.command()
def fetch(
    directory: Annotated[
        Path, typer.Argument(help="Where they are written.", file_okay=False)
    ] = Path("data"),
    covid_commit: Annotated[
        str, typer.Option(help="Commit of the covid-chestxray-dataset. Default: its last.")
    ] = "",
    further: Annotated[
        bool,
        typer.Option(
            "--further", help="Download four further collections, too, for --source or --external."
        ),
    ] = False,
) -> None:
    """Download both datasets from their publishers, and check them. Run it again after an interruption.

    Kermany's images are under CC BY 4.0. Of the covid-chestxray-dataset each image has a licence of its
    own, which its metadata names; some allow no commercial use. The licences of further collections are
    printed.
    """
    from components.data.sources import fetch as fetching
    from components.data.sources.further import COLLECTIONS, fetch_further

    rows = []
    with live_line():
        covid = fetching.fetch_covid(directory, covid_commit or fetching.COVID_COMMIT)
        rows.append(("covid", str(covid)))
        rows.append(("kermany", str(fetching.fetch_kermany(directory))))
        for collection in COLLECTIONS if further else ():
            name = collection.repository.name
            rows.append((name, f"{name}={fetch_further(collection, directory)}"))
            rows.append(("", collection.licence))
    print_rows(rows)


def _schema_text(schema: Path) -> str:
    """Returns the site's own schema, or that of the package if there is none yet."""
    from components.data.validation import SCHEMA

    return (schema if schema.exists() else SCHEMA).read_text(encoding="utf-8")


@app.command()
def lineage(
    version: Annotated[
        str, typer.Argument(help="A version's number, directory or URL. Default: the last version.")
    ] = "",
    image: Annotated[
        str, typer.Option(help="List the versions made with an image: its path or SHA-256.")
    ] = "",
    store: Annotated[str, typer.Option(help="Model store.")] = str(OUTPUT / "store"),
) -> None:
    """Show where a version comes from, or which versions an image was used for."""
    from serving import NAME
    from serving import lineage as lineages

    place = absolute(store)
    if image:
        rows = lineages.made_with(place, NAME, image)
        if not rows:
            console.print(f"no version was made with {image}")
        for row in rows:
            print_rows([(f"version {row['version']}", f"{row['id']} ({row['part']})")])
        return
    if not version:
        known = lineages.versions(place, NAME)
        if not known:
            raise UserError(f"{store} has no version yet; `cxrflow run` publishes one")
        version = known[-1]
    elif version.isdigit():
        version = lineages.version_named(place, NAME, version)
    origin = lineages.lineage(version)
    data = origin["data"]
    recalls = [
        f"{check['class']} {100 * check['recall']['value']:.1f} % (at least "
        f"{100 * check['threshold']:g} %)"
        for check in origin["checks"]
    ]
    print_rows(
        [
            ("version", origin["version"]),
            ("run", origin["run"] or "by hand"),
            ("code", f"cxrflow {origin['code']}, TensorFlow {origin['packages']['tensorflow']}"),
            ("recipe", f"{origin['recipe']}, seed {origin['seed']}, {origin['precision']}"),
            ("started", origin["starting_point"]),
            ("parent", f"version {origin['parent']}" if origin["parent"] else "none"),
            ("data", f"{data['images']} images, fingerprint {data['fingerprint']}"),
            ("span", f"{data['span']} of {data['archive']}" if data["span"] else "none"),
            ("decided", origin["decided"]),
            ("because", origin["reason"]),
            ("recall", ", ".join(recalls)),
            ("test split", _decided_before(origin["decided_before"])),
        ]
    )


def _decided_before(count: int | None) -> str:
    if count is None:
        return "not counted: there was no archive, or an earlier release decided"
    times = {0: "nothing", 1: "once"}.get(count, f"{count} times")
    return f"has decided {times} before this version was chosen"
