"""What kubelet and the side-cars of the controller do with a driver, over gRPC: registration, volumes of claims, volumes of pods."""

import hashlib
import json
import os
import pathlib
import sys
import tempfile
import uuid

import grpc
import grpc_tools
from grpc_tools import protoc

from node import PODS, until

ROOT = pathlib.Path(__file__).resolve().parents[3]
PLUGINS = "/var/lib/kubelet/plugins_registry"
PATIENCE = 120
OF_KUBERNETES = "csi.storage.k8s.io/"


def compiled(out):
    """The protocols, made of the files that the driver is made of."""
    proto = ROOT / "crates/csi/proto"
    files = [str(path) for path in sorted(proto.glob("*.proto"))]
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{proto}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", *files])
    assert code == 0, "the protocols cannot be compiled"


with tempfile.TemporaryDirectory(prefix="ciderfs-proto") as made:
    compiled(made)
    sys.path.insert(0, made)
    import csi_pb2 as csi
    import csi_pb2_grpc
    import pluginregistration_pb2 as registration
    import pluginregistration_pb2_grpc

MODES = {
    "ReadWriteMany": csi.VolumeCapability.AccessMode.MULTI_NODE_MULTI_WRITER,
    "ReadOnlyMany": csi.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY,
}


def channel(node, socket, host="localhost"):
    """A connection to a socket of a node. Its path may be longer than sockets may have."""
    link = node.work / f"{uuid.uuid4().hex[:8]}.sock"
    link.symlink_to(node.path(socket))
    return grpc.insecure_channel(f"unix:{link}", [("grpc.default_authority", host)] if host else [])


def capability(mode, options):
    mount = csi.VolumeCapability.MountVolume(mount_flags=options)
    return csi.VolumeCapability(mount=mount, access_mode=csi.VolumeCapability.AccessMode(mode=MODES[mode]))


class Controller:
    """The driver of a cluster, called as external-provisioner and external-resizer call it."""

    def __init__(self, node, socket, storage_class, secrets):
        connection = channel(node, socket)
        self.stub, self.storage_class, self.secrets = csi_pb2_grpc.ControllerStub(connection), storage_class, secrets
        identity = csi_pb2_grpc.IdentityStub(connection)
        until("controller", lambda: answers(lambda: identity.Probe(csi.ProbeRequest(), timeout=PATIENCE)))
        self.driver = identity.GetPluginInfo(csi.GetPluginInfoRequest(), timeout=PATIENCE).name
        assert self.driver == storage_class["provisioner"]

    def secret(self, what):
        """The Secret that a class names for something."""
        named = {key: self.storage_class["parameters"][f"{OF_KUBERNETES}{what}-{key}"] for key in ("secret-name", "secret-namespace")}
        return self.secrets[named["secret-namespace"], named["secret-name"]]

    def provision(self, claim, mode, size):
        """The PersistentVolume of a claim."""
        name = f"pvc-{uuid.uuid4()}"
        parameters = {k: v for k, v in self.storage_class["parameters"].items() if not k.startswith(OF_KUBERNETES)}
        parameters |= {f"{OF_KUBERNETES}pvc/name": claim, f"{OF_KUBERNETES}pvc/namespace": "default", f"{OF_KUBERNETES}pv/name": name}
        options = self.storage_class.get("mountOptions", [])
        request = csi.CreateVolumeRequest(
            name=name,
            capacity_range=csi.CapacityRange(required_bytes=size),
            volume_capabilities=[capability(mode, options)],
            parameters=parameters,
            secrets=self.secret("provisioner"),
        )
        made = self.stub.CreateVolume(request, timeout=PATIENCE).volume
        assert made.capacity_bytes == size, made
        context = dict(made.volume_context) | {"storage.kubernetes.io/csiProvisionerIdentity": f"1-1-{self.driver}"}
        return {"name": name, "handle": made.volume_id, "context": context, "mode": mode, "options": options}

    def expand(self, volume, size):
        request = csi.ControllerExpandVolumeRequest(
            volume_id=volume["handle"],
            capacity_range=csi.CapacityRange(required_bytes=size),
            volume_capability=capability(volume["mode"], volume["options"]),
            secrets=self.secret("controller-expand"),
        )
        done = self.stub.ControllerExpandVolume(request, timeout=PATIENCE)
        assert done.capacity_bytes == size and not done.node_expansion_required, done

    def delete(self, volume):
        self.stub.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume["handle"], secrets=self.secret("provisioner")), timeout=PATIENCE)


def answers(call):
    try:
        return call() or True
    except grpc.RpcError:
        return False


class Kubelet:
    """That of a node. It knows a driver from the socket that appears among its plugins."""

    def __init__(self, node, driver, controller):
        self.node, self.driver, self.controller = node, driver, controller
        self.stub, self.staged = None, {}

    def find(self):
        """Waits for the driver's registration, and takes it. Here kubelet calls a plugin by the path of its socket, as gRPC does if
        it is not told a host."""
        socket = channel(self.node, f"{PLUGINS}/{self.driver}-reg.sock", host=None)
        plugin = pluginregistration_pb2_grpc.RegistrationStub(socket)
        info = until("registration", lambda: answers(lambda: plugin.GetInfo(registration.InfoRequest(), timeout=1)))
        assert (info.type, info.name, list(info.supported_versions)) == ("CSIPlugin", self.driver, ["1.0.0"]), info
        self.take(info.endpoint)
        plugin.NotifyRegistrationStatus(registration.RegistrationStatus(plugin_registered=True), timeout=PATIENCE)

    def find_by_side_car(self, containers, plugin):
        """The same for node-driver-registrar, whose part this plays: it asks the driver at a path of its container, and tells kubelet
        a path of the node."""
        registrar = next(c for c in containers if c["name"] == "node-driver-registrar")
        args = dict(a.removeprefix("--").split("=") for a in registrar["args"])
        place, name = os.path.split(args["csi-address"])
        volume = next(m["name"] for m in registrar["volumeMounts"] if m["mountPath"] == place)
        mounted = next(m["mountPath"] for m in plugin.declared["volumeMounts"] if m["name"] == volume)
        inside = f"{plugin.source(mounted)}/{name}"
        identity = csi_pb2_grpc.IdentityStub(channel(self.node, inside))
        info = until("driver", lambda: answers(lambda: identity.GetPluginInfo(csi.GetPluginInfoRequest(), timeout=1)))
        assert info.name == self.driver, info
        endpoint = args["kubelet-registration-path"]
        assert self.node.path(endpoint).samefile(self.node.path(inside)), f"{endpoint} is not {inside}"
        self.take(endpoint)

    def take(self, endpoint):
        self.stub = csi_pb2_grpc.NodeStub(channel(self.node, endpoint))
        info = self.stub.NodeGetInfo(csi.NodeGetInfoRequest(), timeout=PATIENCE)
        assert info.node_id == self.node.name, info
        kinds = csi.NodeServiceCapability.RPC
        able = {c.rpc.type for c in self.stub.NodeGetCapabilities(csi.NodeGetCapabilitiesRequest(), timeout=PATIENCE).capabilities}
        assert kinds.STAGE_UNSTAGE_VOLUME in able and kinds.EXPAND_VOLUME not in able, able

    def staging(self, volume):
        at = hashlib.sha256(volume["handle"].encode()).hexdigest()
        return f"/var/lib/kubelet/plugins/kubernetes.io/csi/{self.driver}/{at}/globalmount"

    def place(self, volume, uid):
        return f"{PODS}/{uid}/volumes/kubernetes.io~csi/{volume['name']}"

    def remember(self, path, volume):
        """As kubelet does beside what it asks for, for the time after its own restart."""
        self.node.path(path).mkdir(mode=0o750, parents=True, exist_ok=True)
        self.node.path(f"{path}/vol_data.json").write_text(json.dumps({"volumeHandle": volume["handle"], "driverName": self.driver}))

    def mount(self, volume, uid, is_read_only=False):
        """A volume for a pod: where its containers have it from."""
        allowed, staging = capability(volume["mode"], volume["options"]), self.staging(volume)
        if volume["handle"] not in self.staged:
            self.remember(os.path.dirname(staging), volume)
            self.node.path(staging).mkdir(mode=0o750, exist_ok=True)
            stage = csi.NodeStageVolumeRequest(
                volume_id=volume["handle"],
                staging_target_path=staging,
                volume_capability=allowed,
                secrets=self.controller.secret("node-stage"),
                volume_context=volume["context"],
            )
            self.stub.NodeStageVolume(stage, timeout=PATIENCE)
            self.staged[volume["handle"]] = set()
        place = self.place(volume, uid)
        self.remember(place, volume)
        of_pod = {"pod.name": "pod", "pod.namespace": "default", "pod.uid": uid, "serviceAccount.name": "default", "ephemeral": "false"}
        publish = csi.NodePublishVolumeRequest(
            volume_id=volume["handle"],
            staging_target_path=staging,
            target_path=f"{place}/mount",
            volume_capability=allowed,
            readonly=is_read_only,
            secrets=self.controller.secret("node-publish"),
            volume_context=volume["context"] | {f"{OF_KUBERNETES}{k}": v for k, v in of_pod.items()},
        )
        self.stub.NodePublishVolume(publish, timeout=PATIENCE)
        self.staged[volume["handle"]].add(uid)
        return f"{place}/mount"

    def sub_path(self, volume, uid, path):
        """A directory of a volume for a container, which kubelet itself makes and binds: by a descriptor, so that no link leads out."""
        whole = f"{self.place(volume, uid)}/mount"
        at = f"{PODS}/{uid}/volume-subpaths/{volume['name']}/main/0"
        self.node.path(at).mkdir(mode=0o750, parents=True)
        script = 'mkdir -p "$1/$2"; exec 3<"$1/$2"; exec mount --no-canonicalize --bind "/proc/$$/fd/3" "$3"'
        self.node.run("sh", "-euc", script, "sh", whole, path, at)
        return at

    def free_sub_paths(self, volume, uid):
        at = f"{PODS}/{uid}/volume-subpaths"
        self.node.run("umount", f"{at}/{volume['name']}/main/0")
        for path in ("/main/0", "/main", ""):
            self.node.path(f"{at}/{volume['name']}{path}").rmdir()
        self.node.path(at).rmdir()

    def unmount(self, volume, uid):
        """When the pod has ended; with the last one, the volume leaves the node."""
        place, staging = self.place(volume, uid), self.staging(volume)
        gone = csi.NodeUnpublishVolumeRequest(volume_id=volume["handle"], target_path=f"{place}/mount")
        self.stub.NodeUnpublishVolume(gone, timeout=PATIENCE)
        assert not self.node.path(f"{place}/mount").exists(), "the target is still there"
        self.node.path(f"{place}/vol_data.json").unlink()
        self.node.path(place).rmdir()
        users = self.staged[volume["handle"]]
        users.remove(uid)
        if not users:
            self.stub.NodeUnstageVolume(
                csi.NodeUnstageVolumeRequest(volume_id=volume["handle"], staging_target_path=staging), timeout=PATIENCE
            )
            self.node.path(staging).rmdir()
            del self.staged[volume["handle"]]

    def condition(self, volume, uid):
        path = f"{self.place(volume, uid)}/mount"
        asked = csi.NodeGetVolumeStatsRequest(volume_id=volume["handle"], volume_path=path)
        return self.stub.NodeGetVolumeStats(asked, timeout=PATIENCE)
