"""What pods.sh checks: pods on two nodes share a volume, its limits are felt inside of containers, and they go on whatever ends and
begins again around them."""

import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

from cluster import Machine, Store, rendered, secret
from node import until

GIB = 1 << 30
# A program that has files open all the time: it adds lines, one after the other, and holds a lock. An error ends it.
WORK = r"""
exec 3>>/data/log 4>/data/lock 5<>"$(mkfifo /tmp/tick && echo /tmp/tick)"
flock -x 4
n=0
while [ ! -e /tmp/stop ]; do
  echo "$n" >&3
  n=$((n + 1))
  read -rt 0.002 -u 5 || true
done
exec 3>&- 4>&-
"""
# Not in the image.
FLOCK = ("/usr/bin/flock", "/usr/bin/flock", None, True)
IDLE = "trap 'exit 0' TERM; sleep infinity & wait"


def step(text):
    print(f"# {text} ({time.monotonic() - BEGAN:.0f} s)", flush=True)


def bytes_of(pod):
    """The size that programs in a pod see."""
    return int(pod.exec("df -k /data | tail -n 1").stdout.split()[1]) * 1024


def refused(pod, script, error):
    done = pod.exec(script, check=False)
    assert done.returncode != 0 and error in done.stdout, f"{script}: {done}"


def share(one, two):
    """Each reads what the other has written."""
    for n, (writer, reader) in enumerate([(one, two), (two, one)]):
        writer.exec(f"head -c 20000000 /dev/urandom >/data/{n}; sha256sum /data/{n} >/data/{n}.sum; sync /data/{n} /data/{n}.sum")
        reader.exec(f"sha256sum -c /data/{n}.sum")


def quota(one, two):
    assert {bytes_of(one), bytes_of(two)} == {GIB}
    one.exec("truncate -s 960M /data/most")
    for pod in (one, two):
        until("quota", lambda pod=pod: "quota exceeded" in pod.exec("dd if=/dev/zero of=/data/more bs=1M count=40", check=False).stdout)
        refused(pod, "dd if=/dev/zero of=/data/more bs=1M count=40", "Disk quota exceeded")


def expand(controller, volume, pods):
    """Containers that run see the new size, and have it."""
    controller.expand(volume, 2 * GIB)
    for pod in pods:
        until("new size", lambda pod=pod: bytes_of(pod) == 2 * GIB)
        until("room", lambda pod=pod: pod.exec("dd if=/dev/zero of=/data/more bs=1M count=40", check=False).returncode == 0)
    pods[0].exec("rm /data/more /data/most")


def read_only(machine, volume):
    """What the volume of a pod says, and what one of its containers says."""
    uid = str(uuid.uuid4())
    source = machine.kubelet.mount(volume, uid, is_read_only=True)
    pod = machine.pod(uid, IDLE, [(source, "/data", None, False)])
    pod.exec("sha256sum -c /data/0.sum")
    for script in ("touch /data/new", "echo more >>/data/0.sum", "rm /data/0.sum", "chmod 600 /data/0.sum"):
        refused(pod, script, "Read-only file system")
    pod.stop()
    machine.kubelet.unmount(volume, uid)

    uid = str(uuid.uuid4())
    source = machine.kubelet.mount(volume, uid)
    pod = machine.pod(uid, IDLE, [(source, "/data", None, True), (source, "/own", None, False)])
    refused(pod, "touch /data/new", "Read-only file system")
    pod.exec("touch /own/new; ls /data/new; rm /own/new")
    pod.stop()
    machine.kubelet.unmount(volume, uid)


def sub_path(machine, volume, other):
    uid = str(uuid.uuid4())
    machine.kubelet.mount(volume, uid)
    source = machine.kubelet.sub_path(volume, uid, "tenants/a")
    pod = machine.pod(uid, IDLE, [(source, "/data", None, False)])
    assert pod.exec("ls -A /data").stdout == ""
    pod.exec("echo from a >/data/f; sync /data/f; ls -A /data/..", check=True)
    assert other.exec("cat /data/tenants/a/f").stdout == "from a\n"
    other.exec("echo to a >/data/tenants/a/g; sync /data/tenants/a/g")
    assert pod.exec("cat /data/g").stdout == "to a\n"
    refused(pod, "dd if=/dev/zero of=/data/much bs=1M seek=3000 count=1", "Disk quota exceeded")
    pod.stop()
    machine.kubelet.free_sub_paths(volume, uid)
    machine.kubelet.unmount(volume, uid)


class Watched:
    """A pod with a program that must not notice anything."""

    def __init__(self, pod, machine, volume, uid, other):
        self.pod, self.machine, self.volume, self.uid, self.other = pod, machine, volume, uid, other
        self.before = self.mounted()

    def mounted(self):
        return [line for line in self.pod.exec("cat /proc/self/mountinfo").stdout.splitlines() if " /data " in line]

    def lines(self):
        return int(self.pod.exec("wc -l </data/log").stdout)

    def goes_on(self, what):
        """Its open files, its lock, and new programs beside it."""
        began = time.monotonic()
        before = self.lines()
        until(f"progress after: {what}", lambda: self.lines() > before + 20)
        assert self.pod.state() == "RUNNING", what
        assert self.mounted() == self.before, what
        refused(self.other, "flock -n /data/lock true", "")
        self.pod.exec("sha256sum -c /data/0.sum && echo new >/data/new && sync /data/new")
        self.other.exec("grep new /data/new")
        until("condition", lambda: not self.machine.kubelet.condition(self.volume, self.uid).volume_condition.abnormal)
        print(f"  {what}: goes on within {time.monotonic() - began:.1f} s", flush=True)

    def client(self):
        """The processes of the client: the one that holds the mount, and the one that serves it."""
        return until("client", self.whole_client)

    def whole_client(self):
        lines = self.machine.mounter.processes()
        # The second one is started with what the first one held.
        supervisors = [pid for pid, line in lines.items() if line[0] == "mount.ciderfs" or "--resume-from" in line]
        workers = [pid for pid, line in lines.items() if line[:2] == ["ciderfs", "mount"]]
        if (len(supervisors), len(workers)) == (1, 1):
            return supervisors[0], workers[0]

    def is_held(self):
        """Has the node plugin what the mounter has, and does the mounter know?"""
        records = list(self.machine.node.path("/run/ciderfs/mounter").glob("*/record.json"))
        return [r for r in records if '"holder":"/run/ciderfs/csi/' in r.read_text()] == records != []


def survive(watched):
    machine = watched.machine
    node = machine.node
    for which in (1, 0):
        killed = watched.client()[which]
        node.run("kill", "-KILL", killed)
        watched.goes_on(("the client's supervisor is killed", "the client is killed")[which])
        assert killed not in watched.client()
    machine.plugin.stop("SIGKILL", 137)
    before = watched.lines()
    until("progress without node plugin", lambda: watched.lines() > before)
    machine.start_plugin()
    watched.goes_on("the node plugin is killed")
    machine.plugin.stop()
    assert not list(node.path("/var/lib/kubelet/plugins_registry").iterdir()), "kubelet is not told of the end"
    machine.start_plugin()
    watched.goes_on("the node plugin is restarted")
    for signal, code in (("SIGKILL", 137), ("SIGTERM", 0)):
        until("second holder", watched.is_held)
        machine.mounter.stop(signal, code)
        machine.start_mounter()
        watched.goes_on(f"the mounter ends by {signal}")


def main(work, archive, server):
    store = Store(work, server)
    step("two nodes")
    # One with the driver's own registration, the other with the side-car.
    machines = [
        Machine("node-1", work, archive, store, rendered(singleImage=True)),
        Machine("node-2", work, archive, store, rendered()),
    ]
    try:
        run(*machines)
    finally:
        for machine in machines:
            machine.end()
        store.end()


def run(one, two):
    step("the driver")
    tools = one.pod(str(uuid.uuid4()), IDLE, [])
    secrets = secret(tools, "pods")
    controller = one.start_controller(secrets)
    for machine in (one, two):
        machine.start(controller)
    volume = controller.provision("shared", "ReadWriteMany", GIB)
    step("pods")
    uids = [str(uuid.uuid4()) for _ in range(2)]
    sources = [machine.kubelet.mount(volume, uid) for machine, uid in zip((one, two), uids)]
    a = one.pod(uids[0], WORK, [FLOCK, (sources[0], "/data", None, False)])
    b = two.pod(uids[1], IDLE, [FLOCK, (sources[1], "/data", None, False)])
    until("program", lambda: b.exec("[ -s /data/log ]", check=False).returncode == 0)
    watched = Watched(a, one, volume, uids[0], b)
    assert " fuse" in watched.before[0] and len(watched.before) == 1, watched.before
    step("both ways")
    share(a, b)
    step("quota")
    quota(a, b)
    step("expansion")
    expand(controller, volume, (a, b))
    step("read only")
    read_only(two, volume)
    step("subPath")
    sub_path(two, volume, a)
    step("deaths")
    survive(watched)
    step("the end")
    a.exec("touch /tmp/stop")
    until("end of the program", lambda: a.state() == "STOPPED")
    a.remove()
    log = b.exec("cat /data/log").stdout.split()
    assert log == [str(n) for n in range(len(log))], "lines are lost, or there twice"
    print(f"  {len(log)} lines")
    b.exec("flock -n /data/lock true")
    b.stop()
    for machine, uid in zip((one, two), uids):
        assert len(machine.clients()) == 1, machine.clients()
        machine.kubelet.unmount(volume, uid)
        assert not machine.clients(), "the client has not ended"
    controller.delete(volume)
    for part in (one.controller, tools, one.plugin, two.plugin, one.mounter, two.mounter):
        part.stop()


if __name__ == "__main__":
    BEGAN = time.monotonic()
    # What was begun is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    place = pathlib.Path(tempfile.mkdtemp(prefix="ciderfs-pods."))
    try:
        main(place, *sys.argv[1:3])
    except BaseException:
        for log in sorted(place.glob("**/*.log")):
            tail = subprocess.run(["tail", "-n", "15", log], capture_output=True, text=True, check=False).stdout
            print(f"--- {log.relative_to(place)}\n{tail}", file=sys.stderr)
        raise
    finally:
        shutil.rmtree(place)
    step("all is well")
