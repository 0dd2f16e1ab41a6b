"""A model's card, published beside it: what it is, what it is for, and what is known of its faults.

The sections are those of Mitchell et al., "Model Cards for Model Reporting", arXiv:1810.03993.
"""

from collections.abc import Mapping
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from components import pages
from core.artifacts import MODEL_CARD, MODEL_CARD_PAGE
from serving import verdict


def written(
    card: Mapping[str, Any],
    metrics: Mapping[str, Any],
    audit: Mapping[str, Any],
    decision: Mapping[str, Any],
) -> dict[str, str]:
    """Returns the card as Markdown and as a page, by file name.

    Args:
      card: `model.json` of the model.
      metrics: of `evaluate`.
      audit: of `audit`.
      decision: of `gate`, which it won.
    """
    (winner,) = (row for row in decision["candidates"] if row["recipe"] == decision["winner"])
    text = pages.render(
        MODEL_CARD,
        card=card,
        metrics=metrics,
        audit=audit,
        rules=winner["rules"],
        trust=verdict.of_winner(decision),
    )
    page = pages.render(
        MODEL_CARD_PAGE,
        version=card["versions"]["cxrflow"],
        fingerprint=card["fingerprint"],
        phantoms=card["phantoms"],
        quick=card["recipe"]["quick"],
        name=card["recipe"]["name"],
        card=Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(text)),
    )
    return {MODEL_CARD: text, MODEL_CARD_PAGE: page}
