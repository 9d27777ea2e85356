#!/usr/bin/env bash
# Makes the definitions (CRDs) beside it anew from the Go modules that define them: KEDA's and the Prometheus
# operator's. They are committed, so that the tests need no Go. To move on, raise a version here and run this.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

CONTROLLER_GEN=v0.23.0
KEDA=v2.21.0
PROMETHEUS_OPERATOR=v0.93.0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
go mod init flagpost.test/definitions
keda=github.com/kedacore/keda/v2/apis/keda/v1alpha1
operator=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1
go get "$keda@$KEDA" "$operator@$PROMETHEUS_OPERATOR"
go run "sigs.k8s.io/controller-tools/cmd/controller-gen@$CONTROLLER_GEN" \
    crd:maxDescLen=0 "paths=$keda" "paths=$operator" output:crd:dir=made
cp made/keda.sh_{scaledobjects,triggerauthentications}.yaml \
    made/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml "$here"
