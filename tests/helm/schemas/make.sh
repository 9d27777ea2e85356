#!/usr/bin/env bash
# Makes the definitions (CRDs) in this folder from the Go modules that define them: KEDA's, the Prometheus operator's,
# Flux's, External Secrets' and Argo CD's. They are committed, so that the tests need no Go. To update one, raise its
# version here and run this (with the development environment's Python on the path).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

CONTROLLER_GEN=v0.23.0
KEDA=v2.21.0
PROMETHEUS_OPERATOR=v0.93.0
FLUX_HELM=v1.4.0
FLUX_SOURCE=v1.7.0
EXTERNAL_SECRETS=v1.3.2
ARGO_CD=v3.4.0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
go mod init flagpost.test/definitions
keda=github.com/kedacore/keda/v2/apis/keda/v1alpha1
operator=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1
flux_helm=github.com/fluxcd/helm-controller/api/v2
flux_source=github.com/fluxcd/source-controller/api/v1
go get "$keda@$KEDA" "$operator@$PROMETHEUS_OPERATOR" "$flux_helm@$FLUX_HELM" "$flux_source@$FLUX_SOURCE"
go run "sigs.k8s.io/controller-tools/cmd/controller-gen@$CONTROLLER_GEN" \
    crd:maxDescLen=0 "paths=$keda" "paths=$operator" "paths=$flux_helm" "paths=$flux_source" output:crd:dir=made
cp made/keda.sh_{scaledobjects,triggerauthentications}.yaml \
    made/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml "$here"

slim() { python3 "$here/slim.py" "$1" "$2" >"$here/$3"; }
folder() { go mod download -json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'; }
slim made/helm.toolkit.fluxcd.io_helmreleases.yaml v2 helm.toolkit.fluxcd.io_helmreleases.yaml
slim made/source.toolkit.fluxcd.io_ocirepositories.yaml v1 source.toolkit.fluxcd.io_ocirepositories.yaml
slim "$(folder "github.com/external-secrets/external-secrets@$EXTERNAL_SECRETS")/config/crds/bases/external-secrets.io_externalsecrets.yaml" \
    v1 external-secrets.io_externalsecrets.yaml
slim "$(folder "github.com/argoproj/argo-cd/v3@$ARGO_CD")/manifests/crds/application-crd.yaml" \
    v1alpha1 argoproj.io_applications.yaml
