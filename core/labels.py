"""Decides labels: maps a finding in a source's wording to one of four labels, or to none.

The labels are those of CoroNet (Khan et al., 2020, doi:10.1016/j.cmpb.2020.105581): covid, normal,
bacterial and viral pneumonia. A recipe may merge or leave out labels; none adds one.
"""

import re

COVID, NORMAL, BACTERIAL, VIRAL = "covid", "normal", "bacterial", "viral"
LABELS = (COVID, NORMAL, BACTERIAL, VIRAL)

_BACTERIA = frozenset(
    """
    bacterial chlamydophila e.coli klebsiella legionella mrsa mycoplasma nocardia staphylococcus
    streptococcus
    """.split()
)
_VIRUSES = frozenset("viral h1n1 herpes influenza mers mers-cov sars varicella".split())
# A finding with one of these words has a cause outside the four labels.
_OTHER_CAUSES = frozenset(
    "aspergillosis aspiration fungal lipoid pneumocystis tuberculosis".split()
)


# As people write COVID-19.
_COVID = re.compile(
    r"(?<![0-9a-z])(covid([\s_-]*(20)?19)?|sars[\s_-]*cov[\s_-]*2|2019[\s_-]*ncov)(?![0-9a-z])"
)
_NOT = frozenset("no non not negative without".split())
_UNCERTAIN = frozenset("coronavirus possible probable suspected suspicion todo unknown".split())

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
    text = _COVID.sub(" covid-19 ", finding.strip().lower())
    words = {word for word in re.split(r"[/,;_\s]+", text) if word}
    if "covid-19" in words:
        if words & _UNCERTAIN:
            return None, NOT_LABELLED
        if words & _NOT:
            return None, f"finding {finding!r} excludes COVID-19 and names no cause"
        return COVID, ""
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
