#!/usr/bin/env bash
# Boots machines with the units, in systemd-nspawn over an overlay of this machine's root: one with the plain units, then the master and
# the agent of the examples in networks of their own, which share what a test server has under the names of OVHcloud. Needs root, the
# client to be tested and that server: boot.sh CIDERFS CIDERFS-TEST-S3.
set -euo pipefail
usage="usage: boot.sh CIDERFS CIDERFS-TEST-S3"
program=$(realpath "${1:?$usage}")
store=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/.."
tests/setup
tests/setup systemd-container redis-server iproute2 fuse3 procps openssl ca-certificates socat
work=$(mktemp -d /tmp/ciderfs-boot.XXXXXX)
bridge=ciderfs-test
machines=()
servers=()
clean() {
  local name
  [ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
  for name in "${machines[@]}"; do stop "$name"; done
  for name in plain master agent store; do ip netns del "ciderfs-$name" 2>/dev/null || true; done
  ip link del "$bridge" 2>/dev/null || true
  umount -q "$work/disks" 2>/dev/null || true
  rm -rf "$work"
}
trap clean EXIT
failures=0
fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}
mkdir "$work/disks" "$work/shared"
# An overlay's upper layer must not be on an overlay.
mount -t tmpfs -o size=2G,mode=0700 ciderfs-boot "$work/disks"
# Redis' password, the two keys of the bucket, the passphrase of the volume's key.
secret=planted-$RANDOM$RANDOM
access_key=planted-access-$RANDOM$RANDOM
secret_key=planted-secret-$RANDOM$RANDOM
passphrase=planted-phrase-$RANDOM$RANDOM

# `create NAME`: a machine as this one, without its services; its root is $work/NAME.
create() {
  local name=$1 root=$work/$1 disk=$work/disks/$1
  mkdir -p "$root" "$disk"/{upper,work} "$work/out-$name"
  mount -t overlay "ciderfs-$name" -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"
  machines+=("$name")
  rm -rf "$root"/etc/systemd/system/* "$root"/var/log/journal
  mkdir -p "$root"/{out,shared,var/log/journal,usr/lib/ciderfs,etc/ciderfs/mnt,etc/juicefs,mnt}
  rm -rf "$root"/mnt/juicefs
  cp "$program" "$root/usr/bin/ciderfs"
  cp systemd/ciderfs-unit "$root/usr/lib/ciderfs/"
  # Where the stand-in of a package has them.
  mkdir -p "$root/nix/store/stand-in-ciderfs/"{bin,lib/ciderfs} "$root"/nix/store/stand-in-{coreutils,systemd}/bin
  ln -s /usr/bin/ciderfs "$root/nix/store/stand-in-ciderfs/bin/ciderfs"
  ln -s /usr/lib/ciderfs/ciderfs-unit "$root/nix/store/stand-in-ciderfs/lib/ciderfs/ciderfs-unit"
  ln -s /bin/kill "$root/nix/store/stand-in-coreutils/bin/kill"
  ln -s /bin/systemctl "$root/nix/store/stand-in-systemd/bin/systemctl"
  cp tests/boot/inside.sh tests/boot/units.sh validate/validate.sh "$work/out-$name/"
  printf '%s\n' "$secret" "$access_key" "$secret_key" "$passphrase" >"$work/out-$name/secrets"
  echo "$access_key" >"$work/out-$name/names"
  unit "$name" e2e.target '[Unit]' 'Requires=basic.target' 'After=basic.target'
}
# `unit MACHINE NAME LINE...`
unit() {
  local path=$work/$1/etc/systemd/system/$2
  shift 2
  printf '%s\n' "$@" >"$path"
}
# `want MACHINE UNIT [BY]`: by the target of the test, if nothing is said.
want() {
  local by=${3:-e2e.target.wants}
  mkdir -p "$work/$1/etc/systemd/system/$by"
  local file=$2
  case $2 in *@*) file=${2%%@*}@.service ;; esac
  ln -sf "../$file" "$work/$1/etc/systemd/system/$by/$2"
}
# `script MACHINE FILE`: what runs in it.
script() {
  cp "tests/boot/$2" "$work/out-$1/probe.sh"
  unit "$1" probe.service '[Service]' 'ExecStart=/bin/bash /out/probe.sh'
  want "$1" probe.service
}
# `boot MACHINE ARGUMENT...`: until it is off.
boot() {
  local name=$1
  shift
  rm -f "$work/out-$name"/{done,failed}
  timeout -k 5 240 systemd-nspawn -q -D "$work/$name" --boot --register=no --keep-unit --capability=all --bind=/dev/fuse \
    --bind="$work/out-$name:/out" --bind="$work/shared:/shared" --link-journal=no --console=pipe "$@" systemd.unit=e2e.target \
    >"$work/out-$name/console" 2>&1 </dev/null || true
}
journal() { journalctl -q --no-pager -o short-monotonic -D "$work/$1/var/log/journal"; }
verdict() {
  local out=$work/out-$1
  if [ -e "$out/failed" ]; then fail "$1: $(cat "$out/failed")"; fi
  [ -e "$out/done" ] || fail "$1 did not come to its end"
  if [ -e "$out/failed" ] || [ ! -e "$out/done" ]; then
    tail -n 40 "$out/log" >&2 || true
    journal "$1" | grep -E 'ciderfs|redis' | tail -n 40 >&2 || true
    tail -n 5 "$work/store.log" >&2 2>/dev/null || true
  fi
}
# As when its power fails: the first process of what was booted by a process of this script, and with it all others.
lose_power() {
  local pid=$1 next
  while next=$(cut -d' ' -f1 "/proc/$pid/task/$pid/children") && [ -n "$next" ]; do
    pid=$next
    [ "$(cat "/proc/$pid/comm")" != systemd ] || break
  done
  kill -KILL "$pid" 2>/dev/null || true
}
stop() {
  umount -q -l "$work/$1" 2>/dev/null || true
}
# `ordered MACHINE PATTERN...`: those lines of its journal, one after another, at its end.
ordered() {
  local name=$1 at=0 line
  shift
  for pattern in "$@"; do
    line=$(journal "$name" | grep -nE "$pattern" | tail -n 1 | cut -d: -f1 || true)
    if [ -z "$line" ] || [ "$line" -le "$at" ]; then fail "$name: $pattern does not come after what is before it"; fi
    at=${line:-$at}
  done
  journal "$name" | grep -i "ordering cycle" && fail "$name: systemd found a circle of dependencies"
  return 0
}

echo "# One machine, plain units"
create plain
cp systemd/*.service "$work/plain/etc/systemd/system/"
sed "s|^ACCESS_KEY=.*|ACCESS_KEY=$access_key|; s|^SECRET_KEY=.*|SECRET_KEY=$secret_key|; s|^ENDPOINT=.*|ENDPOINT=|; s|^BUCKET=.*|BUCKET=/srv/objects/|
  s|^REDIS_URL=.*|REDIS_URL=redis://:$secret@127.0.0.1:6379/1|; /^META_PASSWORD=/d
  s|^#VOLUME=.*|VOLUME=k3s-storage|; s|^#MOUNT_OPTIONS=.*|MOUNT_OPTIONS=--cache-size=64 --metrics=|; s|^#FORMAT_OPTIONS=.*|FORMAT_OPTIONS=--storage=file|" \
  env/ciderfs.env.example >"$work/plain/etc/ciderfs/mnt/juicefs.env"
chmod 0600 "$work/plain/etc/ciderfs/mnt/juicefs.env"
mkdir -p "$work/plain/srv/objects" "$work/plain/var/lib/late"
printf 'requirepass %s\nappendonly yes\nbind 127.0.0.1\ndir /var/lib/late\nsave ""\n' "$secret" >"$work/plain/etc/late.conf"
chmod 0600 "$work/plain/etc/late.conf"
unit plain redis.service '[Service]' 'ExecStart=/usr/bin/redis-server /etc/late.conf'
unit plain consumer.service '[Unit]' 'Wants=ciderfs@mnt-juicefs.service' 'After=ciderfs@mnt-juicefs.service mnt-juicefs.mount' \
  '[Service]' 'ExecStart=/bin/sleep infinity' 'ExecStop=/bin/sh -c "echo last >/mnt/juicefs/last && sync /mnt/juicefs/last"'
want plain ciderfs@mnt-juicefs.service
want plain consumer.service
want plain ciderfs-format@mnt-juicefs.service ciderfs@mnt-juicefs.service.requires
want plain ciderfs-format@mnt-other.service ciderfs@mnt-other.service.requires
want plain 'ciderfs-format@mnt-second\x2done.service' 'ciderfs@mnt-second\x2done.service.requires'
script plain plain.sh
boot plain --private-network
verdict plain
ordered plain 'Unmounted mnt-second.x2done.mount|mnt-second.x2done.mount: Deactivated' 'Stopped ciderfs@mnt-second.x2done.service' 'Stopped redis.service'
ordered plain 'Stopped consumer.service' 'Unmounted mnt-juicefs.mount|mnt-juicefs.mount: Deactivated' 'Stopped ciderfs@mnt-juicefs.service' 'Stopped redis.service'
script plain again.sh
boot plain --private-network
verdict plain

echo "# Power fails under load"
ip netns add ciderfs-plain
ip -n ciderfs-plain link set lo up
script plain load.sh
boot plain --network-namespace-path=/run/netns/ciderfs-plain &
machine=$!
for _ in $(seq 600); do
  [ ! -e "$work/out-plain/stored" ] || [ "$(wc -l <"$work/out-plain/stored")" -lt 40 ] || break
  sleep 0.2
done
lose_power "$machine"
wait "$machine" || true
script plain after.sh
boot plain --private-network
verdict plain
stop plain

echo "# Master and agent"
ip link add "$bridge" type bridge
ip link set "$bridge" up
for who in master:1 agent:2 store:3; do
  name=${who%:*} host=${who#*:}
  ip netns add "ciderfs-$name"
  ip link add "cfs-$name" type veth peer name eth1 netns "ciderfs-$name"
  ip link set "cfs-$name" master "$bridge" up
  ip -n "ciderfs-$name" addr add "10.99.0.$host/24" dev eth1
  ip -n "ciderfs-$name" link set eth1 up
  ip -n "ciderfs-$name" link set lo up
done
# OVHcloud, as far as they see: names, certificates, the strict server behind them.
tls=$work/tls
mkdir "$tls" "$work/objects"
chmod 0700 "$tls"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=boot test" -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=s3.gra.io.cloud.ovh.net" -keyout "$tls/server.key" -out "$tls/server.csr" 2>/dev/null
openssl x509 -req -in "$tls/server.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 2 -out "$tls/server.pem" 2>/dev/null \
  -extfile <(echo "subjectAltName=DNS:s3.gra.io.cloud.ovh.net,DNS:*.s3.gra.io.cloud.ovh.net")
openssl genrsa -aes256 -passout "pass:$passphrase" -out "$tls/volume.pem" 2048 2>/dev/null
ip netns exec ciderfs-store "$store" --port 8080 --dir "$work/objects" --access-key "$access_key" --secret-key "$secret_key" \
  --ovhcloud gra --bucket juicefs-k3s >"$work/store.log" 2>&1 &
servers+=($!)
ip netns exec ciderfs-store socat "openssl-listen:443,bind=10.99.0.3,reuseaddr,fork,verify=0,cert=$tls/server.pem,key=$tls/server.key" \
  tcp:127.0.0.1:8080 2>>"$work/store.log" &
servers+=($!)
for name in master agent; do
  create "$name"
  nix-instantiate --eval --strict --json -A "$name" tests/boot/machines.nix | python3 -c '
import json, pathlib, sys
for name, text in json.load(sys.stdin).items():
    pathlib.Path(sys.argv[1], name).write_text(text)
' "$work/$name/etc/systemd/system"
  echo "10.99.0.3 s3.gra.io.cloud.ovh.net juicefs-k3s.s3.gra.io.cloud.ovh.net" >>"$work/$name/etc/hosts"
  cat "$tls/ca.pem" >>"$work/$name/etc/ssl/certs/ca-certificates.crt"
  want "$name" ciderfs-k3s-storage.service
  want "$name" k3s.service
  script "$name" "$name.sh"
done
# `keep MACHINE FILE`: what is read from here, for root alone.
keep() { install -m 0600 /dev/stdin "$work/$1/etc/juicefs/$2"; }
# The master has its keys in the environment file, the agent in credentials.
keep master config <<<"ACCESS_KEY=$access_key
SECRET_KEY=$secret_key"
keep agent config <<<"REDIS_URL=redis://10.99.0.1:6379/1"
keep agent access-key <<<"$access_key"
keep agent secret-key <<<"$secret_key"
keep master volume.pem <"$tls/volume.pem"
for name in master agent; do
  keep "$name" redis-password <<<"$secret"
  keep "$name" passphrase <<<"$passphrase"
done
# The agent first: it waits for its master.
boot agent --network-namespace-path=/run/netns/ciderfs-agent &
agent=$!
boot master --network-namespace-path=/run/netns/ciderfs-master &
master=$!
for _ in $(seq 1200); do
  if [ -e "$work/shared/destroy-agent" ] || ! kill -0 "$master" 2>/dev/null; then break; fi
  sleep 0.2
done
verdict agent
lose_power "$agent"
wait "$agent" || true
stop agent
rm -rf "$work/disks/agent"
objects=$(find "$work/objects" -type f -size +1M | wc -l)
[ "$objects" -ge 4 ] || fail "only $objects large objects are in the bucket"
printf '%s\n' "$secret" "$access_key" "$secret_key" "$passphrase" >"$work/secrets"
if grep -raF -f "$work/secrets" "$work/objects" "$work"/out-*/console; then fail "a secret is in the bucket or on a console"; fi
touch "$work/shared/destroyed"
wait "$master" || true
verdict master
ordered master 'Stopped k3s.service' 'Unmounted mnt-juicefs.mount|mnt-juicefs.mount: Deactivated' 'Stopped ciderfs-k3s-storage.service' 'Stopped redis-juicefs.service'

[ "$failures" -eq 0 ] || { echo "$failures failures" >&2; exit 1; }
echo "all is well"
