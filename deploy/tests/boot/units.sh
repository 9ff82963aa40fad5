# Clients of a mounter as units of their own. Part of plain.sh.
mkdir -p /run/ask
cat >/run/ask/ask.py <<'PYTHON'
"""Asks the mounter what is on standard input, and prints what stands at the end of those keys in its answer."""
import json, socket, struct, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect("/run/ciderfs/mounter/mounter.sock")
    text = sys.stdin.buffer.read()
    s.sendall(struct.pack(">I", len(text)) + text)
    answer = s.makefile("rb")
    said = json.loads(answer.read(struct.unpack(">I", answer.read(4))[0]))
for key in sys.argv[1:]:
    said = said[int(key) if isinstance(said, list) else key]
print(said)
PYTHON
ask() { python3 /run/ask/ask.py "$@"; }
# What is said of the only client.
client() { echo '"List"' | ask List 0 "$1"; }
start_mounter() {
  systemd-run -q --collect --unit=mounter /usr/bin/ciderfs mounter --transient-units
  await 20 client_is_known
}
client_is_known() { echo '"List"' | ask List; }
is_another() { [ "$(client state)" = Ready ] && [ "$(client pid)" != "$1" ]; }
# The mounter has what the next process goes on with.
is_held() { [ "$(client state)" = Ready ] && [ "$(client holder)" != None ]; }
no_units() { ! systemctl list-units --all --plain --no-legend 'ciderfs-client-*' | grep ciderfs-client; }

start_mounter
set +x
password=$(head -n 1 /out/secrets)
place=$(printf '{"Mount": {"spec": {"volume": "a volume", "source": "redis://127.0.0.1:6379/1",
  "options": ["cache-dir=memory"], "secrets": {"META_PASSWORD": "%s"}}, "patience": {"secs": 60, "nanos": 0}}}' "$password" | ask Mounted mountpoint)
set -x
expect "mounted by a unit" is_mounted "$place"
first=$(client pid)
expect "a unit of its own" grep -q '/ciderfs-client-' "/proc/$first/cgroup"
keeps
store "$place/kept"
exec 7<"$place/kept"

# All that belongs to the mounter's unit ends with it.
systemctl stop mounter.service
expect "the client outlives the mounter" is_whole "$place/kept"
start_mounter
expect "the same client" [ "$(client pid)" = "$first" ]
await 20 is_held
kill -KILL "$first"
await 30 is_another "$first"
expect "the next one is a unit, too" grep -q '/ciderfs-client-' "/proc/$(client pid)/cgroup"
expect "an open file goes on" cmp - "$place/kept" <&7
exec 7<&-
key=$(client key)
expect "unmounts" [ "$(printf '{"Unmount": {"key": "%s", "patience": {"secs": 60, "nanos": 0}}}' "$key" | ask)" = Unmounted ]
await 20 no_units
refuse "mounted after that" is_mounted "$place"
systemctl stop mounter.service
