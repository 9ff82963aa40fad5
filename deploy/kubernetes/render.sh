#!/usr/bin/env bash
# Renders the chart into plain manifests, beside this file or into a directory: csi.yaml and csi-with-redis.yaml for `kubectl apply`,
# k3s.yaml for the manifests directory of a k3s server, with the chart inside. HELM is the program (default: helm).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
chart=$here/../helm/ciderfs-csi
out=${1:-$here}
made="# Made from deploy/helm/ciderfs-csi by deploy/kubernetes/render.sh; change it there."

render() {
  local file=$1
  shift
  {
    echo "$made"
    "${HELM:-helm}" template ciderfs-csi "$chart" --namespace kube-system --kube-version 1.30.0 "$@" |
      sed -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e '/^ *helm.sh\//d'
  } >"$out/$file"
}
render csi.yaml --values "$here/values.yaml"
render csi-with-redis.yaml --values "$here/values.yaml" --values "$here/values-redis.yaml"

python3 - "$chart" "$here/values.yaml" "$made" >"$out/k3s.yaml" <<'PY'
import base64, gzip, io, pathlib, sys, tarfile
chart, values, made = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]), sys.argv[3]
# The same archive wherever and whenever it is made.
plain = io.BytesIO()
with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
    for path in sorted(p for p in chart.rglob("*") if p.is_file()):
        name = path.relative_to(chart)
        if name.parts[0] == "ci" or name.name.startswith("."):
            continue
        data = path.read_bytes()
        entry = tarfile.TarInfo(f"{chart.name}/{name}")
        entry.size, entry.mode, entry.mtime = len(data), 0o644, 0
        archive.addfile(entry, io.BytesIO(data))
packed = base64.b64encode(gzip.compress(plain.getvalue(), mtime=0)).decode()
indented = "".join(f"    {line}\n" for line in values.read_text().splitlines() if line)
print(f"""{made}
# Copy it to /var/lib/rancher/k3s/server/manifests/. Taking it away there does not uninstall: kubectl -n kube-system delete helmchart ciderfs-csi
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata:
  name: ciderfs-csi
  namespace: kube-system
spec:
  chartContent: {packed}
  targetNamespace: kube-system
  failurePolicy: abort
  valuesContent: |
{indented}""", end="")
PY
