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
    """The same, with a node: a real one where this host allows it, else one that kwok simulates."""
    if node.why_not():
        node.simulate(control)
    else:
        node.start(control, IMAGES)
    return control


@pytest.fixture(scope="session")
def containers() -> None:
    """Skips a test that needs real containers where there are none."""
    reason = node.why_not()
    if reason:
        pytest.skip(f"needs real containers, but kwok simulates the node, because {reason}")


def pytest_report_header() -> str:
    """Says which node the cluster has."""
    reason = node.why_not()
    return f"node: simulated by kwok, because {reason}" if reason else "node: real"


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
def failing(tmp_path_factory: pytest.TempPathFactory, versions: list[Path]) -> Path:
    """A version, not published yet, that answers its known images rightly and raises for white images."""
    import tensorflow as tf

    from core.artifacts import VERSION
    from serving import store

    home = tmp_path_factory.mktemp("failing")
    loaded = tf.saved_model.load(str(versions[0]))
    right = loaded.signatures["classify"]

    @tf.function(input_signature=[right.structured_input_signature[1]["pixels"]])
    def classify(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        lightness = tf.reduce_mean(pixels, axis=(1, 2, 3))
        with tf.control_dependencies([tf.debugging.assert_less(lightness, 250.0)]):
            return right(pixels=tf.identity(pixels))

    signatures = {**loaded.signatures, "classify": classify}
    tf.saved_model.save(loaded, str(home / "model"), signatures=signatures)
    replaced = {file.name for file in (home / "model").iterdir()} | {VERSION}
    kept = {file.name: file for file in versions[0].iterdir() if file.name not in replaced}
    return store.assemble({**kept, ".": home / "model"}, home / "version", "cxrflow")


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
