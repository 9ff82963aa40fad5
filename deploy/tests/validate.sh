#!/usr/bin/env bash
# Plants each defect of a set-up before this one into a copy of the tree: deploy/validate/validate.sh must tell it, by its number. The
# tree as it is passes. Then what --live tells of a machine that is not well. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
deploy/tests/setup
shellcheck deploy/validate/validate.sh deploy/tests/*.sh deploy/tests/setup
source=$PWD
work=$(mktemp -d)
victim=''
trap '[ -z "$victim" ] || kill "$victim" 2>/dev/null || true; rm -rf "$work"' EXIT
failures=0
fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}
planted=' '

mkdir "$work/clean"
cp -r deploy docs flake.nix default.nix README.md Cargo.toml Cargo.lock "$work/clean/"
mkdir -p "$work/clean/crates/ciderfs"
cp crates/ciderfs/Cargo.toml "$work/clean/crates/ciderfs/"
cp -r crates/ciderfs/src "$work/clean/crates/ciderfs/"

"$source/deploy/validate/validate.sh" "$work/clean" >"$work/said" 2>&1 || fail "the tree as it is: $(cat "$work/said")"

# `plant NUMBER TEXT COMMAND`: after COMMAND in the tree, defect NUMBER is told with TEXT.
plant() {
  rm -rf "$work/tree"
  cp -r "$work/clean" "$work/tree"
  (cd "$work/tree" && eval "$3")
  if diff -r "$work/clean" "$work/tree" >/dev/null; then fail "defect $1: nothing was planted by $3"; fi
  local rc=0
  "$source/deploy/validate/validate.sh" "$work/tree" >"$work/said" 2>&1 || rc=$?
  [ "$rc" = 1 ] || fail "defect $1: exit code $rc after $3"
  grep -F "FAILED: defect $1: " "$work/said" | grep -qF -- "$2" || fail "defect $1 ($3): no such text ($2): $(cat "$work/said")"
  case $planted in *" $1 "*) ;; *) planted="$planted$1 " ;; esac
}
units=deploy/nixos/modules/lib/units.nix
plain=deploy/systemd/ciderfs@.service
plain_format=deploy/systemd/ciderfs-format@.service
master=deploy/nixos/systems/master.nix
agent=deploy/nixos/systems/agent.nix
common=deploy/nixos/modules/common.nix

plant 1 "has --endpoint-url" "sed -i 's/--if-absent/--if-absent --endpoint-url=x/' $plain_format"
plant 1 "has --endpoint-url" "sed -i 's/\"--if-absent\"/\"--if-absent\" \"--endpoint-url=x\"/' $units"
plant 1 "has --uploads" "sed -i 's/cache.sizeMiB = 1024;/cache.sizeMiB = 1024; mountOptions = [ \"--uploads=20\" ];/' $master"

plant 2 "reads keys in ExecStartPre" "sed -i '/^ExecStart=/i ExecStartPre=/bin/export ACCESS_KEY=x' $plain"
plant 2 "reads keys in ExecStartPre" "sed -i 's/Type = \"notify\";/Type = \"notify\"; ExecStartPre = \"cat access-key\";/' $units"
plant 2 "a program export" "sed -i 's|Type = \"notify\";|Type = \"notify\"; ExecStartPre = \"/bin/export ACCESS_KEY\";|' $units"

plant 3 "a literal secret" "sed -i 's/region bucket;/region bucket; secretKey = \"hunter2\";/' $common"
plant 3 "a password in an address" "sed -i 's|redis://127.0.0.1|redis://:hunter2@127.0.0.1|' $master"
plant 3 "holds a secret" "sed -i '/^EnvironmentFile=/i Environment=SECRET_KEY=hunter2' $plain"
plant 3 "has a value for SECRET_KEY" "sed -i 's/^SECRET_KEY=/SECRET_KEY=hunter2/' deploy/env/ciderfs.env.example"

plant 4 "the bucket juicefs-k3s is a bare name" "sed -i 's/preset = \"ovhcloud\";//' $common"

plant 5 "has no credentials" "sed -i '/defaults.environmentFile/d' $common"
plant 5 "has no credentials" "sed -i '/^EnvironmentFile=/d; /secret-key/d' $plain"

plant 6 "listens beyond this machine without a password" "sed -i '/inherit passwordFile/d' $master"
plant 6 "its protected mode off" "sed -i 's/protected-mode = \"yes\"/protected-mode = \"no\"/' deploy/nixos/modules/redis.nix"
plant 6 "agent: it uses Redis at 10.0.0.1:6379, where the master does not listen" "sed -i 's/ net.masterIp \];/ ];/' $master"
plant 6 "on every interface" "sed -i 's/openFirewall = false/openFirewall = true/' deploy/nixos/modules/redis.nix"

plant 7 "does not wait for network-online.target" "sed -i 's/network-online.target/network.target/' $plain"
plant 7 "does not wait for network-online.target" "sed -i 's/\"network-online.target\"/\"network.target\"/' $units"
plant 7 "master: ciderfs-k3s-storage.service does not wait for the Redis" "sed -i 's/wants = lib.optional .*/wants = [ ];/' deploy/nixos/modules/lib/filesystem.nix"

plant 8 "in the foreground with Type=notify" "sed -i 's/Type=notify/Type=forking/' $plain"
plant 8 "in the foreground with Type=notify" "sed -i 's/Type = \"notify\"/Type = \"simple\"/' $units"
plant 8 "in the foreground with Type=notify" "sed -i 's/cache.sizeMiB = 1024;/cache.sizeMiB = 1024; mountOptions = [ \"--background\" ];/' $master"

plant 9 "does not flush when it stops" "sed -i 's|^ExecStop=.*|ExecStop=/bin/umount %f|' $plain"
plant 9 "does not flush when it stops" "sed -i 's/umount --flush/umount/' $units"

plant 10 "formats without --if-absent" "sed -i 's/ --if-absent//' $plain_format"
plant 10 "formats without --if-absent" "sed -i 's/\"--if-absent\"//' $units"
plant 10 "an agent formats" "sed -i 's/cache.sizeMiB = 2048;/cache.sizeMiB = 2048; format.mode = \"if-absent\";/' $agent"

plant 11 "tmpfiles would change the mounted root" "sed -i 's|^  networking.hostName|  systemd.tmpfiles.rules = [ \"d /mnt/juicefs 0755 root root -\" ];\n&|' $master"
plant 11 "a rule of tmpfiles changes the mounted root at /mnt/juicefs" "sed -i 's|^  networking.hostName|  systemd.tmpfiles.rules = [ \"d /mnt/juicefs 0755 root root -\" ];\n&|' $agent"
plant 11 "at every start" "mkdir deploy/tmpfiles.d; echo 'd /mnt/juicefs 0755 root root -' >deploy/tmpfiles.d/ciderfs.conf"

# The manifests come with later parts of the tree; these are as others had them.
manifests=deploy/nixos/manifests
plant 12 "sets backend.endpoint" "mkdir -p $manifests; printf 'chart: juicefs-csi-driver\nvalues:\n  backend:\n    name: k3s\n    endpoint: x\n' >$manifests/juicefs.yaml"
plant 12 "sets redis" "mkdir -p $manifests; printf '{ chart = \"juicefs-csi-driver\";\n  values = {\n    redis.enabled = true;\n  }; }\n' >$manifests/juicefs.nix"
plant 12 "refuses unknown values" "mkdir -p deploy/helm/x; echo 'name: x' >deploy/helm/x/Chart.yaml"
plant 13 "guaranteedInstanceManagerCPU" "mkdir -p $manifests; echo '{ defaultSettings.guaranteedEngineManagerCPU = 12; }' >$manifests/longhorn.nix"
plant 13 "guaranteedInstanceManagerCPU" "mkdir -p deploy/kubernetes; echo 'guaranteedReplicaManagerCPU: 12' >deploy/kubernetes/longhorn.yaml"
plant 14 "directly on FUSE" "mkdir -p $manifests; echo '{ defaultSettings.defaultDataPath = \"/mnt/juicefs/longhorn\"; }' >$manifests/longhorn.nix"

plant 15 "names ./modules/common.nix" "sed -i 's|../modules/common.nix|./modules/common.nix|' $agent"
plant 15 "the input disko" "sed -i 's|^  inputs.nixpkgs.url|  inputs.disko.url = \"github:nix-community/disko\";\n&|' flake.nix"
plant 15 "exports no such module" "sed -i 's|machine file \]|machine file self.nixosModules.installer ]|' flake.nix"
plant 15 "the examples cannot be evaluated" "sed -i 's/cache.sizeMiB = 2048;/cache.sizeMib = 2048;/' $agent"

plant 16 "tolerate both" "mkdir -p $manifests; echo '{ tolerations = [ { key = \"node-role.kubernetes.io/master\"; } ]; }' >$manifests/csi.nix"
plant 17 "a bucket one region" "echo 'Multi-region: volumes can span regions.' >>docs/memory.md"

for n in $(seq 17); do
  case $planted in *" $n "*) ;; *) fail "defect $n was never planted" ;; esac
done

# --- A machine ---
# `live TEXT ARGUMENTS`: it is told.
live() {
  local text=$1 rc=0
  shift
  CIDERFS=/bin/true deploy/validate/validate.sh --live "$@" >"$work/said" 2>&1 || rc=$?
  [ "$rc" = 1 ] || fail "--live $*: exit code $rc, not 1 ($text)"
  grep -qF -- "$text" "$work/said" || fail "--live $*: no such text ($text): $(cat "$work/said")"
}
env=$work/env
secret=planted-$RANDOM$RANDOM
sed "s/^ACCESS_KEY=.*/ACCESS_KEY=key/; s/^SECRET_KEY=.*/SECRET_KEY=$secret/; s|^REDIS_URL=.*|REDIS_URL=redis://127.0.0.1:6379/1|" \
  deploy/env/ciderfs.env.example >"$env"
chmod 0644 "$env"
live "has mode 644, so others can read the secrets: chmod 0600 $env" --env-file "$env"
chmod 0600 "$env"
live "has no ACCESS_KEY" --env-file <(:)
chown nobody "$env"
live "belongs to nobody" --env-file "$env"
chown root "$env"
live "is not there: make it from deploy/env/ciderfs.env.example" --env-file "$work/none"
mkdir -m 0755 "$work/open"
live "nothing is mounted at $work/open" --mount-point "$work/open"
live "is open while nothing is mounted (mode 755)" --mount-point "$work/open"
live "/proc is no mount of CiderFS" --mount-point /proc
# Another process shows the secret.
bash -c 'exec -a "client --secret-key '"$secret"'" sleep 300' &
victim=$!
until tr '\0' ' ' <"/proc/$victim/cmdline" | grep -q -- "$secret"; do sleep 0.02; done
live "SECRET_KEY is in the command line of process $victim" --env-file "$env"
kill "$victim"
wait "$victim" 2>/dev/null || true
victim=''
rc=0
CIDERFS=/bin/false deploy/validate/validate.sh --live --env-file "$env" >"$work/said" 2>&1 || rc=$?
grep -qF "ciderfs doctor found" "$work/said" || fail "doctor is not asked: $(cat "$work/said")"
rc=0
deploy/validate/validate.sh --nonsense 2>/dev/null || rc=$?
[ "$rc" = 2 ] || fail "a bad option: exit code $rc"

[ "$failures" -eq 0 ] || { echo "$failures failures" >&2; exit 1; }
echo "all is well"
