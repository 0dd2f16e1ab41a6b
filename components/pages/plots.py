"""Draws the SVG plots of the pages; text stays selectable and has the page's own colour, as do axes."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

# Distinguishable for colour-blind people, on white and on black (Okabe and Ito).
COLOURS = ("#3a86d6", "#e07b39", "#2a9d7f", "#b565a7", "#c9a227")

# A colour that nothing else has. It is replaced by `currentColor`, so that a plot suits light and dark pages.
_INK = "#010203"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cxrflow",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def history(tables: "Sequence[pd.DataFrame]") -> Markup:
    """Returns loss and accuracy by epoch; of several trainings, a thick line shows the mean, thin ones each.

    Args:
      tables: see `training.loop.Trained.history`.
    """
    import pandas as pd  # slow to import, and most pages do not need it

    mean = pd.concat(tables).groupby("epoch", as_index=False).mean(numeric_only=True)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 3), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            marker = "o" if len(mean) < 15 and len(tables) == 1 else None
            for column, colour in ((name, COLOURS[0]), (f"val_{name}", COLOURS[1])):
                for table in tables if len(tables) > 1 else ():
                    axes.plot(table["epoch"], table[column], color=colour, lw=0.6, alpha=0.35)
                axes.plot(
                    mean["epoch"],
                    mean[column],
                    color=colour,
                    marker=marker,
                    ms=3.5,
                    label="validation" if column.startswith("val_") else "training",
                )
            axes.set(
                title=name.capitalize(),
                xlabel="epoch",
                ylim=(0, 1.02 if name == "accuracy" else None),
            )
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        return _svg(figure)


def roc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Markup:
    """Returns the ROC curves of each class against the rest.

    Args:
      curves: for each class, its false-positive and true-positive rates in 0..1.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_INK, alpha=0.3, lw=0.8, ls="--")
        for (name, (false_alarms, hits)), colour in zip(curves.items(), COLOURS, strict=False):
            axes.plot(false_alarms, hits, color=colour, label=name, lw=1.6)
        axes.set(
            title="ROC, one class against the rest",
            xlabel="1 − specificity",
            ylabel="recall",
            aspect="equal",
        )
        axes.legend(loc="lower right")
        return _svg(figure)


def bars(counts: Mapping[str, Mapping[str, int]]) -> Markup:
    """Returns horizontal bars of counts, stacked by split.

    Args:
      counts: number of images by value, then by split, drawn in this order.
    """
    splits = list(dict.fromkeys(split for by_split in counts.values() for split in by_split))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5, 0.75 + 0.28 * len(counts)), layout="constrained")
        axes = figure.subplots()
        left = np.zeros(len(counts))
        for split, colour in zip(splits, COLOURS, strict=False):
            widths = np.array([by_split.get(split, 0) for by_split in counts.values()])
            axes.barh(range(len(counts)), widths, left=left, color=colour, height=0.68)
            left += widths
        for y, total in enumerate(left):
            axes.annotate(
                f"{total:,.0f}", (total, y), (4, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(counts)), [_shortened(value) for value in counts])
        axes.set(ylim=(len(counts) - 0.4, -0.6), xlim=(0, 1.12 * left.max()))
        axes.tick_params(left=False)
        axes.xaxis.set_visible(False)
        axes.spines[["bottom", "left"]].set_visible(False)
        return _svg(figure)


def histogram(
    buckets: Mapping[str, Sequence[tuple[float, float, float]]], unit: str, height: str = "images"
) -> Markup:
    """Returns a histogram with an outline for each split.

    Args:
      buckets: by split, the (low, high, images) of TFDV's standard histogram.
      unit: of the horizontal axis.
      height: label of the vertical axis.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5, 2.3), layout="constrained")
        axes = figure.subplots()
        for (split, values), colour in zip(buckets.items(), COLOURS, strict=False):
            edges = [low for low, _, _ in values] + [values[-1][1]]
            images = [count for _, _, count in values]
            axes.stairs(images, edges, color=colour, label=split, fill=True, alpha=0.25)
            axes.stairs(images, edges, color=colour, lw=1.2)
        axes.set(xlabel=unit, ylabel=height, ylim=(0, None))
        if height != "images":
            axes.set_yticks([])
        return _svg(figure)


def shares(counts: Mapping[str, Mapping[str, float]]) -> Markup:
    """Returns pairs of horizontal bars: the share of images with a value, on both sides of a comparison.

    Args:
      counts: number of images by value, then by side, drawn in this order.
    """
    sides = list(dict.fromkeys(side for by_side in counts.values() for side in by_side))
    totals = {side: sum(by_side.get(side, 0) for by_side in counts.values()) for side in sides}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5, 0.75 + 0.36 * len(counts)), layout="constrained")
        axes = figure.subplots()
        for number, (side, colour) in enumerate(zip(sides, COLOURS, strict=False)):
            for y, by_side in enumerate(counts.values()):
                share = by_side.get(side, 0) / (totals[side] or 1)
                at = y + (number - 0.5) * 0.38
                axes.barh(at, share, color=colour, height=0.34)
                axes.annotate(
                    f"{share:.0%}", (share, at), (4, 0), textcoords="offset points", va="center",
                    fontsize=8,
                )  # fmt: skip
        axes.set_yticks(range(len(counts)), [_shortened(value) for value in counts])
        axes.set(ylim=(len(counts) - 0.4, -0.6), xlim=(0, 1.1))
        axes.tick_params(left=False)
        axes.xaxis.set_visible(False)
        axes.spines[["bottom", "left"]].set_visible(False)
        return _svg(figure)


def densities(buckets: Mapping[str, Sequence[tuple[float, float, float]]], unit: str) -> Markup:
    """Returns histograms with an area of one each, to compare sides of different sizes.

    Args:
      buckets: by side, the (low, high, images) of TFDV's standard histogram.
      unit: of the horizontal axis.
    """
    scaled = {}
    for side, values in buckets.items():
        total = sum(count for _, _, count in values) or 1
        scaled[side] = [
            (low, high, count / total / ((high - low) or 1)) for low, high, count in values
        ]
    return histogram(scaled, unit, "share of the images")


def recalls(candidates: Sequence[Mapping[str, Any]]) -> Markup:
    """Returns each candidate's recall by class, with its interval and the gate's threshold.

    Args:
      candidates: the gate's rows; see `components.trust.gate.decide`.
    """
    rows = [
        (f"{row['recipe']} · {check['class']}", check)
        for row in candidates
        for check in row["checks"]
        if check["recall"]["value"] is not None
    ]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 0.9 + 0.32 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for y, (_, check) in enumerate(rows):
            recall = check["recall"]
            colour = COLOURS[2] if check["passed"] else COLOURS[1]
            axes.plot([recall["low"], recall["high"]], [y, y], color=colour, lw=2, alpha=0.55)
            axes.plot(recall["value"], y, "o", color=colour, ms=6)
            axes.plot(check["threshold"], y, "|", color=_INK, ms=13, mew=1.6)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set(
            xlabel="recall (dot, with 95 % interval) and threshold (bar)",
            xlim=(-0.01, 1.01),
            ylim=(len(rows) - 0.5, -0.5),
        )
        axes.grid(axis="x", color=_INK, alpha=0.1)
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        return _svg(figure)


_LABEL = 0.08  # the width of a figure beside its bar


def levels(figures: Mapping[str, float], chance: float) -> Markup:
    """Returns figures in 0..1 as horizontal bars, with a line for chance.

    Args:
      figures: by name; the first one is the reference and has its own colour.
      chance: the figure that guessing gives.
    """
    names = list(figures)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.36 * len(names)), layout="constrained")
        axes = figure.subplots()
        colours = [COLOURS[0], *[COLOURS[1]] * (len(names) - 1)]
        axes.barh(names, list(figures.values()), color=colours, height=0.62)
        axes.axvline(chance, color=_INK, lw=1, ls=(0, (4, 3)))
        axes.text(chance, -0.62, " chance", ha="left", va="center", fontsize=9)
        for y, value in enumerate(figures.values()):
            beside = chance if value <= chance < value + _LABEL else value  # not on the line
            axes.text(beside + 0.012, y, f"{100 * value:.0f} %", va="center")
        axes.set(xlim=(0, 1.1), ylim=(len(names) - 0.5, -0.9), xlabel="mean recall of the classes")
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        return _svg(figure)


def risk_coverage(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Markup:
    """Returns the error rate by the share of images answered, the most certain ones first.

    Args:
      curves: by the name of the score that ranks the images; see `training.ood.risk_coverage`.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            axes.plot(curve["coverage"], curve["risk"], color=colour, lw=1.4, label=name)
        axes.set(
            xlabel="share of images answered", ylabel="share of wrong answers",
            xlim=(0, 1.0), ylim=(0, None),
        )  # fmt: skip
        axes.grid(color=_INK, alpha=0.1)
        figure.legend(frameon=False, loc="outside upper left", ncols=2)
        return _svg(figure)


def reliability(bins: Sequence[Mapping[str, float]]) -> Markup:
    """Returns the accuracy by confidence; larger dots stand for more images.

    Args:
      bins: see `training.calibration.reliability`.
    """
    most = max(row["images"] for row in bins)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_INK, lw=0.8, ls=(0, (4, 3)))
        axes.plot(
            [row["confidence"] for row in bins],
            [row["accuracy"] for row in bins],
            color=COLOURS[0],
            lw=1,
        )
        axes.scatter(
            [row["confidence"] for row in bins],
            [row["accuracy"] for row in bins],
            s=[18 + 140 * row["images"] / most for row in bins],
            color=COLOURS[0],
            zorder=3,
        )
        axes.set(
            xlabel="confidence", ylabel="share of correct answers", xlim=(0, 1.03), ylim=(0, 1.03)
        )
        axes.grid(color=_INK, alpha=0.1)
        return _svg(figure)


def _shortened(text: str) -> str:
    return text if len(text) <= 34 else text[:33] + "…"


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    return Markup(drawing[drawing.index("<svg") :].replace(_INK, "currentColor"))
