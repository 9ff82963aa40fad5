#!/usr/bin/env bash
# `ciderfs upgrade` under load, from the program of the last commit to the one of this tree. The last commit is built with the
# dependencies that are built here, so that only our own crates take time: a minute or two. `upgrade.sh build` does no more than that.
# Needs root and /dev/fuse.
set -euo pipefail
cd "$(dirname "$0")/../.."
deploy/tests/setup git shellcheck
shellcheck deploy/tests/upgrade.sh
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
previous=$target/previous

# Whoever owns the tree.
repository() { git -c safe.directory='*' "$@"; }
# The commit before this one. A shallow clone must fetch it.
last() {
  repository rev-parse --quiet --verify 'HEAD^1^{commit}' && return
  repository fetch --quiet --depth=2 origin "$(repository rev-parse HEAD)" || return
  repository rev-parse --quiet --verify 'HEAD^1^{commit}'
}
# With a test, for the features of the dependencies that `cargo test` has built. Not in the same target directory: cargo would take the crates of one tree for those of the other one.
build() {
  local part
  rm -rf "$previous"
  mkdir -p "$previous/tree" "$previous/target/debug"/{.fingerprint,build,deps}
  repository archive "$1" | tar -xC "$previous/tree"
  for part in .fingerprint build; do
    find "$target/debug/$part" -mindepth 1 -maxdepth 1 ! -name '*ciderfs*' ! -name 'xtask*' \
      -exec cp -a -t "$previous/target/debug/$part" {} +
  done
  find "$target/debug/deps" -maxdepth 1 \( -name 'lib*' -o -name '*.d' \) ! -name '*ciderfs*' \
    -exec cp -al -t "$previous/target/debug/deps" {} +
  (cd "$previous/tree" && CARGO_TARGET_DIR=$previous/target CARGO_INCREMENTAL=0 \
    cargo build --workspace --locked --bin ciderfs --test supervised)
  mv "$previous/target/debug/ciderfs" "$previous/ciderfs"
  rm -rf "$previous/tree" "$previous/target"
  echo "$1" >"$previous/commit"
}

if commit=$(last); then
  echo "# From the program of $commit"
  if [ "$(cat "$previous/commit" 2>/dev/null)" != "$commit" ]; then build "$commit"; fi
  export CIDERFS_TEST_EARLIER=$previous/ciderfs
elif [ "${1:-}" != build ]; then
  echo "# WARNING: there is no commit before this one, and it cannot be fetched: this program is upgraded to itself" >&2
fi
if [ "${1:-}" = build ]; then exit; fi
cargo test --workspace --locked --test supervised -- --exact an_upgrade_under_load
