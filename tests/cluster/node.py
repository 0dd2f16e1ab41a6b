"""A node: a real kubelet with containerd and runc, or one that kwok simulates."""

import json
import os
import subprocess
from importlib.metadata import version as release
from pathlib import Path

import yaml

from tests.cluster import processes
from tests.cluster.control_plane import BRIDGE, HOST, NETWORK, PROGRAMS, Cluster

NAME = "node"
PAUSE = "localhost/pause:test"
# The names that buildah gave, and those that the manifests have, in full.
_SERVING = f"cxrflow-serving:{release('cxrflow')}"
_NAMES = {
    f"localhost/{_SERVING}": f"docker.io/library/{_SERVING}",
    "localhost/storage-initializer:v0.20.0": "docker.io/kserve/storage-initializer:v0.20.0",
}
# Of the control groups, so that `run` can remove them.
_CGROUP = "cxrflow.test"

_SOCKET = Path("/run/containerd/containerd.sock")
_CTR = ("ctr", f"--address={_SOCKET}", "--namespace=k8s.io")


def why_not() -> str:
    """Returns why this host cannot have a real node, or nothing."""
    if os.environ.get("CXRFLOW_NODE") == "kwok":
        return "CXRFLOW_NODE=kwok says so"
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return "a real one needs root"
    hierarchies = _hierarchies()
    if not hierarchies or not os.access(hierarchies[0], os.W_OK):
        return "the control groups cannot be changed"
    return ""


def start(cluster: Cluster, images: Path) -> None:
    """Starts a real node and waits until it is ready.

    Args:
      cluster: that it is of.
      images: an archive of what its pods need, which is removed.
    """
    # What is kept at fixed places goes with the mount namespace.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    _containerd(cluster)
    subprocess.run([*_CTR, "images", "import", str(images)], check=True)
    images.unlink()
    for here, there in _NAMES.items():
        subprocess.run([*_CTR, "images", "tag", here, there], check=True)
    _kubelet(cluster).until(lambda: _is_ready(cluster), "the node is ready")


def simulate(cluster: Cluster) -> None:
    """Starts a node without containers: kwok reports its pods as ready at once. Waits until it is ready."""
    kwok = processes.start(
        [
            PROGRAMS / "kwok",
            f"--kubeconfig={cluster.kubeconfig('admin')}",
            "--manage-all-nodes",
            "--node-lease-duration-seconds=40",
        ],
        cluster.logs,
        {"HOME": str(cluster.home)},  # else it reads the user's configuration
    )
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME}}
    cluster.kubectl("create", "--filename=-", body=node)
    kwok.until(lambda: _is_ready(cluster), "the node is ready")


def kill(container: str) -> None:
    """Kills the process of a container, by the identity that its pod's status has."""
    subprocess.run(
        [*_CTR, "tasks", "kill", "--signal=SIGKILL", container.removeprefix("containerd://")],
        check=True,
    )


def _containerd(cluster: Cluster) -> None:
    home = cluster.home / "containerd"
    (home / "cni").mkdir(parents=True)
    network = {
        "cniVersion": "0.4.0",
        "name": "cluster",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(home / "addresses"),
                    "ranges": [[{"subnet": NETWORK, "gateway": HOST}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    (home / "cni" / "cluster.conflist").write_text(json.dumps(network))
    configuration = home / "config.toml"
    configuration.write_text(
        f"""
version = 2
root = "{home}/root"
state = "{_SOCKET.parent}"
[grpc]
  address = "{_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{home}/cni"
"""
    )
    containerd = processes.start(["containerd", "--config", configuration], cluster.logs)
    containerd.until(_SOCKET.exists, "containerd listens")


def _kubelet(cluster: Cluster) -> processes.Process:
    for hierarchy in _hierarchies():
        (hierarchy / _CGROUP).mkdir(exist_ok=True)
    home = cluster.home / "kubelet"
    home.mkdir()
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": HOST,
        # Nobody else is in this network.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": str(cluster.certificate),
        "tlsPrivateKeyFile": str(cluster.key),
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{_CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},
        "makeIPTablesUtilChains": False,
        "podLogsDir": str(home / "pods"),
        "resolvConf": "",
        # It is the host's disk, and fuller than a node's.
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
    }
    file = home / "config.yaml"
    file.write_text(yaml.safe_dump(configuration))
    return processes.start(
        [
            PROGRAMS / "kubelet",
            f"--config={file}",
            f"--kubeconfig={cluster.kubeconfig('kubelet')}",
            f"--root-dir={home / 'root'}",
            f"--hostname-override={NAME}",
            f"--node-ip={HOST}",
        ],
        cluster.logs,
    )


def _is_ready(cluster: Cluster) -> bool:
    conditions = cluster.get("node", NAME).get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _hierarchies() -> list[Path]:
    home = Path("/sys/fs/cgroup")
    return [home] if (home / "cgroup.controllers").exists() else sorted(home.iterdir())
