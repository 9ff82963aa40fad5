#!/usr/bin/env bash
# Tests of the container image: image.sh PROGRAM, the client that goes into it. A containerd of its own imports the archive and runs it
# with a read-only root: as itself, as the parts of the CSI driver, and as the mount image of the official driver, with the words that
# driver uses. Needs root, /dev/fuse and a Debian mirror.
# shellcheck disable=SC2016,SC2054 # Shells in containers know the variables; options of mounts have commas.
# Whoever writes into a pipe is read to its end: no `| grep -q`, after which it may fail.
set -euo pipefail
program=$(realpath "${1:?usage: image.sh PROGRAM}")
cd "$(dirname "$0")/../.."
deploy/tests/setup binutils containerd curl runc redis-server redis-tools python3 shellcheck
shellcheck deploy/tests/image.sh
if ! apt-get download -qq --print-uris busybox-static >/dev/null 2>&1; then apt-get update -qq; fi
work=$(mktemp -d /tmp/ciderfs-image.XXXXXX)
pids=()
clean() {
  local id
  if [ -S "$work/containerd.sock" ]; then
    for id in $(ctr tasks ls -q); do ctr tasks kill -s SIGKILL "$id" || true; done
    # Their shims end with them.
    for id in $(ctr tasks ls -q); do
      for _ in $(seq 100); do
        if ctr tasks rm -f "$id" >/dev/null 2>&1; then break; fi
        sleep 0.1
      done
    done
  fi
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  [ ${#pids[@]} -eq 0 ] || wait "${pids[@]}" 2>/dev/null || true
  # Mounts of pods, then what they are in.
  awk -v at="$work/" 'index($5, at) == 1 { print $5 }' /proc/self/mountinfo | tac | xargs -r -n 1 umount -l
  umount -l "$work" 2>/dev/null || true
  rm -rf --one-file-system "$work"
}
trap clean EXIT
fail() {
  echo "FAILED: $*" >&2
  tail -n 12 "$work"/*.log >&2 2>/dev/null || true
  exit 1
}
# `await WHAT COMMAND...`: until it succeeds, a minute at most.
await() {
  local what=$1
  shift
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "no $what within a minute"
}
# The snapshots of containers are overlays, and those cannot be on one.
mount -t tmpfs -o size=1G,mode=0700 ciderfs-image "$work"
mkdir -p "$work"/{root,state,jfs,objects,cache,run,csi,etc}

echo "# Two builds, one image"
image() { cargo run --quiet --locked --package xtask -- image --program "$program"; }
archive=$(image)
first=$(sha256sum <"$archive")
# In another order of time and mask.
(umask 077 && image) >/dev/null
[ "$first" = "$(sha256sum <"$archive")" ] || fail "the same input made two images"
python3 - "$archive" "$program" <<'PYTHON'
"""An image layout in which every digest and size is right, and the older list says the same."""
import gzip, hashlib, io, json, os, sys, tarfile

archive = tarfile.open(sys.argv[1])
files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}

def blob(descriptor):
    content = files[descriptor["digest"].replace("sha256:", "blobs/sha256/")]
    assert len(content) == descriptor["size"], descriptor
    assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:"), descriptor
    return content

assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
index = json.loads(files["index.json"])
names = [d["annotations"]["io.containerd.image.name"] for d in index["manifests"]]
assert names == ["localhost/ciderfs:0.1.0", "localhost/mount:ce-v1.4.2-ciderfs"], names
manifest = json.loads(blob(index["manifests"][0]))
config = json.loads(blob(manifest["config"]))
layers = [gzip.decompress(blob(d)) for d in manifest["layers"]]
assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(l).hexdigest() for l in layers]
(old,) = json.loads(files["manifest.json"])
assert old["RepoTags"] == names and len(old["Layers"]) == len(layers), old
for path in [old["Config"], *old["Layers"]]:
    assert path in files, path
members = [m for l in layers for m in tarfile.open(fileobj=io.BytesIO(l))]
for m in members:
    assert (m.uid, m.gid, m.mtime) == (0, 0, 0), m.name
setuid = [m.name for m in members if m.isfile() and m.mode & 0o6000]
assert not setuid, setuid
# What it may cost beside the program.
packed = os.stat(sys.argv[1]).st_size
own = next(m.size for m in members if m.name == "usr/local/bin/juicefs")
root = sum(m.size for m in members) - own
print(f"archive {packed / 1e6:.1f} MB; unpacked: program {own / 1e6:.1f} MB, the rest {root / 1e6:.1f} MB")
assert len(layers[0]) < 12e6 and packed < own, "the image has grown"
PYTHON

echo "# containerd"
cat >"$work/etc/containerd.toml" <<TOML
version = 2
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$work/containerd.sock"
[ttrpc]
  address = "$work/ttrpc.sock"
TOML
export CONTAINERD_ADDRESS=$work/containerd.sock
containerd --log-level error --config "$work/etc/containerd.toml" >"$work/containerd.log" 2>&1 &
pids+=($!)
await containerd ctr version
ctr images import "$archive"
ours=localhost/ciderfs:0.1.0
mount_image=localhost/mount:ce-v1.4.2-ciderfs
# `in_image OPTION... IMAGE once COMMAND...`: to its end.
in_image() {
  ctr run --rm --read-only --net-host --mount type=tmpfs,dst=/tmp,options=mode=1777 "$@"
}

echo "# The client, with a read-only root"
[ "$(in_image $ours once ciderfs version)" = "$("$program" version)" ] || fail "another version"
in_image --privileged --mount type=tmpfs,dst=/srv $ours once sh -euc '
  if touch /etc/new 2>/dev/null; then echo "the root can be written to"; exit 1; fi
  ciderfs format --quiet sqlite3:///srv/meta.db vol --storage file --bucket /srv/objects
  mkdir /srv/mnt
  ciderfs mount --background --metrics= --cache-dir=memory --log /srv/log sqlite3:///srv/meta.db /srv/mnt
  head -c 3000000 /dev/urandom >/srv/file
  cp /srv/file /srv/mnt/file
  sync
  cmp /srv/file /srv/mnt/file
  ciderfs umount /srv/mnt
  ciderfs mount --background --metrics= --cache-dir=memory --log /srv/log sqlite3:///srv/meta.db /srv/mnt
  cmp /srv/file /srv/mnt/file
  umount /srv/mnt' || fail "no volume in a container"
# Names are resolved, and certificates are known.
in_image $ours once su ciderfs -s /bin/sh -c 'set -eu
  [ "$(id -u)" = 65532 ] && [ "$HOME" = /tmp ] && getent passwd ciderfs >/dev/null && getent hosts localhost >/dev/null
  [ "$(grep -c BEGIN /etc/ssl/certs/ca-certificates.crt)" -gt 100 ]' || fail "no user, hosts or certificates"

echo "# The parts of the CSI driver"
# `pod NAME ARGUMENT...`: a container that goes on, with its log in NAME.log.
pod() {
  local id=$1
  shift
  ctr run --detach --read-only --net-host --mount type=tmpfs,dst=/tmp,options=mode=1777 --log-uri "file://$work/$id.log" "$@"
}
# `ends NAME`: what is stopped ends, and well.
ends() {
  local said
  ctr tasks kill -s SIGTERM "$1"
  await "end of $1" sh -c "ctr tasks ls | grep '^$1 .*STOPPED' >/dev/null"
  # It tells how a container has ended, and ends well itself.
  said=$(ctr tasks rm "$1" 2>&1)
  case $said in *"exit code"*) fail "$1 ended badly: $said" ;; esac
  ctr containers rm "$1"
}
chown 65532:65532 "$work/csi"
pod controller --mount "type=bind,src=$work/csi,dst=/csi,options=rbind:rw" $ours controller \
  su ciderfs -s /bin/sh -c 'exec ciderfs csi --mode=controller'
await "socket of the controller" test -S "$work/csi/csi.sock"
[ "$(stat -c %u "$work/csi/csi.sock")" = 65532 ] || fail "the controller is somebody else"
ends controller
pod mounter --privileged --rootfs-propagation rshared --mount "type=bind,src=$work/run,dst=/run/ciderfs,options=rbind:rw" \
  $ours mounter ciderfs mounter --mount-dir=/var/lib/juicefs/volume
await "socket of the mounter" test -S "$work/run/mounter/mounter.sock"
pod node --privileged --rootfs-propagation rshared --mount "type=bind,src=$work/run,dst=/run/ciderfs,options=rbind:rw" \
  --mount "type=bind,src=$work/csi,dst=/csi,options=rbind:rw" $ours node ciderfs csi --mode=node --nodeid=node-1
await "socket of the node plugin" test -S "$work/csi/csi.sock"
ends node
ends mounter

echo "# A mount image of the official driver"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
metaport=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
redis-server --port "$port" --bind 127.0.0.1 --dir "$work" --requirepass 'pass word' --save '' --appendonly yes >"$work/redis.log" 2>&1 &
pids+=($!)
await Redis redis-cli -p "$port" ping
meta="redis://:pass%20word@127.0.0.1:$port/1"
# What a mount pod has, without /tmp, in which the driver has its sockets.
settings=(--env "metaurl=$meta" --env 'secretkey=s;e $cret' --mount "type=bind,src=$work/objects,dst=/objects,options=rbind:rw")
mount_pod=(--privileged --rootfs-propagation rshared "${settings[@]}" --env JFS_FOREGROUND=1 --env JFS_INSIDE_CONTAINER=1
  --mount type=tmpfs,dst=/var/jfsCache --mount "type=bind,src=$work/jfs,dst=/jfs,options=rbind:rshared")
mount --bind "$work/jfs" "$work/jfs"
mount --make-shared "$work/jfs"
at=/jfs/pvc-4a5b-qwerty
format='/usr/local/bin/juicefs format --storage=file --bucket=/objects/ --access-key=ak --secret-key="${secretkey}" ${metaurl} myvol --trash-days=0'
serve="$format
exec /bin/mount.juicefs \${metaurl} $at -o subdir=pvc-4a5b,metrics=0.0.0.0:$metaport,cache-dir=/var/jfsCache,cache-size=100,buffer-size=100"
pod mount "${mount_pod[@]}" $mount_image mount sh -c "$serve"
# As the driver looks whether it is ready, where it binds from.
await "mount of the pod" sh -c "[ \"\$(stat -c %i $work$at)\" = 1 ]"
ctr tasks ls | grep '^mount .*RUNNING' >/dev/null || fail "the mount pod did not stay in the foreground"
head -c 2000000 /dev/urandom >"$work/file"
cp "$work/file" "$work$at/file"
cmp "$work/file" "$work$at/file" || fail "other content"
# Whom it would send signals: in a pod that is the first process.
grep -qE '^ *"Pid": 1,?$' "$work$at/.config" || fail "no process in .config"
curl -fsS "http://127.0.0.1:$metaport/metrics" | grep '^juicefs_' >/dev/null || fail "no metrics"
in_pod() { ctr tasks exec --exec-id exec mount "$@"; }
in_pod sh -c "mount | grep $at | grep -q JuiceFS" || fail "the driver's look for the mount finds nothing"
in_pod stat "$at" | grep 'Inode: 1 ' >/dev/null || fail "stat says something else"
in_pod sh -c "cp /usr/local/bin/juicefs /tmp/juicefs && mv /tmp/juicefs /tmp/moved && /tmp/moved version" >/dev/null || fail "cp and mv"
in_pod bash -c '[[ -x /bin/mount.juicefs ]]' || fail "no bash"
# One more start of such a pod finds the volume as it is.
in_image "${settings[@]}" $mount_image once sh -c "$format" >/dev/null 2>"$work/format.log" || fail "formatted twice"
uuid=$(in_image $mount_image once /usr/local/bin/juicefs status "$meta" 2>/dev/null | sed -n 's/.*"UUID": "\(.*\)",/\1/p')
[ -n "$uuid" ] || fail "no UUID in status"
[ "$uuid" = "$(in_image $mount_image once /usr/local/bin/juicefs config "$meta" 2>/dev/null | sed -n 's/.*"UUID": "\(.*\)",/\1/p')" ] ||
  fail "another UUID in config"
in_image $mount_image once juicefs version | grep -E '1\.4\.[0-9]+' >/dev/null || fail "a version that the driver does not know"
for create in '' --create; do
  in_image $mount_image once sh -c "umask 000; /usr/local/bin/juicefs quota set '$meta' --path /pvc-4a5b$create --capacity 1 $create" \
    >"$work/quota.log" 2>&1 || fail "quota set $create"
done
await "quota in the pod" sh -c "[ \"\$(df --output=size -B1G $work$at | tail -n 1 | tr -d ' ')\" = 1 ]"
# As jobs that delete do, without the foreground.
in_image --privileged "${settings[@]}" --mount type=tmpfs,dst=/mnt --mount type=tmpfs,dst=/var/log --mount type=tmpfs,dst=/var/jfsCache $mount_image once sh -euc '
  mkdir /mnt/jfs
  /bin/mount.juicefs ${metaurl} /mnt/jfs -o metrics=0.0.0.0:0,cache-dir=/var/jfsCache
  ls -d /mnt/jfs/pvc-4a5b /mnt/jfs/pvc-4a5b--create
  umount /mnt/jfs' >"$work/job.log" 2>&1 || fail "no mount in a job"
# Before the pod stops.
in_pod sh -c "umount $at -l && rmdir $at" || fail "the driver's unmount"
await "end of the mount pod" sh -c "ctr tasks ls | grep -q '^mount .*STOPPED'"
ctr tasks rm mount || fail "the mount pod ended badly"
ctr containers rm mount

pod mount "${mount_pod[@]}" $mount_image mount sh -c "$serve"
await "the mount again" cmp "$work/file" "$work$at/file"
ends mount
mountpoint -q "$work$at" && fail "SIGTERM leaves the mount"
echo "all is well"
