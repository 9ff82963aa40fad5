#!/usr/bin/env bash
# Tests of the Nix files and the units: syntax, evaluation of modules, examples and flake, what systemd says of the units, secrets.
# Needs root for the first run, which installs the tools, and no network after it.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export NIX_STATE_DIR=$work/nix NIX_REMOTE=dummy://
failures=0
fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}
evaluate() { nix-instantiate --eval --strict --json "$@"; }

echo "# Syntax"
count=0
while IFS= read -r file; do
  nix-instantiate --parse "$file" >/dev/null || fail "$file does not parse"
  count=$((count + 1))
done < <(find .. -maxdepth 1 -name '*.nix'; find . -name '*.nix')
echo "$count files"
[ "$count" -ge 20 ] || fail "only $count Nix files were found"

echo "# Modules and examples"
evaluate -A problems tests/nix/cases.nix >"$work/problems.json"
python3 - "$work/problems.json" <<'PY' || fail "cases of tests/nix/cases.nix"
import json, sys
cases = json.load(open(sys.argv[1]))
bad = {name: found for name, found in cases.items() if found}
for name, found in bad.items():
    print(f"{name}:", *found, sep="\n    ", file=sys.stderr)
print(len(cases), "cases")
sys.exit(bool(bad) or len(cases) < 20)
PY
for name in $(evaluate -E 'builtins.attrNames (import ./tests/nix/cases.nix).throws' | tr -d '[]"' | tr , ' '); do
  text=$(evaluate -A "throws.$name.text" tests/nix/cases.nix | python3 -c 'import json, sys; print(json.load(sys.stdin))')
  if said=$(evaluate -A "throws.$name.value" tests/nix/cases.nix 2>&1); then
    fail "$name: it evaluates"
  else
    grep -qF -- "$text" <<<"$said" || fail "$name: no such text ($text): $said"
  fi
done

echo "# Pages"
count=0
while IFS= read -r block; do
  found=$(evaluate -E "let ciderfs.nixosModules.default = ./nixos/modules/ciderfs.nix; e = import ./tests/nix/eval.nix { modules = [ (import $block ciderfs) ]; };
    in e.failed ++ e.config.warnings ++ (if e.units == { } then [ \"no units\" ] else [ ])" 2>&1) || true
  [ "$found" = "[]" ] || fail "a block of $(basename "$block"): $found"
  count=$((count + 1))
done < <(python3 - "$work" ../README.md ../docs/*.md README.md <<'PY'
import pathlib, re, sys
for page in map(pathlib.Path, sys.argv[2:]):
    for number, block in enumerate(re.findall(r"^```nix\n(.*?)^```", page.read_text(), re.M | re.S)):
        path = pathlib.Path(sys.argv[1], f"{page.resolve().parent.name}-{page.stem}-{number}.nix")
        path.write_text(f"ciderfs: {block}")
        print(path)
PY
)
echo "$count machines"
[ "$count" -ge 2 ] || fail "only $count machines were found in pages"

echo "# Flake and default.nix"
evaluate tests/nix/flake.nix >"$work/flake.json"
python3 - "$work/flake.json" <<'PY' || fail "tests/nix/flake.nix"
import json, sys
bad = {name: found for name, found in json.load(open(sys.argv[1])).items() if found}
for name, found in bad.items():
    print(f"{name}: {found}", file=sys.stderr)
sys.exit(bool(bad))
PY

# Writes the text of units into a directory: `write DIRECTORY EXPRESSION`.
write() {
  mkdir -p "$1"
  evaluate -E "$2" | python3 -c '
import json, pathlib, sys
for name, text in json.load(sys.stdin).items():
    pathlib.Path(sys.argv[1], name).write_text(text)
' "$1"
}

echo "# Plain units"
mkdir "$work/plain"
systemd/generate.sh "$work/plain"
[ "$(cd "$work/plain" && echo *)" = "$(cd systemd && echo *.service)" ] || fail "deploy/systemd has other units than its source"
for unit in systemd/*.service; do
  diff -u "$unit" "$work/plain/${unit##*/}" || fail "$unit is not what its source says: run deploy/systemd/generate.sh"
done

echo "# systemd"
# A machine with the units, and programs where they are looked for.
root=$work/root
units=$root/etc/systemd/system
mkdir -p "$units" "$root"/{bin,usr/bin,usr/lib/ciderfs,lib/systemd}
cp -r /lib/systemd/system "$root/lib/systemd/"
cp /bin/true "$root/usr/bin/ciderfs"
cp systemd/ciderfs-unit "$root/usr/lib/ciderfs/"
cp /bin/kill /bin/systemctl "$root/bin/"
cp systemd/*.service "$units/"
for package in ciderfs coreutils systemd; do
  mkdir -p "$root/nix/store/stand-in-$package"/{bin,lib/ciderfs}
done
cp /bin/true "$root/nix/store/stand-in-ciderfs/bin/ciderfs"
cp systemd/ciderfs-unit "$root/nix/store/stand-in-ciderfs/lib/ciderfs/"
cp /bin/kill "$root/nix/store/stand-in-coreutils/bin/"
cp /bin/systemctl "$root/nix/store/stand-in-systemd/bin/"
# NixOS makes this one.
printf '[Service]\nExecStart=/usr/bin/ciderfs\n' >"$root/lib/systemd/system/redis-juicefs.service"
# Another machine for each set of units of the same names.
for who in m a secret; do
  case $who in
    secret) of="(import ./tests/nix/cases.nix).secret \"/etc/planted\"" ;;
    *) of="(import ./tests/nix/cases.nix).$who" ;;
  esac
  write "$work/units-$who" "($of).units"
done
write "$work/units-doors" '(import ./tests/nix/eval.nix { modules = [ ./nixos/modules/ciderfs.nix { services.ciderfs = { enable = true; filesystems.vol = {
  metaUrl = "redis://h/1"; mountPoint = "/mnt/a-b"; gateway.enable = true; webdav.enable = true; }; }; } ]; }).units'

# Whatever is wrong with a unit is on standard error; the exit code says less.
verify() { systemd-analyze verify --man=no --root="$root" "$@" 2>&1 || echo "exit code $?"; }
said=$(verify ciderfs@mnt-juicefs.service ciderfs-format@mnt-juicefs.service ciderfs-guard@mnt-juicefs.service)
[ -z "$said" ] || fail "systemd-analyze verify: $said"
for who in m a secret doors; do
  rm -f "$units"/*.service
  cp "$work/units-$who"/*.service "$units/"
  mapfile -t names < <(cd "$units" && ls)
  said=$(verify "${names[@]}")
  [ -z "$said" ] || fail "systemd-analyze verify, units of $who: $said"
done
# It does see what is wrong.
for wrong in 's/^Type=notify/Type=notifying/' 's/^KillMode=/KilMode=/' 's|^ExecStart=/|ExecStart=/no/such|'; do
  sed "$wrong" "$work/units-m/ciderfs-k3s-storage.service" >"$units/ciderfs-k3s-storage.service"
  said=$(verify ciderfs-k3s-storage.service)
  [ -n "$said" ] || fail "systemd-analyze verify overlooks $wrong"
done

# The bounds are where the units are: whoever loosens one sees it here.
secure() {
  SYSTEMD_COLORS=0 systemd-analyze security --no-pager --offline=true --threshold="$1" "$2" >"$work/security" 2>&1 ||
    fail "systemd-analyze security: ${2##*/} is beyond $1: $(tail -n 1 "$work/security")"
}
for dir in systemd "$work/units-m" "$work/units-secret" "$work/units-doors"; do
  for unit in "$dir"/*.service; do
    case ${unit##*/} in
      ciderfs-format*) secure 30 "$unit" ;;
      ciderfs-guard*) secure 35 "$unit" ;;
      ciderfs-gateway* | ciderfs-webdav*) secure 20 "$unit" ;;
      *) secure 54 "$unit" ;;
    esac
  done
done

echo "# Secrets"
planted=planted-$RANDOM$RANDOM
mkdir "$work/planted"
for file in env access-key secret-key session-token meta-password key.pem passphrase; do
  echo "$planted-$file" >"$work/planted/$file"
done
evaluate -E "((import ./tests/nix/cases.nix).secret \"$work/planted\").shown" >"$work/secret.json"
write "$work/planted-units" "((import ./tests/nix/cases.nix).secret \"$work/planted\").units"
grep -q "$work/planted/secret-key" "$work/secret.json" || fail "the evaluated machine does not name its credentials"
for unit in ciderfs-vol ciderfs-format-vol; do
  for file in access-key secret-key session-token meta-password passphrase; do
    grep -q "^LoadCredential=.*:$work/planted/$file$" "$work/planted-units/$unit.service" || fail "$unit does not load $file"
  done
  grep -q "^EnvironmentFile=$work/planted/env$" "$work/planted-units/$unit.service" || fail "$unit does not read its environment"
done
if grep -r "$planted" "$work/secret.json" "$work/planted-units"; then
  fail "a secret is in what Nix makes"
fi
if grep -rE "$planted" "${NIX_STORE_DIR:-/nix/store}" 2>/dev/null; then fail "a secret is in the store"; fi
tests/launcher.sh || fail "tests/launcher.sh"

[ "$failures" -eq 0 ] || { echo "$failures failures" >&2; exit 1; }
echo "all is well"
