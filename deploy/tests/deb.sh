#!/usr/bin/env bash
# Installs the Debian package in a clean system, mounts a volume with it, and removes it again.
#   deploy/tests/deb.sh target/debian/ciderfs_VERSION_ARCH.deb
# Needs root, /dev/fuse and a Debian mirror.
set -euo pipefail
cd "$(dirname "$0")/../.."
deb=$(realpath "${1:?name the package}")
deploy/tests/setup mmdebstrap man-db
root=$(mktemp -d)
trap 'umount -l "$root/proc" "$root/dev/fuse" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }

# shellcheck disable=SC1091 # The system's own.
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
# With what the package depends on, so that its own installation needs no network.
depends=$(dpkg-deb -f "$deb" Depends | sed 's/([^)]*)//g; s/ //g')
mmdebstrap --quiet --variant=apt --include="systemd,man-db,bash-completion,procps,$depends" "$release" "$root"
cp "$deb" "$root/ciderfs.deb"
# What a container has.
mount -t proc proc "$root/proc"
touch "$root/dev/fuse"
mount --bind /dev/fuse "$root/dev/fuse"
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

inside dpkg -i /ciderfs.deb >/dev/null
echo "# installed"
inside getent group ciderfs >/dev/null || fail "no group"
[ "$(stat -c %a "$root/etc/ciderfs")" = 700 ] || fail "the settings are open to others"
inside ciderfs version
inside man ciderfs | grep -q -- --cache-size || fail "no manual page"
inside bash -c 'source /usr/share/bash-completion/completions/ciderfs && complete -p ciderfs' >/dev/null || fail "no completions"
for unit in ciderfs@mnt-data ciderfs-format@mnt-data ciderfs-guard@mnt-data; do
  said=$(inside systemd-analyze verify "/usr/lib/systemd/system/${unit%%@*}@.service" 2>&1) || true
  [ -z "$said" ] || fail "$unit: $said"
done

echo "# a volume"
inside ciderfs format --quiet sqlite3:///srv/meta.db vol --bucket /srv/objects
inside mount -t ciderfs sqlite3:///srv/meta.db /mnt/data -o metrics=,cache-dir=memory
inside bash -euc 'head -c 3000000 /dev/urandom > /srv/file; cp /srv/file /mnt/data/file; sync /mnt/data/file; cmp /srv/file /mnt/data/file'
inside ciderfs umount /mnt/data
inside mount -t ciderfs sqlite3:///srv/meta.db /mnt/data -o metrics=,cache-dir=memory
inside cmp /srv/file /mnt/data/file
inside umount /mnt/data
# The mount ends its session last.
for _ in $(seq 300); do
  if ! inside ciderfs status sqlite3:///srv/meta.db | grep -q '"Sid"'; then break; fi
  sleep 0.1
done

echo "# removed"
inside apt-get -o Dpkg::Use-Pty=0 remove -y -qq ciderfs >/dev/null
[ -z "$(find "$root/usr" -path '*ciderfs*' -print -quit)" ] || fail "left behind: $(find "$root/usr" -path '*ciderfs*' | head)"
[ -e "$root/etc/ciderfs/README" ] || fail "the settings went with the program"
inside apt-get -o Dpkg::Use-Pty=0 purge -y -qq ciderfs >/dev/null
[ ! -e "$root/etc/ciderfs/README" ] || fail "the settings outlive the purge"
[ -s "$root/srv/meta.db" ] || fail "the volume went with the program"
echo "all is well"
