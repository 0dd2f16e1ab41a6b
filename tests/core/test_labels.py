import pytest

from core.labels import LABELS, label_of


@pytest.mark.parametrize(
    ("finding", "label"),
    [
        ("COVID-19", "covid"),
        ("COVID-19, ARDS", "covid"),
        ("Pneumonia/Viral/COVID-19", "covid"),
        ("pneumonia/viral/covid-19", "covid"),
        ("COVID", "covid"),
        ("COVID19", "covid"),
        ("covid_19 pneumonia", "covid"),
        ("Covid 19", "covid"),
        ("SARS-CoV-2", "covid"),
        ("2019-nCoV", "covid"),
        ("No Finding", "normal"),
        ("SARS", "viral"),
        ("Pneumonia/Viral/SARS", "viral"),
        ("Pneumonia/Viral/MERS-CoV", "viral"),
        ("Pneumonia/Viral/Influenza/H1N1", "viral"),
        ("Varicella", "viral"),
        ("Streptococcus", "bacterial"),
        ("Pneumonia/Bacterial/Klebsiella", "bacterial"),
        ("Mycoplasma Bacterial Pneumonia", "bacterial"),
        ("E.Coli", "bacterial"),
        ("Pneumonia/Bacterial/Staphylococcus/MRSA", "bacterial"),
    ],
)
def test_a_finding_that_names_a_cause_has_its_label(finding: str, label: str) -> None:
    assert label_of(finding) == (label, "")


NEGATIVE = (
    "COVID-19 negative", "COVID-19-negative", "COVID-19 (negative)", "covid19_negative", "COVID: neg.",
    "Non-COVID", "non-covid-19", "no-covid", "not-COVID", "Non COVID",
    "COVID-19 ruled out", "COVID-19 excluded", "negative for COVID-19", "no evidence of SARS-CoV-2",
)  # fmt: skip
UNCERTAIN = (
    "COVID-19 (suspected)", "COVID-19?", "rule out covid", "COVID-19, no ARDS", "unlabelled", "Pneumonia?",
    "no finding?",
)  # fmt: skip


@pytest.mark.parametrize(
    ("finding", "reason"),
    [
        ("todo", "not yet labelled"),
        ("Unknown", "not yet labelled"),
        ("", "not yet labelled"),
        ("suspected COVID-19", "not yet labelled"),
        ("Coronavirus", "not yet labelled"),
        ("not covid-19", "excludes COVID-19"),
        *((finding, "excludes COVID-19") for finding in NEGATIVE),
        *((finding, "not yet labelled") for finding in UNCERTAIN),
        ("Pneumocystis", "outside the four labels"),
        ("Pneumonia/Fungal/Pneumocystis", "outside the four labels"),
        ("Pneumonia/Lipoid", "outside the four labels"),
        ("Tuberculosis", "outside the four labels"),
        ("Influenza, Streptococcus", "both a bacterial and a viral"),
        ("Pneumonia", "does not name a cause"),
        ("ARDS", "does not name a cause"),
    ],
)
def test_any_other_finding_has_none_and_says_why(finding: str, reason: str) -> None:
    label, why = label_of(finding)
    assert label is None
    assert reason in why


def test_the_four_labels_are_coronets() -> None:
    assert LABELS == ("covid", "normal", "bacterial", "viral")
