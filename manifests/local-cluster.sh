#!/usr/bin/env bash
# A complete cluster on this machine: `make kind-up`, `make minikube-up`, `make kind-down`,
# `make minikube-down`. Each step keeps what is already there, so it can be run again.
set -euo pipefail
cd "$(dirname "$0")/.."

KFP=2.17.0
# The first release that splits traffic between stable and canary in Standard mode.
KSERVE=v0.21.0
CERT_MANAGER=v1.17.0
ENVOY_GATEWAY=v1.8.1
KUBERNETES=v1.34.0
NAME=cxrflow

say() { printf '\n%s\n' "$*"; }
fail() { echo "error: $*" >&2; exit 1; }

require() {
  command -v "$1" >/dev/null || fail "$1 is not installed; see $2"
}

create_kind() {
  kind get clusters 2>/dev/null | grep -qx "$NAME" ||
    kind create cluster --name "$NAME" --image "kindest/node:$KUBERNETES" --wait 5m
  kubectl config use-context "kind-$NAME" >/dev/null
}

create_minikube() {
  minikube --profile "$NAME" status >/dev/null 2>&1 ||
    minikube --profile "$NAME" start --kubernetes-version "$KUBERNETES" --cpus 4 --memory 12g --disk-size 60g
  kubectl config use-context "$NAME" >/dev/null
}

install_pipelines() {
  local source="github.com/kubeflow/pipelines/manifests/kustomize"
  kubectl apply -k "$source/cluster-scoped-resources?ref=$KFP"
  kubectl wait --for condition=established --timeout 2m crd/applications.app.k8s.io
  kubectl apply -k "$source/env/platform-agnostic?ref=$KFP"
  kubectl -n kubeflow rollout status --timeout 15m deployment/ml-pipeline
}

install_kserve() {
  kubectl apply --server-side -f \
    "https://github.com/cert-manager/cert-manager/releases/download/$CERT_MANAGER/cert-manager.yaml"
  kubectl -n cert-manager rollout status --timeout 5m deployment/cert-manager-webhook
  helm upgrade --install eg oci://docker.io/envoyproxy/gateway-helm --version "$ENVOY_GATEWAY" \
    --namespace envoy-gateway-system --create-namespace --wait
  kubectl apply -f - <<'YAML'
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: envoy}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
YAML
  local charts=oci://ghcr.io/kserve/charts
  helm upgrade --install kserve-crd "$charts/kserve-crd" --version "$KSERVE" \
    --namespace kserve --create-namespace --wait
  # Standard: no Knative.
  helm upgrade --install kserve "$charts/kserve-resources" --version "$KSERVE" --namespace kserve --wait \
    --set kserve.controller.deploymentMode=Standard \
    --set kserve.controller.gateway.ingressGateway.enableGatewayApi=true \
    --set kserve.controller.gateway.ingressGateway.createGateway=true \
    --set kserve.controller.gateway.ingressGateway.className=envoy
}

load_images() {
  local version engine image
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  engine=$(command -v docker || command -v podman) || fail "docker or podman must be installed"
  make images
  for image in data training serving pacs; do
    "$engine" save --output "build/$image.tar" "cxrflow-$image:$version"
    case $1 in
      kind) kind load image-archive --name "$NAME" "build/$image.tar" ;;
      minikube) minikube --profile "$NAME" image load "build/$image.tar" ;;
    esac
    rm "build/$image.tar"
  done
}

deploy() {
  kubectl apply -k "manifests/overlays/$1"
  # Give KServe access to the object store of Kubeflow Pipelines: the same credentials under KServe's names.
  key() { kubectl -n kubeflow get secret mlpipeline-minio-artifact -o "jsonpath={.data.$1}" | base64 -d; }
  kubectl -n cxrflow create secret generic cxrflow-object-store --dry-run=client -o yaml \
    --from-literal "AWS_ACCESS_KEY_ID=$(key accesskey)" \
    --from-literal "AWS_SECRET_ACCESS_KEY=$(key secretkey)" | kubectl apply -f -
  kubectl -n cxrflow annotate --overwrite secret cxrflow-object-store \
    serving.kserve.io/s3-endpoint=seaweedfs.kubeflow:9000 \
    serving.kserve.io/s3-usehttps=0 serving.kserve.io/s3-region=us-east-1
  kubectl apply -f manifests/jobs/sample-data.yaml
  kubectl -n kubeflow wait --for condition=complete --timeout 10m job/cxrflow-sample-data
}

smoke_test() {
  kubectl -n kubeflow get --raw \
    /api/v1/namespaces/kubeflow/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz >/dev/null ||
    fail "Kubeflow Pipelines does not answer: kubectl -n kubeflow get pods"
  kubectl -n kserve rollout status --timeout 2m deployment/kserve-controller-manager
  kubectl auth can-i patch inferenceservices.serving.kserve.io/cxrflow -n cxrflow \
    --as system:serviceaccount:kubeflow:cxrflow-pipeline >/dev/null ||
    fail "the pipeline's account lacks the permission to deploy: see manifests/base/access.yaml"
}

action=${1-} provider=${2-}
case $provider in
  kind) require kind https://kind.sigs.k8s.io ;;
  minikube) require minikube https://minikube.sigs.k8s.io ;;
  *) fail "usage: $0 up|down kind|minikube" ;;
esac

case $action in
  up)
    require kubectl https://kubernetes.io/docs/tasks/tools/
    require helm https://helm.sh
    say "A cluster" && "create_$provider"
    say "Kubeflow Pipelines $KFP" && install_pipelines
    say "KServe $KSERVE" && install_kserve
    say "Our images" && load_images "$provider"
    say "Our manifests, and drawn radiographs" && deploy "$provider"
    say "A smoke test" && smoke_test
    say "It is up. Next:
  kubectl -n kubeflow port-forward svc/ml-pipeline 8888 &
  .venv/bin/cxrflow submit --target $provider --host http://localhost:8888 --weights none \\
    --recipes cnn-dubey --epochs 20 --gate covid=0.8,default=0.6 --trust flag" ;;
  down)
    case $provider in
      kind) kind delete cluster --name "$NAME" ;;
      minikube) minikube --profile "$NAME" delete ;;
    esac ;;
  *) fail "usage: $0 up|down kind|minikube" ;;
esac
