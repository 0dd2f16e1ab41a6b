"""The cluster that the tests run against, made once and left to `run`, which ends all of it."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import control_plane, kserve_controller, node
from tests.cluster.control_plane import HOST, ROOT, Cluster

IMAGES = ROOT / "build" / "cluster-images.tar"
# As the overlay `kind` has them.
BUCKET, MODELS = "mlpipeline", "s3://mlpipeline/cxrflow/models"


@pytest.fixture(scope="session")
def control() -> Cluster:
    """A control plane with KServe's controller and the namespace of Kubeflow Pipelines, without nodes."""
    home = os.environ.get("CXRFLOW_CLUSTER")
    if not home:
        pytest.fail("these tests take namespaces of their own: make cluster-test")
    cluster = control_plane.start(Path(home))
    kserve_controller.install(cluster)
    schemas = ROOT / ".tools" / "trainer-schemas"
    cluster.kubectl("apply", "--server-side", f"--filename={schemas}")
    cluster.kubectl("create", "namespace", "kubeflow")
    return cluster


@pytest.fixture(scope="session")
def cluster(control: Cluster) -> Cluster:
    """The same, with a real node."""
    reason = node.why_not()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"there is no node, because {reason}"
        )
    node.start(control, IMAGES)
    return control


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    """The URL of a model store that this process and the pods reach."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="0.0.0.0", port=9000, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it logs each request
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:9000")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield MODELS
    server.stop()


@pytest.fixture(scope="session")
def versions(
    tmp_path_factory: pytest.TempPathFactory, model: Path, evaluation: Path, audit: Path
) -> list[Path]:
    """Three versions in a store of this machine: one model, which three gates decided for."""
    from components.release.deploy import deploy
    from components.trust import gate

    home = tmp_path_factory.mktemp("versions")
    found = []
    for name, thresholds in {"1": {}, "2": {"covid": 0.0}, "3": {"normal": 0.0}}.items():
        decision = home / f"decision-{name}"
        gate.gate([evaluation], {"default": 0.0, **thresholds}, decision, audits=[audit])
        found.append(
            Path(deploy(model, evaluation, audit, decision, str(home / "store"), "cxrflow"))
        )
    return found
