"""What the nodes of a cluster share, and what runs on them: Redis, objects, a network, manifests, the parts of the driver."""

import base64
import json
import os
import pathlib
import signal
import subprocess

import yaml

from kubelet import Controller, Kubelet
from node import Container, Node, child, until

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy/helm/ciderfs-csi"
PLAIN = ROOT / "deploy/kubernetes"
STORE = "10.97.0.1"
PASSWORD, ACCESS_KEY, SECRET_KEY = "pass word", "access", "se;cr$et"

# Servers, in a network of their own. Nobody but the nodes reaches them.
SERVERS = """
cd "$1"
ip link set lo up
ip link add nodes type bridge
ip addr add "$2/24" dev nodes
ip link set nodes up
redis-server --bind "$2" --requirepass "$3" --save '' --appendonly yes --appendfsync everysec >redis.log 2>&1 &
"$6" --port 8080 --dir "$1/objects" --access-key "$4" --secret-key "$5" --bucket pods >store.log 2>&1 &
socat "tcp-listen:80,bind=$2,reuseaddr,fork" tcp:127.0.0.1:8080 &
touch ready
wait
"""


class Store:
    def __init__(self, work, server):
        (work / "objects").mkdir()
        command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "bash", "-euc", SERVERS, "store"]
        self.process = subprocess.Popen([*command, work, STORE, PASSWORD, ACCESS_KEY, SECRET_KEY, server])
        until("servers", (work / "ready").exists)
        self.net = child(self.process.pid)
        self.nodes = 0

    def connect(self, node):
        self.nodes += 1
        name, address = f"node{self.nodes}", f"10.97.0.{self.nodes + 1}/24"
        for command in (
            f"ip link add {name} type veth peer name eth0 netns {node.init}",
            f"ip link set {name} master nodes up",
        ):
            subprocess.run(["nsenter", "--target", str(self.net), "--net", *command.split()], check=True)
        for command in ("ip link set lo up", f"ip addr add {address} dev eth0", "ip link set eth0 up"):
            node.run(*command.split())

    def end(self):
        os.kill(self.net, signal.SIGKILL)
        self.process.wait()


def rendered(**node):
    """The manifests as they are, or with other values for node plugins."""
    if not node:
        return load((PLAIN / "csi.yaml").read_text())
    command = [os.environ["HELM"], "template", "ciderfs-csi", CHART, "--namespace", "kube-system", "--kube-version", "1.30.0"]
    values = ["--values", PLAIN / "values.yaml", "--values", "-"]
    done = subprocess.run([*command, *values], input=json.dumps({"node": node}), capture_output=True, text=True, check=True)
    return load(done.stdout)


def load(text):
    return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(text) if o}


class Machine:
    """A node with its kubelet and what the DaemonSets put there."""

    def __init__(self, name, work, archive, store, manifests):
        self.node, self.manifests = Node(name, work, archive), manifests
        store.connect(self.node)
        self.mounter = self.plugin = self.kubelet = None

    def part(self, kind, component, container, **more):
        pod = self.manifests[kind, f"ciderfs-csi-{component}"]["spec"]["template"]["spec"]
        declared = next(c for c in pod["containers"] if c["name"] == container)
        return self.node.start(Container(self.node, pod, declared, **more))

    def start_mounter(self):
        self.mounter = self.part("DaemonSet", "mounter", "mounter")

    def start_plugin(self):
        self.plugin = self.part("DaemonSet", "node", "csi")
        containers = self.manifests["DaemonSet", "ciderfs-csi-node"]["spec"]["template"]["spec"]["containers"]
        if len(containers) > 1:
            self.kubelet.find_by_side_car(containers, self.plugin)
        else:
            self.kubelet.find()

    def start_controller(self, secrets):
        """The controller of the cluster; it is this node where it runs."""
        of_pod = {name: values for (namespace, name), values in secrets.items() if namespace == "kube-system"}
        container = self.part("Deployment", "controller", "csi", secrets=of_pod)
        place, name = os.path.split("/csi/csi.sock")
        storage_class = self.manifests["StorageClass", "juicefs-sc"]
        self.controller = container
        return Controller(self.node, f"{container.source(place)}/{name}", storage_class, secrets)

    def start(self, controller):
        self.kubelet = Kubelet(self.node, controller.driver, controller)
        self.start_mounter()
        self.start_plugin()

    def clients(self):
        """What clients have mounted on this node."""
        return [mount for mount in self.node.mounts("/var/lib/juicefs") if mount[1].startswith("fuse")]

    def pod(self, uid, script, binds):
        """A pod with volumes, of nobody's manifest."""
        container = {
            "name": "main",
            "image": "localhost/ciderfs:0.1.0",
            "command": ["bash", "-euc", script],
            "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        pod = {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]}
        return self.node.start(Container(self.node, pod, container, binds=binds, uid=uid))

    def end(self):
        self.node.end()


def secret(tools, name):
    """The Secret of a volume, as the program makes it of a node's file."""
    made = tools.exec(f"""
cat >/tmp/config <<'CONFIG'
ACCESS_KEY={ACCESS_KEY}
SECRET_KEY='{SECRET_KEY}'
BUCKET=http://{STORE}/pods
META_URL=redis://{STORE}:6379/1
META_PASSWORD='{PASSWORD}'
CONFIG
chmod 600 /tmp/config
ciderfs k8s-secret --from-env-file /tmp/config {name}""").stdout
    found = yaml.safe_load(made)
    values = {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
    return {(found["metadata"]["namespace"], found["metadata"]["name"]): values}

