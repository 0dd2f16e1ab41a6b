"""Decides labels: maps a finding in a source's wording to one of four labels, or to none.

The labels are those of CoroNet (Khan et al., 2020, doi:10.1016/j.cmpb.2020.105581): covid, normal,
bacterial and viral pneumonia. A recipe may merge or leave out labels; none adds one.
"""

import itertools
import re
from collections.abc import Sequence

COVID, NORMAL, BACTERIAL, VIRAL = "covid", "normal", "bacterial", "viral"
LABELS = (COVID, NORMAL, BACTERIAL, VIRAL)

_BACTERIA = frozenset(
    """
    bacterial chlamydophila e.coli klebsiella legionella mrsa mycoplasma nocardia staphylococcus
    streptococcus
    """.split()
)
_VIRUSES = frozenset("viral h1n1 herpes influenza mers sars varicella".split())
# A finding with one of these words has a cause outside the four labels.
_OTHER_CAUSES = frozenset(
    "aspergillosis aspiration fungal lipoid pneumocystis tuberculosis".split()
)


# As people write COVID-19.
_COVID = re.compile(
    r"(?<![0-9a-z])(covid([\s_-]*(20)?19)?|sars[\s_-]*cov[\s_-]*2|2019[\s_-]*ncov)(?![0-9a-z])"
)
# Words before it and after it that exclude it, and words that may come between.
_NOT_BEFORE = frozenset("neg negative no non not without".split())
_NOT_AFTER = frozenset("excluded neg negative ruled".split())
_BETWEEN = frozenset("any evidence for of signs".split())
_UNCERTAIN = frozenset(
    """
    ? coronavirus pending possible presumed probable query rule suspected suspicion todo undefined unknown
    unlabeled unlabelled
    """.split()
)
_WORD = re.compile(r"[^\W_]+(?:\.[^\W_]+)*|\?")

# Why a finding has no label that may be anything, covid too.
NOT_LABELLED = "finding not yet labelled by the source"


def label_of(finding: str) -> tuple[str | None, str]:
    """Returns the label of a finding, or the reason why it has none.

    Args:
      finding: in either notation of the covid-chestxray-dataset: a list (`COVID-19, ARDS`) or a path
        (`Pneumonia/Viral/COVID-19`); letter case does not matter.

    Returns:
      `(label, "")` with one of `LABELS`, or `(None, reason)`.
    """
    in_order = _WORD.findall(_COVID.sub(f" {COVID} ", finding.lower()))
    words = set(in_order)
    if COVID in words:
        if not words & (_NOT_BEFORE | _NOT_AFTER | _UNCERTAIN):
            return COVID, ""
        if words & _UNCERTAIN or not _excludes_covid(in_order):
            return None, NOT_LABELLED
        return None, f"finding {finding!r} excludes COVID-19 and names no cause"
    if words & _OTHER_CAUSES:
        return None, f"finding {finding!r} has a cause outside the four labels"
    bacterial, viral = bool(words & _BACTERIA), bool(words & _VIRUSES)
    if bacterial and viral:
        return None, f"finding {finding!r} names both a bacterial and a viral cause"
    if bacterial:
        return BACTERIAL, ""
    if viral:
        return VIRAL, ""
    if words == {"no", "finding"}:
        return NORMAL, ""
    if not words or words & _UNCERTAIN:
        return None, NOT_LABELLED
    return None, f"finding {finding!r} does not name a cause"


def _excludes_covid(words: Sequence[str]) -> bool:
    telling = [word for word in words if word not in _BETWEEN]
    return any(
        (second == COVID and first in _NOT_BEFORE) or (first == COVID and second in _NOT_AFTER)
        for first, second in itertools.pairwise(telling)
    )
