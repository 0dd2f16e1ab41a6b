"""The cluster that the tests run against, made once and left to `run`, which ends all of it."""

import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import version as release
from pathlib import Path

import pytest
import yaml

from tests.cluster import control_plane, kserve, node
from tests.cluster.control_plane import HOST, ROOT, Cluster

HOME = "CXRFLOW_CLUSTER"
IMAGES = ROOT / "build" / "cluster-images.tar"
NAMESPACE = "cxrflow"
BUCKET = "cxrflow"


@pytest.fixture(scope="session")
def control() -> Cluster:
    """A control plane with KServe's controller and the namespace of Kubeflow Pipelines, without nodes."""
    home = os.environ.get(HOME)
    if not home:
        pytest.fail("these tests take namespaces of their own: make cluster-test")
    cluster = control_plane.start(Path(home))
    kserve.install(cluster)
    for directory in (ROOT / ".tools" / "trainer-schemas",):
        cluster.kubectl("apply", "--server-side", f"--filename={directory}")
    cluster.kubectl("create", "namespace", "kubeflow")
    return cluster


@pytest.fixture(scope="session")
def cluster(control: Cluster) -> Cluster:
    """The same, with a real node."""
    reason = node.why_not()
    if reason:
        pytest.skip(f"no real node, because {reason}")
    node.start(control, IMAGES)
    return control


@pytest.fixture(scope="session")
def models() -> Iterator[str]:
    """The URL of a model store that this process and the pods reach."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="0.0.0.0", port=9000, verbose=False)
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{HOST}:9000",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield f"s3://{BUCKET}/models"
    server.stop()
