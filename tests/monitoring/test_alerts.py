"""The alerts, by Prometheus' own unit tests."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULE = yaml.safe_load((ROOT / "manifests/components/monitoring/prometheus-rule.yaml").read_text())
ALERTS = {
    rule["alert"]: rule
    for group in RULE["spec"]["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
CASES = sorted(Path(__file__).parent.glob("*.yaml"))


@pytest.mark.parametrize("cases", CASES, ids=[file.stem for file in CASES])
def test_alerts_fire_when_they_should_and_else_are_silent(
    cases: Path, prometheus_program: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULE["spec"]))
    shutil.copy(cases, tmp_path)
    command = [prometheus_program("promtool"), "test", "rules", cases.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    seen: dict[str, set[bool]] = {name: set() for name in ALERTS}
    for cases in CASES:
        for case in yaml.safe_load(cases.read_text())["tests"]:
            for one in case["alert_rule_test"]:
                seen[one["alertname"]].add(bool(one.get("exp_alerts")))
    assert seen == {name: {True, False} for name in ALERTS}


def test_each_alert_has_its_section_in_the_runbook() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    sections = dict(
        re.findall(r"^## (Cxrflow\w+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    )
    assert list(sections) == list(ALERTS)
    for name, text in sections.items():
        assert ALERTS[name]["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert all(f"**{part}.**" in text for part in ("Meaning", "Look at", "Do")), name
