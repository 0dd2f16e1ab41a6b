"""A Kubernetes control plane: etcd, API server, controller manager and scheduler, as processes."""

import json
import secrets
import ssl
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import processes

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".tools" / "cluster"
# Of the node, which is this machine's end of the bridge that the pods hang on.
HOST, NETWORK, BRIDGE = "10.99.0.1", "10.99.0.0/24", "cni0"
API = f"https://{HOST}:6443"
# Who may what is RBAC's default for these names.
_USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": ("system:node:node", "system:nodes"),
}


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes:
      home: of its state: certificates, kubeconfigs, logs.
    """

    home: Path

    @property
    def certificate(self) -> Path:
        """The certificate of every server of the cluster, which is its own authority."""
        return self.home / "server.crt"

    @property
    def key(self) -> Path:
        """Its key, which signs the tokens of service accounts, too."""
        return self.home / "server.key"

    @property
    def logs(self) -> Path:
        """Where the programs' logs are."""
        return self.home / "logs"

    def kubeconfig(self, user: str, token: str = "") -> Path:
        """Returns a kubeconfig of a user; a new one needs a token."""
        file = self.home / f"{user}.kubeconfig"
        if token:
            cluster = {"server": API, "certificate-authority": str(self.certificate)}
            content = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "it", "cluster": cluster}],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": user}}],
                "current-context": "it",
            }
            file.write_text(yaml.safe_dump(content))
        return file

    def service_account(self, namespace: str, name: str) -> Path:
        """Returns the kubeconfig of a service account, with a token of its own."""
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration=24h")
        return self.kubeconfig(f"{namespace}-{name}", token.strip())

    def kubectl(
        self, *arguments: str, user: str = "admin", body: Any = None, fails: bool = False
    ) -> str:
        """Returns what kubectl prints: on standard error where it is to fail.

        Args:
          arguments: kubectl's.
          user: who asks, see `kubeconfig`.
          body: one or more objects, for `-f -`.
          fails: whether it is to fail.
        """
        if isinstance(body, list):
            body = {"apiVersion": "v1", "kind": "List", "items": body}
        done = subprocess.run(
            [PROGRAMS / "kubectl", "--kubeconfig", self.kubeconfig(user), *arguments],
            input=json.dumps(body) if body else None,
            capture_output=True,
            text=True,
            check=False,
        )
        assert bool(done.returncode) == fails, f"kubectl {arguments}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    def get(self, *arguments: str) -> Mapping[str, Any]:
        """Returns what `kubectl get` finds, or nothing."""
        text = self.kubectl("get", *arguments, "--output=json", "--ignore-not-found")
        return json.loads(text) if text else {}


def start(home: Path) -> Cluster:
    """Starts a control plane that keeps its state in a directory."""
    cluster = Cluster(home)
    cluster.logs.mkdir()
    _network()
    _certificate(cluster)
    _tokens(cluster)
    processes.start(
        [
            PROGRAMS / "etcd",
            f"--data-dir={home / 'etcd'}",
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
        cluster.logs,
    )
    api = processes.start(
        [
            PROGRAMS / "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={HOST}",
            "--secure-port=6443",
            f"--tls-cert-file={cluster.certificate}",
            f"--tls-private-key-file={cluster.key}",
            f"--token-auth-file={home / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={cluster.certificate}",
            f"--service-account-signing-key-file={cluster.key}",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
        ],
        cluster.logs,
    )
    api.until(lambda: _is_ready(cluster), "the API server answers")
    for program, user, *flags in (
        (
            "kube-controller-manager",
            "controller-manager",
            "--use-service-account-credentials",
            f"--root-ca-file={cluster.certificate}",
            f"--service-account-private-key-file={cluster.key}",
        ),
        ("kube-scheduler", "scheduler"),
    ):
        processes.start(
            [
                PROGRAMS / program,
                f"--kubeconfig={cluster.kubeconfig(user)}",
                "--leader-elect=false",
                *flags,
            ],
            cluster.logs,
        )
    processes.until(
        lambda: cluster.get("serviceaccount", "default", "--namespace=default"),
        "the controller manager makes service accounts",
    )
    return cluster


def _network() -> None:
    for command in (
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"addr add {HOST}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        f"route add default via {HOST}",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def _certificate(cluster: Cluster) -> None:
    names = f"subjectAltName=IP:{HOST},IP:127.0.0.1,IP:10.96.0.1"
    subprocess.run(
        [
            *(
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
            ).split(),
            *("-subj", "/CN=cxrflow.test", "-addext", names),
            *("-keyout", cluster.key, "-out", cluster.certificate),
        ],
        check=True,
        capture_output=True,
    )


def _tokens(cluster: Cluster) -> None:
    lines = []
    for user, (name, group) in _USERS.items():
        token = secrets.token_hex()
        cluster.kubeconfig(user, token)
        lines.append(f'{token},{name},{name},"{group}"\n')
    (cluster.home / "tokens.csv").write_text("".join(lines))


def _is_ready(cluster: Cluster) -> bool:
    trusted = ssl.create_default_context(cafile=str(cluster.certificate))
    try:
        with urllib.request.urlopen(f"{API}/readyz", context=trusted) as answer:
            return answer.status == 200
    except OSError:
        return False
