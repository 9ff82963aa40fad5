#!/usr/bin/env bash
# Checks this tree, and with --live the machine it runs on, for what has gone wrong in such set-ups before.
#
#   validate.sh [TREE]
#   validate.sh --live [--env-file FILE] [--mount-point DIR]
#
# Exit code: 0 all is well, 1 something is wrong (one line each), 2 bad arguments. The tree is checked without the network. With
# nix-instantiate the examples are evaluated too; CIDERFS=/path/to/ciderfs has the flags checked against that program.
set -uo pipefail

live=false tree='' env_file='' mount_point=''
while [ $# -gt 0 ]; do
  case $1 in
    --live) live=true ;;
    --env-file | --mount-point)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
      if [ "$1" = --env-file ]; then env_file=$2; else mount_point=$2; fi
      shift
      ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "no such option: $1" >&2; exit 2 ;;
    *) tree=$1 ;;
  esac
  shift
done

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
# One line each: many are found in subshells.
: >"$work/failures"
ok() { echo "ok: $*"; }
note() { echo "note: $*"; }
wrong() { echo "FAILED: $*" | tee -a "$work/failures"; }
is_well() { [ ! -s "$work/failures" ]; }
defect() { wrong "defect $1: $2"; }

# --- The tree ------------------------------------------------------------------------------------------------------------------

# Files of the deployment, without those that test it.
files() { find deploy flake.nix default.nix -type f \( "$@" \) ! -path 'deploy/tests/*' ! -path 'deploy/validate/*' 2>/dev/null; }

# Lines FILE:TEXT without comments.
code() {
  while IFS= read -r file; do
    sed -E "s/(^|[[:space:]])#.*//; /^[[:space:]]*$/d; s|^|$file:|" "$file"
  done
}

# Every line of the input is a finding.
found() {
  while IFS= read -r line; do defect "$1" "$2: $line"; done
}

names_of_flags() {
  if [ -n "${CIDERFS:-}" ]; then
    for command in format mount umount; do "$CIDERFS" "$command" --help; done | grep -oE -- '--[a-z][a-z0-9-]*' | sed 's/^--//'
  elif [ -d crates/ciderfs/src ]; then
    find crates/ciderfs/src \( -name flags.rs -o -path '*/cli/*.rs' \) -exec grep -hoE '"[a-z][a-z0-9-]*"' {} + | tr -d '"'
  fi
}

# A JSON list of texts, one a line.
texts() {
  sed 's/^\["//; s/"\]$//; s/^\[\]$//; s/","/\n/g; s/\\"/"/g'
  echo
}

check_flags() {
  local known
  known=$(names_of_flags | sort -u)
  if [ -z "$known" ]; then
    note "no client to ask for its flags: set CIDERFS"
    return
  fi
  {
    # The program's own words, in plain units and in what makes units.
    files -name '*.service' | code | grep -E ':Exec[A-Za-z]+=' | grep -E '/ciderfs ' | sed -E 's|^([^:]*:).* ?/?[^ ]*/ciderfs |\1|'
    [ ! -s "$work/exec" ] || cat "$work/exec"
    files -path '*/modules/*.nix' -o -path '*/systems/*.nix' | code | grep -oE '^[^:]*:|"--[a-z][a-z0-9-]*[" =]' |
      awk '/:$/ { file = $0; next } { print file " " $0 }'
  } | while IFS=: read -r file words; do
    grep -oE -- '--[a-z][a-z0-9-]*' <<<"$words" | sort -u | while IFS= read -r flag; do
      grep -qxF -- "${flag#--}" <<<"$known" || echo "$file has $flag"
    done
  done | sort -u | found 1 "the client has no such flag"
}

check_units() {
  local unit
  for unit in deploy/systemd/ciderfs*.service; do
    [ -e "$unit" ] || { wrong "there are no plain units in deploy/systemd"; return; }
    local text
    text=$(code <<<"$unit" | cut -d: -f2-)
    has() { grep -qE -- "$1" <<<"$text"; }
    if has '^ExecStartPre=.*(export|ACCESS_KEY|SECRET_KEY|access-key|secret-key)'; then
      defect 2 "$unit reads keys in ExecStartPre, whose environment no other line gets: use LoadCredential"
    fi
    if has '^Environment=.*(SECRET_KEY|ACCESS_KEY|SESSION_TOKEN|META_PASSWORD)=[^"]'; then
      defect 3 "$unit holds a secret, which everybody can read"
    fi
    case $unit in
      *-guard@*) continue ;;
      *-format@*)
        has '^ExecStart=.* format .*--if-absent' ||
          defect 10 "$unit formats without --if-absent, so it cannot tell an absent volume from an unreachable one"
        ;;
      *)
        has '^EnvironmentFile=' || has '^LoadCredential=secret-key' || defect 5 "$unit has no credentials"
        if ! has '^Type=notify' || ! has '^ExecStart=.* mount --foreground' || has '^ExecStart=.* (--background|-d) '; then
          defect 8 "$unit is not run in the foreground with Type=notify, so it counts as active without a mount"
        fi
        has '^ExecStop=.*umount --flush' || defect 9 "$unit does not flush when it stops: ExecStop must be \`ciderfs umount --flush\`"
        ;;
    esac
    if ! has '^After=.*network-online\.target' || ! has '^Wants=.*network-online\.target'; then
      defect 7 "$unit does not wait for network-online.target"
    fi
    has '^After=.*redis' || defect 7 "$unit does not wait for the Redis of this machine"
  done
}

check_nix_text() {
  files -name '*.nix' | code >"$work/nix"
  grep -E 'ExecStartPre.*export|bin/export' "$work/nix" | found 2 "keys are read by a program export, which does not exist: use LoadCredential"
  grep -E '(accessKey|secretKey|sessionToken|password|metaPassword)[[:space:]]*=[[:space:]]*"[^"]' "$work/nix" |
    found 3 "a literal secret gets into the Nix store, where everybody can read it"
  grep -E '"[a-z]+://[^"/]*:[^"/@]+@' "$work/nix" | found 3 "a password in an address gets into the Nix store, where everybody can read it"
  grep -E 'protected-mode"?[[:space:]]*=[[:space:]]*("no"|false)' "$work/nix" | found 6 "Redis has its protected mode off"
  grep -E 'Type[[:space:]]*=[[:space:]]*"forking"|"--background"[[:space:]]*(\]|;)' "$work/nix" | grep -v 'lib.elem' |
    found 8 "a client in the background counts as active without a mount"
  grep -E 'tmpfiles' "$work/nix" | found 11 "tmpfiles would change the mounted root at every switch: leave the mount point to the guard"
}

check_tmpfiles() {
  find deploy -path '*tmpfiles*' -name '*.conf' | code | grep -E '/mnt/|juicefs' |
    found 11 "tmpfiles would change the mounted root at every start: leave the mount point to the guard"
}

check_examples() {
  if ! command -v nix-instantiate >/dev/null; then
    note "nix-instantiate is not there (Debian: nix-bin): the examples are not evaluated"
    return
  fi
  local nix=(env NIX_STATE_DIR="$work/state" NIX_REMOTE=dummy:// nix-instantiate --eval --strict --json)
  if ! "${nix[@]}" deploy/validate/examples.nix >"$work/examples" 2>"$work/said"; then
    defect 15 "the examples cannot be evaluated: $(grep -m1 error: "$work/said" || head -n 1 "$work/said")"
    return
  fi
  texts <"$work/examples" >"$work/list"
  while read -r number text; do
    if [ -z "$number" ]; then continue; fi
    if [ "$number" = assertion ]; then wrong "assertion of $text"; else defect "$number" "$text"; fi
  done <"$work/list"
  # For the check of flags.
  # shellcheck disable=SC2016 # It is Nix.
  "${nix[@]}" -E '
    let c = import ./deploy/tests/nix/eval.nix;
        lines = file: builtins.concatLists (map (u: if u.serviceConfig ? ExecStart then [ "${baseNameOf file}:${toString u.serviceConfig.ExecStart}" ] else [ ])
          (builtins.attrValues (c { modules = [ file ]; }).config.systemd.services));
    in lines ./deploy/nixos/systems/master.nix ++ lines ./deploy/nixos/systems/agent.nix' 2>/dev/null |
    texts >"$work/exec"
}

check_imports() {
  local file path
  while IFS= read -r file; do
    code <<<"$file" | cut -d: -f2- | sed 's/"[^"]*"//g' | grep -oE '(^|[][( ;=])\.\.?/[A-Za-z0-9_./-]+' | sed -E 's/^[][( ;=]//' | sort -u |
      while IFS= read -r path; do
        [ -e "$(dirname "$file")/$path" ] || echo "$file names $path"
      done
  done < <(files -name '*.nix') | found 15 "a file that is not there"
  # What the flake takes and what it gives.
  if [ -e flake.nix ]; then
    local inputs arguments
    inputs=$(code <<<flake.nix | grep -oE 'inputs\.[A-Za-z0-9_-]+' | sed 's/inputs\.//' | sort -u)
    arguments=$(code <<<flake.nix | grep -oE 'outputs *= *\{[^}]*\}' )
    for input in $inputs; do
      grep -qE "[{, ]${input}[ ,}?]|[.]{3}" <<<"$arguments" || defect 15 "flake.nix has the input $input, which its outputs do not take"
    done
    files -name '*.nix' | code | grep -oE 'nixosModules\.[A-Za-z0-9_-]+' | sed 's/.*\.//' | sort -u | while IFS= read -r name; do
      grep -qE "(^|[ {])\"?$name\"? *= " flake.nix || echo "$name"
    done | found 15 "the flake exports no such module"
  fi
}

check_manifests() {
  files -path '*/manifests/*' -o -path '*/helm/*' -o -path '*/kubernetes/*' >"$work/manifests"
  local file
  while IFS= read -r file; do
    if grep -q 'juicefs-csi-driver' "$file"; then
      code <<<"$file" | cut -d: -f2- | awk -v file="$file" '
        /^[[:space:]]*"?backend"?[[:space:]]*(:|=)/ { backend = 6 }
        backend-- > 0 && /endpoint/ { print file " sets backend.endpoint" }
        /^[[:space:]]*"?redis"?(:|[[:space:]]*=|\.enabled)/ { print file " sets redis" }' |
        found 12 "the chart juicefs-csi-driver has no such value and ignores it"
    fi
    if grep -q 'node-role.kubernetes.io/master' "$file" && ! grep -q 'node-role.kubernetes.io/control-plane' "$file"; then
      defect 16 "$file tolerates node-role.kubernetes.io/master only; the taint of today is node-role.kubernetes.io/control-plane: tolerate both"
    fi
    if code <<<"$file" | grep -qE 'defaultDataPath[^/]*/mnt/juicefs' && ! files -name '*.nix' | code | grep -qE 'ciderfs\.disks|ciderfs-disk'; then
      defect 14 "$file has Longhorn keep its data directly on FUSE, where no replica starts and all nodes share one disk: give each node an image"
    fi
  done <"$work/manifests"
  code <"$work/manifests" | grep -E 'guaranteed(Engine|Replica)ManagerCPU' | found 13 "Longhorn has no such setting any more; it is guaranteedInstanceManagerCPU"
  for file in deploy/helm/*/Chart.yaml; do
    [ -e "$file" ] || continue
    grep -q '"additionalProperties": *false' "$(dirname "$file")/values.schema.json" 2>/dev/null ||
      defect 12 "$(dirname "$file") has no values.schema.json that refuses unknown values"
  done
}

check_docs() {
  { ls README.md docs/*.md; find deploy -name '*.md'; } 2>/dev/null | while IFS= read -r file; do
    grep -niE 'multi-region|span[a-z]*( [a-z]+)? regions' "$file" | grep -viE ' not |cannot|never| one region' | sed "s|^|$file:|"
  done | found 17 "a volume has one bucket, and a bucket one region"
}

check_template() {
  local template=deploy/env/ciderfs.env.example name value
  [ -e "$template" ] || { wrong "$template is not there"; return; }
  for name in ACCESS_KEY SECRET_KEY ENDPOINT BUCKET REDIS_URL; do
    grep -qE "^#?$name=" "$template" || wrong "$template lacks $name"
  done
  grep -vE '^(#.*|[A-Z_]+=.*|)$' "$template" | while IFS= read -r value; do echo "$value"; done | found 5 "$template has a line that is no NAME=VALUE"
  for name in ACCESS_KEY SECRET_KEY SESSION_TOKEN META_PASSWORD; do
    value=$(sed -n "s/^$name=//p" "$template")
    [ -z "$value" ] || defect 3 "$template has a value for $name"
  done
}

check_tree() {
  cd "$1" || exit 2
  [ -d deploy ] || { echo "$1 is no tree of CiderFS" >&2; exit 2; }
  : >"$work/exec"
  check_examples
  check_flags
  check_units
  check_nix_text
  check_tmpfiles
  check_imports
  check_manifests
  check_docs
  check_template
  ! is_well || ok "the tree"
}

# --- This machine --------------------------------------------------------------------------------------------------------------

# The kernel's line of a mount, as the first process sees it.
mounted() { awk -v at="$1" '$5 == at { print }' /proc/1/mountinfo; }

value_of() { sed -n "s/^$2=//p" "$1" | tail -n 1 | sed "s/^[\"']//; s/[\"']\$//"; }

# Are keys given as files instead?
has_key_files() {
  find /etc/credstore /run/credstore -name 'ciderfs.*.secret-key' 2>/dev/null | grep -q . ||
    { [ -d /run/systemd/system ] && systemctl show -P LoadCredential 'ciderfs*' | grep -q 'secret-key:/'; }
}

check_env_file() {
  local file=$1 mode
  [ -e "$file" ] || { wrong "$file is not there: make it from deploy/env/ciderfs.env.example"; return; }
  mode=$(stat -c %a "$file")
  [ "$(stat -c %u "$file")" = 0 ] || wrong "$file belongs to $(stat -c %U "$file"): chown root $file"
  [ $((0$mode & 077)) -eq 0 ] || wrong "$file has mode $mode, so others can read the secrets: chmod 0600 $file"
  local bad
  bad=$(grep -cvE '^[[:space:]]*([#;].*|[A-Za-z_][A-Za-z0-9_]*=.*|)$' "$file")
  [ "$bad" -eq 0 ] || wrong "$file has $bad lines that are no NAME=VALUE, which systemd ignores"
  local name secret
  for name in ACCESS_KEY SECRET_KEY; do
    [ -n "$(value_of "$file" "$name")" ] || has_key_files || wrong "$file has no $name, and there are no key files"
  done
  for name in SECRET_KEY SESSION_TOKEN META_PASSWORD; do
    secret=$(value_of "$file" "$name")
    # A short one would be found everywhere.
    [ ${#secret} -ge 8 ] || continue
    seek "$name" "$secret"
  done
}

# Where others could read a secret.
seek() {
  local name=$1 secret=$2 pid
  for pid in /proc/[0-9]*; do
    [ "$pid" != "/proc/$$" ] || continue
    if tr '\0' ' ' <"$pid/cmdline" 2>/dev/null | grep -qF -- "$secret"; then
      wrong "$name is in the command line of process ${pid#/proc/} ($(cat "$pid/comm" 2>/dev/null)): use a file or the environment"
    fi
  done
  if grep -rlsF -- "$secret" /etc/systemd/system /run/systemd/system /usr/lib/systemd/system 2>/dev/null | grep -q .; then
    wrong "$name is in a unit file: use EnvironmentFile or LoadCredential"
  fi
  if command -v journalctl >/dev/null && journalctl -q --no-pager -n 20000 -u 'ciderfs*' 2>/dev/null | grep -qF -- "$secret"; then
    wrong "$name is in the journal: replace it"
  fi
  if [ -d /nix/store ] && ls /run/current-system >/dev/null 2>&1 && grep -rqsF -- "$secret" /run/current-system/etc 2>/dev/null; then
    wrong "$name is in the Nix store: replace it, and name a file outside"
  fi
}

check_redis() {
  local url=$1 host port rest said
  case $url in redis://*) ;; *) return ;; esac
  rest=${url#redis://}
  rest=${rest##*@}
  rest=${rest%%[/,?]*}
  host=${rest%:*} port=${rest##*:}
  [ "$port" != "$rest" ] || port=6379
  case $host in localhost | 127.* | ::1) return ;; esac
  command -v redis-cli >/dev/null || { note "redis-cli is not there: Redis is not asked"; return; }
  said=$(timeout 10 env -u REDISCLI_AUTH redis-cli -h "$host" -p "$port" ping 2>&1)
  case $said in
    *NOAUTH* | *WRONGPASS*) ok "Redis at $host:$port asks for a password" ;;
    PONG) defect 6 "Redis at $host:$port lets everybody in: set a password" ;;
    *) wrong "Redis at $host:$port does not answer: $said" ;;
  esac
}

check_mount() {
  local at=$1 line
  line=$(mounted "$at")
  if [ -z "$line" ]; then
    wrong "nothing is mounted at $at that other processes see"
    [ ! -d "$at" ] || [ "$(stat -c %a "$at")" = 555 ] ||
      wrong "$at is open while nothing is mounted (mode $(stat -c %a "$at")): programs fill the local disk"
    return
  fi
  case $line in
    *' - fuse'*) ;;
    *) wrong "$at is no mount of CiderFS: $line"; return ;;
  esac
  if timeout 10 stat "$at" >/dev/null 2>&1; then ok "$at is mounted and answers"; else wrong "$at is mounted and does not answer"; fi
}

check_live() {
  [ "$(id -u)" = 0 ] || { echo "--live needs root" >&2; exit 2; }
  [ -c /dev/fuse ] || wrong "there is no /dev/fuse: modprobe fuse"
  local unit units='' state file at
  if [ -d /run/systemd/system ]; then
    units=$(systemctl list-units --all --plain --no-legend 'ciderfs*.service' | awk '{ print $1 }')
    [ -n "$units" ] || [ -n "$mount_point" ] || wrong "there are no units of CiderFS on this machine"
    for unit in $units; do
      state=$(systemctl show -P ActiveState "$unit")
      [ "$state" = active ] || wrong "$unit is $state: systemctl status $unit"
      for file in $(systemctl show -P EnvironmentFiles "$unit" | sed 's/ (ignore_errors=.*//'); do
        [ -n "$env_file" ] || env_file=$file
      done
      case $unit in
        ciderfs-guard* | ciderfs-format* | ciderfs-gateway* | ciderfs-webdav*) continue ;;
      esac
      [ "$(systemctl show -P Type "$unit")" = notify ] || defect 8 "$unit is not of Type=notify"
      at=$(systemctl show -P ExecStop "$unit" | sed -n 's/.*argv\[\]=[^;]* \([^ ;]*\) ;.*/\1/p')
      [ -z "$at" ] || check_mount "$at"
    done
  else
    note "systemd does not run here: units are not checked"
  fi
  [ -z "$mount_point" ] || check_mount "$mount_point"
  if [ -n "$env_file" ]; then
    check_env_file "$env_file"
    if [ -e "$env_file" ]; then
      at=$(value_of "$env_file" META_URL)
      check_redis "${at:-$(value_of "$env_file" REDIS_URL)}"
      local program=${CIDERFS:-$(command -v ciderfs || true)}
      if [ -n "$program" ]; then
        # A password that the units take from a credential.
        local password=()
        at=$(systemctl cat 'ciderfs*' 2>/dev/null | sed -n 's|^LoadCredential=meta-password:\(/.*\)|\1|p' | head -n 1)
        if [ -r "$at" ]; then password=(--meta-password-file "$at"); fi
        "$program" doctor "${password[@]}" --env-file "$env_file" || wrong "ciderfs doctor found what its lines say"
      else
        note "ciderfs is not in PATH: doctor is not asked"
      fi
    fi
  fi
  ! is_well || ok "this machine"
}

if $live; then check_live; else check_tree "${tree:-$(dirname "$0")/../..}"; fi
is_well || { echo "$(wc -l <"$work/failures") found" >&2; exit 1; }
