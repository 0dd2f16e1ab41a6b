"""The API of Kubeflow Pipelines, played."""

import copy
from dataclasses import dataclass, field
from typing import Any

import kmock

from tests.api import dropped, hanging, refused

MADE = "2026-03-01T10:00:00Z"


@dataclass
class Api:
    """Its state, and the answers to the next requests that make something instead of right ones.

    Attributes:
      faults: a status, "drop", "hang", or "lost": what was asked for is made, and the answer is lost.
    """

    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    schedules: list[dict[str, Any]] = field(default_factory=list)
    faults: list[int | str] = field(default_factory=list)
    token: str = ""
    made: int = 0

    def serve(self, request: kmock.Request) -> Any:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            raise refused(401, "no token")
        path = request.url.path.removeprefix("/apis/v2beta1/")
        making = request.method.value in ("POST", "DELETE")
        fault = self.faults.pop(0) if making and self.faults else None
        if fault == "drop":
            return dropped(request)
        if fault == "hang":
            return hanging(request)
        if isinstance(fault, int):
            raise refused(fault, f"fault {fault}")
        answer = self._answer(request.method.value, path, request.data)
        return dropped(request) if fault == "lost" else answer

    def _answer(self, method: str, path: str, body: Any) -> dict[str, Any]:
        if path == "healthz":
            return {"multi_user": False}
        kind, _, id = path.partition("/")
        things, name = {
            "experiments": (self.experiments, "experiment_id"),
            "runs": (self.runs, "run_id"),
            "recurringruns": (self.schedules, "recurring_run_id"),
        }[kind]
        if method == "DELETE":
            things[:] = [one for one in things if one[name] != id]
            return {}
        if method == "POST":
            self.made += 1
            made = {**body, name: f"{kind}-{self.made}", "created_at": MADE}
            made.setdefault("state", "PENDING")
            made["status"] = "ENABLED"
            things.append(made)
            return copy.deepcopy(made)
        plural = {"recurringruns": "recurringRuns"}.get(kind, kind)
        return {plural: list(reversed(things))}
