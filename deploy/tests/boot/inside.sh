# For the scripts that run inside a machine as a unit of their own, which sees what other programs see. What fails is in /out/failed.
exec >>/out/log 2>&1
set -x
failed() { echo "$*" >>/out/failed; }
# `expect WHAT COMMAND...`
expect() {
  local what=$1
  shift
  "$@" || failed "$what: $*"
}
refuse() {
  local what=$1
  shift
  ! "$@" || failed "$what: $* succeeds"
}
# `await SECONDS COMMAND...`
await() {
  local left=$(($1 * 5))
  shift
  until "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { failed "in vain: $*"; return 1; }
    sleep 0.2
  done
}
is_active() { [ "$(systemctl is-active "$1")" = active ]; }
is_mounted() { grep -q " $1 .* - fuse" /proc/self/mountinfo; }
property() { systemctl show -P "$2" "$1"; }
# Content that is on stable storage when this returns.
store() { dd if=/dev/urandom of="$1" bs=1M count="${2:-4}" conv=fsync status=none && sha256sum <"$1" >"$1.sum" && sync "$1.sum"; }
is_whole() { [ "$(sha256sum <"$1")" = "$(cat "$1.sum")" ]; }
tell() { touch "/shared/$1"; }
told() { [ -e "/shared/$1" ]; }
# Nobody but the client and the manager of the machine knows what is in /out/secrets, one a line. The access key among it, which is in
# /out/names, is a name: .config and what format says show it, as those of the official client do.
keeps() {
  local list=/out/secrets pid secrets
  for pid in /proc/[0-9]*; do
    [ "$pid" != /proc/1 ] || continue
    if tr '\0' '\n' <"$pid/cmdline" 2>/dev/null | grep -qF -f "$list"; then
      failed "a secret is in the command line of $(cat "$pid/comm")"
    fi
    if grep -qs '/ciderfs' "$pid/cgroup"; then continue; fi
    if grep -qsaF -f "$list" "$pid/environ"; then failed "a secret is in the environment of $(cat "$pid/comm")"; fi
  done
  refuse "ps" bash -c 'ps -eww -o args | grep -F -f "$0"' "$list"
  refuse "systemctl show" bash -c 'systemctl show "ciderfs*" "redis*" | grep -F -f "$0"' "$list"
  secrets=$(grep -vxF -f /out/names "$list")
  refuse "the journal" bash -c 'journalctl --no-pager -o verbose --all | grep -aF -- "$0"' "$secrets"
  refuse "unit files" grep -rsF -f "$list" /etc/systemd/system /run/systemd/generator /run/systemd/transient
  refuse "logs" grep -raF -- "$secrets" /var/log
  refuse "tables of mounts" grep -F -f "$list" /proc/self/mountinfo /run/mount/utab
  refuse "numbers of the mount" grep -F -f "$list" /mnt/juicefs/.stats
  refuse ".config of the mount" grep -F -- "$secrets" /mnt/juicefs/.config
}
# What validate.sh says of this machine: `validates [TEXT]`; with TEXT it must find that.
validates() {
  if [ $# -eq 0 ]; then
    expect "validate.sh" bash -c 'CIDERFS=/usr/bin/ciderfs bash /out/validate.sh --live'
  else
    expect "validate.sh tells: $1" bash -c 'CIDERFS=/usr/bin/ciderfs bash /out/validate.sh --live | tee /dev/stderr | grep -F -- "$0"' "$1"
  fi
}
