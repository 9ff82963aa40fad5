#!/usr/bin/env bash
# Tests of deploy/systemd/ciderfs-unit: what the program gets, the guard of a mount point.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'chattr -R -i "$work" 2>/dev/null || true; umount -q "$work/guarded" 2>/dev/null || true; rm -rf "$work"' EXIT
unit=systemd/ciderfs-unit
shellcheck "$unit" systemd/generate.sh
failures=0
# `same WHAT GOT WANT`
same() {
  [ "$2" = "$3" ] && return
  echo "FAILED: $1: $2, not $3" >&2
  failures=$((failures + 1))
}

# Says how it was called, as others see it, and which password it has.
cat >"$work/program" <<'SH'
#!/bin/sh
tr '\0' ' ' </proc/$$/cmdline | sed "s|^/bin/sh $0 ||; s| $||"
echo
echo "password=${META_PASSWORD-none} left=${META_URL-}${REDIS_URL-}"
SH
chmod +x "$work/program"

# `run URL`: how the program is called with it in REDIS_URL.
run() { env -i PATH="$PATH" REDIS_URL="$1" "$unit" run "$work/program" mount --foreground @META_URL@ /mnt; }
called() { same "$1" "$(run "$1")" "mount --foreground $2 /mnt
password=$3 left="; }
called 'redis://:planted@10.0.0.1:6379/1' 'redis://10.0.0.1:6379/1' planted
called 'redis://ann:pla%40nt%2Fed%25@h/1' 'redis://ann@h/1' 'pla@nt/ed%'
called 'rediss://:p@l:a@h1,h2:26379/1?max-retries=3' 'rediss://h1,h2:26379/1?max-retries=3' 'p@l:a'
called 'postgres://ann:planted@h/db' 'postgres://ann@h/db' planted
called 'redis://h:6379/1' 'redis://h:6379/1' none
called 'redis://ann@h/1' 'redis://ann@h/1' none
called 'sqlite3:///srv/a:b@c.db' 'sqlite3:///srv/a:b@c.db' none
called 'unix:///run/redis.sock?db=1' 'unix:///run/redis.sock?db=1' none

# A credential is asked first, then META_URL.
echo 'redis://:planted@credential/1' >"$work/meta-url"
got=$(env -i PATH="$PATH" CREDENTIALS_DIRECTORY="$work" META_URL=redis://other/1 "$unit" run "$work/program" @META_URL@)
same credential "$got" "redis://credential/1
password=planted left="
got=$(env -i PATH="$PATH" META_URL=redis://one/1 REDIS_URL=redis://two/1 "$unit" run "$work/program" @META_URL@)
same META_URL "$got" "redis://one/1
password=none left="

bucket() { env -i PATH="$PATH" "$@" "$unit" run "$work/program" format @BUCKET@ 2>&1 | head -n 1; }
same "a name" "$(bucket BUCKET=b ENDPOINT=https://s3.gra.io.cloud.ovh.net)" "format --bucket b --endpoint https://s3.gra.io.cloud.ovh.net"
same "a URL" "$(bucket BUCKET=https://b.s3.gra.io.cloud.ovh.net ENDPOINT=other)" "format --bucket https://b.s3.gra.io.cloud.ovh.net"
same "a bare name" "$(bucket BUCKET=b)" \
  "ciderfs-unit: BUCKET is a bare name, which says nothing of where it is: set ENDPOINT too, or give BUCKET as a URL"
same "no bucket" "$(bucket A=b | cut -d: -f1-2)" "ciderfs-unit: no bucket"
rc=0
env -i PATH="$PATH" "$unit" run "$work/program" @META_URL@ 2>"$work/said" || rc=$?
same "no address" "$rc $(cut -d: -f2 "$work/said")" "78  no address of the metadata"
rc=0
"$unit" nonsense 2>/dev/null || rc=$?
same "no command" "$rc" 78

# --- Guard ---
at="$work/guarded"
"$unit" guard "$at" 2>"$work/said"
same "mode" "$(stat -c %a:%u "$at")" 555:0
# The file system of the test may not have the attribute; then the guard says so.
if lsattr -d "$at" 2>/dev/null | cut -d' ' -f1 | grep -q i; then
  touch "$at/file" 2>/dev/null && same "a write of root" written refused
else
  same "what it says" "$(grep -c 'no immutable attribute' "$work/said")" 1
fi
# Again, and below a mount, whose root stays as it is.
"$unit" guard "$at" 2>/dev/null
mount -t tmpfs -o mode=1777 ciderfs-test "$at"
"$unit" guard "$at" 2>/dev/null
same "mode of what is mounted" "$(stat -c %a "$at")" 1777
# What is none of ours stays.
"$unit" detach "$at"
same "a mount of others" "$(findmnt -no FSTYPE "$at")" tmpfs
umount "$at"
"$unit" detach "$at"
ln -s "$work" "$work/link"
rc=0
"$unit" guard "$work/link" 2>/dev/null || rc=$?
same "a symbolic link" "$rc" 78
# Full of things that would be hidden: told.
mkdir "$work/full" && touch "$work/full/x"
same "a full directory" "$("$unit" guard "$work/full" 2>&1 | grep -c 'is not empty')" 1

exit $((failures > 0))
