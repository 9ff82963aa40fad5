"""A node of a cluster: namespaces of its own with the directories of a node, a containerd, and containers as kubelet asks for them by the
runtime interface: what a manifest says becomes a specification for runc. Containers have the network of their node."""

import contextlib
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import time
import uuid

PATIENCE = 60
PODS = "/var/lib/kubelet/pods"
# As the runtime has it from the tool that asks it.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPABILITIES = """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST
NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
CHECKPOINT_RESTORE""".split()
PROPAGATION = {None: "rprivate", "None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

# The first process of a node; with its end all of the node ends, mounts among it.
INIT = """
for dir in /run /var/lib /var/cache; do mount -t tmpfs -o mode=0755 ciderfs-pods "$dir"; done
mkdir -p /run/containerd /var/lib/kubelet/plugins_registry
mount --make-rshared /
touch "$1"
sleep infinity &
wait
"""
CONTAINERD = """version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
"""


def until(what, condition, patience=PATIENCE):
    """Waits until it is so, and returns what it has become."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {patience} s")
        time.sleep(0.05)


def child(process):
    """The only child of a process."""
    path = pathlib.Path(f"/proc/{process}/task/{process}/children")
    return int(until("first process", lambda: path.read_text().split())[0])


def size(text):
    return int(text[:-2]) * UNITS[text[-2:]]


class Node:
    def __init__(self, name, work, archive):
        self.name, self.work = name, work / name
        self.work.mkdir()
        ready = self.work / "ready"
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
        self.process = subprocess.Popen([*unshare, "bash", "-euc", INIT, name, ready])
        self.init = child(self.process.pid)
        until("namespaces", ready.exists)
        self.cgroup = f"ciderfs-pods-{os.getpid()}/{name}"
        self.run("tee", "/run/containerd.toml", input=CONTAINERD)
        with (self.work / "containerd.log").open("w") as log:
            enter = self.enter("containerd", "--log-level", "error", "--config", "/run/containerd.toml")
            subprocess.Popen(enter, stdout=log, stderr=log)
        until("containerd", lambda: self.run("ctr", "version", check=False).returncode == 0)
        self.run("ctr", "images", "import", archive)
        self.images = self.run("ctr", "images", "ls", "-q").stdout.split()
        self.default = json.loads(self.run("ctr", "oci", "spec").stdout)

    def enter(self, *command):
        return ["nsenter", "--target", str(self.init), "--mount", "--net", "--pid", *map(str, command)]

    def run(self, *command, check=True, **kwargs):
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, timeout=PATIENCE, check=False, **kwargs)
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {' '.join(map(str, command))}: {done.stdout}{done.stderr}")
        return done

    def path(self, path):
        """A path of the node, from here."""
        return pathlib.Path(f"/proc/{self.init}/root{path}")

    def mounts(self, under):
        """What is mounted at a place and below it: place and kind, the last mount last."""
        table = [line.split() for line in pathlib.Path(f"/proc/{self.init}/mountinfo").read_text().splitlines()]
        return [(m[4], m[m.index("-") + 1]) for m in table if f"{m[4]}/".startswith(f"{under}/")]

    def start(self, container):
        """Starts a container; its log is beside those of the others."""
        config = self.work / f"{container.id}.json"
        config.write_text(json.dumps(container.specification()))
        log = self.work / f"{container.id}.log"
        self.run("ctr", "run", "--detach", "--log-uri", f"file://{log}", "--config", config, container.id)
        return container

    def end(self):
        """Ends all of it at once."""
        os.kill(self.init, signal.SIGKILL)
        self.process.wait()
        groups = pathlib.Path("/sys/fs/cgroup")
        for top in [*groups.glob(self.cgroup), *groups.glob(f"*/{self.cgroup}")]:
            for at, _, _ in os.walk(top, topdown=False):
                os.rmdir(at)
            # That of all nodes, with the last one.
            with contextlib.suppress(OSError):
                top.parent.rmdir()


class Container:
    """One of a pod; `pod` and `declared` are as manifests say them."""

    def __init__(self, node, pod, declared, secrets=None, binds=(), uid=None):
        self.node, self.pod, self.declared, self.secrets = node, pod, declared, secrets or {}
        self.uid = uid or str(uuid.uuid4())
        self.id = f"{declared['name']}-{self.uid[:8]}"
        self.root = f"/run/rootfs/{self.id}"
        self.security = declared.get("securityContext", {})
        # Places of the node, which kubelet has prepared: source, destination, propagation, is it read-only?
        self.binds = [*binds, *self.volumes()]
        assert declared["image"] in node.images, f"{declared['image']} is not among {node.images}"
        node.run("mkdir", "-p", self.root)
        node.run("ctr", "images", "mount", "--rw", declared["image"], self.root)

    def volumes(self):
        group = self.pod.get("securityContext", {}).get("fsGroup", 0)
        known = {volume["name"]: volume for volume in self.pod.get("volumes", [])}
        for mount in self.declared.get("volumeMounts", []):
            source = self.volume(known[mount["name"]], group)
            if source:
                yield source, mount["mountPath"], mount.get("mountPropagation"), mount.get("readOnly", False)

    def volume(self, volume, group):
        """Makes a volume on the node; nothing for what may be absent."""
        name = volume["name"]
        if "hostPath" in volume:
            path, kind = volume["hostPath"]["path"], volume["hostPath"]["type"]
            there = self.node.path(path)
            if kind == "DirectoryOrCreate":
                there.mkdir(mode=0o755, parents=True, exist_ok=True)
            is_right = {"Directory": stat.S_ISDIR, "DirectoryOrCreate": stat.S_ISDIR, "CharDevice": stat.S_ISCHR}[kind]
            assert is_right(there.stat().st_mode), f"hostPath type check failed: {path} is no {kind}"
            return path
        kind = "secret" if "secret" in volume else "empty-dir"
        path = f"{PODS}/{self.uid}/volumes/kubernetes.io~{kind}/{name}"
        there = self.node.path(path)
        there.mkdir(parents=True, exist_ok=True)
        os.chown(there, 0, group)
        there.chmod(0o2777 if group else 0o777)
        if "secret" in volume:
            mode = volume["secret"]["defaultMode"]
            for key, value in self.secrets[volume["secret"]["secretName"]].items():
                (there / key).write_text(value)
                (there / key).chmod(mode)
                os.chown(there / key, 0, group)
        return path

    def specification(self):
        node, declared, security = self.node, self.declared, self.security
        spec = json.loads(json.dumps(node.default))
        process, linux = spec["process"], spec["linux"]
        is_privileged = security.get("privileged", False)
        process["args"] = [*declared["command"], *(a.replace("$(NODE_NAME)", node.name) for a in declared.get("args", []))]
        process["env"] = [f"PATH={PATH}"]
        for variable in declared.get("env", []):
            value = variable.get("value")
            if "valueFrom" in variable:
                assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}, variable
                value = node.name
            process["env"].append(f"{variable['name']}={value}")
        own = self.pod.get("securityContext", {})
        groups = {"additionalGids": [own["fsGroup"]]} if "fsGroup" in own else {}
        process["user"] = {"uid": own.get("runAsUser", 0), "gid": own.get("runAsGroup", 0), **groups}
        del process["rlimits"]
        process["noNewPrivileges"] = not security.get("allowPrivilegeEscalation", True)
        dropped = security.get("capabilities", {}).get("drop", [])
        assert dropped in ([], ["ALL"]), dropped
        sets = ("bounding", "effective", "permitted")
        if is_privileged:
            has = int(next(l.split()[1] for l in open("/proc/self/status", encoding="utf-8") if l.startswith("CapEff:")), 16)
            everything = [f"CAP_{name}" for bit, name in enumerate(CAPABILITIES) if has >> bit & 1]
            process["capabilities"] = {kind: everything for kind in sets}
            linux["maskedPaths"] = linux["readonlyPaths"] = []
            linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
        elif dropped:
            process["capabilities"] = {kind: [] for kind in sets}
        limits = declared.get("resources", {}).get("limits", {})
        if "memory" in limits:
            linux["resources"]["memory"] = {"limit": size(limits["memory"])}
        spec["root"] = {"path": self.root, "readonly": security.get("readOnlyRootFilesystem", False)}
        spec["hostname"] = node.name
        linux["cgroupsPath"] = f"/{node.cgroup}/{self.id}"
        linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "network"]
        spec["mounts"] = [m for m in spec["mounts"] if m["destination"] != "/run"]
        for source, destination, propagation, is_read_only in sorted(self.binds, key=lambda b: b[1]):
            options = ["rbind", PROPAGATION[propagation], "ro" if is_read_only else "rw"]
            spec["mounts"].append({"destination": destination, "type": "bind", "source": source, "options": options})
        kinds = {propagation for _, _, propagation, _ in self.binds}
        if "Bidirectional" in kinds:
            linux["rootfsPropagation"] = "rshared"
        elif "HostToContainer" in kinds:
            linux["rootfsPropagation"] = "rslave"
        return spec

    def exec(self, script, check=True):
        """Runs a script in the container. What it prints, in whichever way, is its standard output."""
        mark = uuid.uuid4().hex
        said = self.node.work / f"{mark}.said"
        # One stream to a file, up to a mark: neither the client nor the runtime waits for all that was printed when the script
        # has ended.
        told = 'sh -euc "$1" 2>&1; code=$?; echo "$2"; exit $code'
        command = ["ctr", "tasks", "exec", "--exec-id", mark, "--log-uri", f"file://{said}", self.id, "sh", "-c", told, "sh", script, mark]
        done = self.node.run(*command, check=False)
        if not done.stderr:
            until(f"end of {script}", lambda: said.exists() and mark in said.read_text())
            done.stdout = said.read_text().replace(f"{mark}\n", "")
        said.unlink(missing_ok=True)
        if check and done.returncode:
            raise AssertionError(f"{self.id} on {self.node.name}: {script}: {done.stdout}{done.stderr}")
        return done

    def source(self, destination):
        """The place of the node that is bound at a place of the container."""
        return next(source for source, at, _, _ in self.binds if at == destination)

    def processes(self):
        """Command lines of the processes, by their numbers on the node."""
        found = {}
        for line in self.node.run("ctr", "tasks", "ps", self.id).stdout.splitlines()[1:]:
            pid = int(line.split()[0])
            try:
                found[pid] = self.node.path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                pass
        return found

    def state(self):
        rows = (line.split() for line in self.node.run("ctr", "tasks", "ls").stdout.splitlines()[1:])
        return next((row[2] for row in rows if row[0] == self.id), "GONE")

    def signal(self, name):
        self.node.run("ctr", "tasks", "kill", "-s", name, self.id)

    def stop(self, signal="SIGTERM", code=0):
        """Ends it, and takes it away."""
        self.signal(signal)
        until(f"end of {self.id}", lambda: self.state() == "STOPPED")
        return self.remove(code)

    def remove(self, code=0):
        # It says how a container has ended, and ends well itself.
        said = self.node.run("ctr", "tasks", "rm", self.id).stderr
        found = int((re.search(r"non-zero exit code (\d+)", said) or [0, 0])[1])
        assert found == code, f"{self.id} ended with {found}, not {code}: {said}"
        self.node.run("ctr", "containers", "rm", self.id)
        self.node.run("ctr", "images", "unmount", "--rm", self.root)
