"""What the API's answers mean, in the words of Kubernetes 1.34 and of KServe's webhooks."""

import pytest
import tenacity

from core.kubernetes_api import Conflict, KubernetesApi, Refused
from tests.api import refused, served
from tests.serving.cluster.played import connected

SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/cxrflow/inferenceservices/cxrflow"
MODIFIED = (
    'Operation cannot be fulfilled on inferenceservices.serving.kserve.io "cxrflow": the object has been '
    "modified; please apply your changes to the latest version and try again"
)
ONE_FIELD = 'Apply failed with 1 conflict: conflict with "kubectl-edit" using v1: .spec.minReplicas'
TWO_FIELDS = (
    'Apply failed with 2 conflicts: conflicts with "kubectl-edit" using v1:\n- .spec.minReplicas\n'
    "- .spec.maxReplicas"
)
NAME_REFUSED = (
    'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: the '
    "'name' field is not allowed in standard predictor"
)
NO_ROLE = (
    'inferenceservices.serving.kserve.io "cxrflow" is forbidden: User '
    '"system:serviceaccount:kubeflow:cxrflow-pipeline" cannot patch resource "inferenceservices" in API '
    'group "serving.kserve.io" in the namespace "cxrflow"'
)
QUOTA = 'pods "one" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=9'


def owned(*fields: str) -> list[dict[str, str]]:
    return [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using v1',
            "field": one,
        }
        for one in fields
    ]


def answer_of(status: int, message: str, causes: list[dict[str, str]] | None = None) -> object:
    def serve(_: object) -> None:
        raise refused(status, message, causes)

    with served(serve) as url:
        api = KubernetesApi("deploy", "InferenceService", "manifests/base", connected(url))
        return api.call("PATCH", SERVICE, {}, "application/apply-patch+yaml", "cxrflow")


def test_an_outdated_version_is_a_conflict_to_be_read_again() -> None:
    with pytest.raises(Conflict):
        answer_of(409, MODIFIED)


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (ONE_FIELD, [".spec.minReplicas"]),
        (TWO_FIELDS, [".spec.minReplicas", ".spec.maxReplicas"]),
    ],
)
def test_fields_of_another_manager_end_it_however_many(message: str, fields: list[str]) -> None:
    with pytest.raises(Refused, match=r"another field manager owns these fields") as error:
        answer_of(409, message, owned(*fields))
    assert all(field in str(error.value) for field in fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (NAME_REFUSED, "a webhook of the cluster rejects the object: correct it in manifests/base"),
        (NO_ROLE, "the account lacks a permission: see the role in manifests/base/access.yaml"),
        (QUOTA, "the cluster's admission control rejects the object"),
    ],
)
def test_a_403_is_reported_as_what_it_is(message: str, advice: str) -> None:
    with pytest.raises(Refused) as error:
        answer_of(403, message)
    assert message in str(error.value)
    assert str(error.value).endswith(f"({advice})")


def test_a_webhook_that_is_down_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KubernetesApi.call.retry, "wait", tenacity.wait_none())
    seen = []

    def serve(_: object) -> dict[str, str]:
        seen.append(1)
        if len(seen) < 3:
            raise refused(
                500, 'Internal error occurred: failed calling webhook "x": connect: refused'
            )
        return {}

    with served(serve) as url:
        api = KubernetesApi("deploy", "InferenceService", "manifests/base", connected(url))
        assert api.call("GET", SERVICE) == {}
    assert len(seen) == 3
