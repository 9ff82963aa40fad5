# Words for the comments of pages (<!-- test: ... -->), which are run between their blocks.
# shellcheck shell=sh
set -eu
# `until_true COMMAND...`: at most 30 seconds.
until_true() {
  tries=600
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "waited in vain: $*" >&2; exit 1; }
    sleep 0.05
  done
}
is_mounted() { awk -v at="$1" '$5 == at && / - fuse/ { found = 1 } END { exit !found }' /proc/self/mountinfo; }
no() { ! "$@"; }
# `answers HOST PORT`
answers() { python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)' "$1" "$2" 2>/dev/null; }
# `store ACCESS_KEY SECRET_KEY [PORT]`: an object store at 127.0.0.1 that takes this key; in the place of an earlier one, whose objects
# it has.
store() {
  port=${3:-9000}
  [ ! -f "$STAGE/store" ] || { kill "$(cat "$STAGE/store")"; until_true no answers 127.0.0.1 "$port"; }
  DOCUMENTS_STORE="$port $1 $2 $STAGE/buckets" "$STAGE/bin/documents" --quiet --ignored --exact an_object_store_for_pages >/dev/null &
  echo $! >"$STAGE/store"
  until_true answers 127.0.0.1 "$port"
}
