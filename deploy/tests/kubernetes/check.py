"""What kubernetes.sh checks: the chart with two versions of Helm, values that it refuses, every object against the schemas of the API and
against the others, the manifests made from it, flags against the program, and its Redis with a real one."""

import base64
import copy
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import helm_python
import yaml

import objects
import redis
import start

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy/helm/ciderfs-csi"
PLAIN = ROOT / "deploy/kubernetes"
HELM = os.environ["HELM"]
PROGRAM = sys.argv[1]
NAMESPACE = "kube-system"

# Commands of the program that come with other parts of this tree. Once the program has one of them it must not be here: remove it
# then; its flags are checked, and it is started as the chart starts it.
LATER = set()

failures = []


def fail(text):
    print(f"FAILED: {text}", file=sys.stderr)
    failures.append(text)


def helm(*args):
    return subprocess.run([HELM, *map(str, args)], capture_output=True, text=True, check=False)


def render(files=(), extra=None):
    """The objects, as Helm 3 says them; or its error."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as more:
        json.dump(extra or {}, more)
        more.flush()
        args = [a for f in [*files, more.name] for a in ("--values", f)]
        out = helm("template", "ciderfs-csi", CHART, "--namespace", NAMESPACE, "--kube-version", "1.30.0", *args)
    return (list(filter(None, yaml.safe_load_all(out.stdout))), None) if out.returncode == 0 else (None, out.stderr)


def render4(values):
    """The objects and the notes, as Helm 4 says them."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="ciderfs-csi", namespace=NAMESPACE)
    notes = files.pop("ciderfs-csi/templates/NOTES.txt")
    return [o for text in files.values() for o in yaml.safe_load_all(text) if o], notes


def merged(*values):
    out = {}
    for value in values:
        for key, new in value.items():
            out[key] = merged(out[key], new) if isinstance(new, dict) and isinstance(out.get(key), dict) else new
    return out


def load(path):
    return yaml.safe_load(path.read_text()) or {}


def ordered(found):
    return sorted(found, key=objects.key)


# --- The chart -------------------------------------------------------------------------------------------------------------------
DEFAULTS = load(CHART / "values.yaml")
# Which Secrets are made by others, and how many default classes there are.
CASES = {
    None: dict(secrets=set(), classes=0),
    "existing-secret": dict(secrets={(NAMESPACE, "juicefs-sc-secret")}, classes=1),
    "all": dict(secrets={("tenant-a", "volume")}, classes=1, accounts={"storage-controller"}, configs={"company-ca"}),
    "parts": dict(secrets=set(), classes=0),
    "official": dict(secrets=set(), classes=0),
}


def check_chart():
    files = {p.stem.removesuffix("-values") for p in (CHART / "ci").glob("*.yaml")}
    if files != set(CASES) - {None}:
        fail(f"values in ci/ and cases here differ: {files ^ (set(CASES) - {None})}")
    for case, given in CASES.items():
        paths = [CHART / f"ci/{case}-values.yaml"] if case else []
        out = helm("lint", "--strict", CHART, *[a for p in paths for a in ("--values", p)])
        if out.returncode:
            fail(f"helm lint, {case}: {out.stdout}{out.stderr}")
        values = load(paths[0]) if paths else {}
        messages = helm_python.lint(CHART, values)
        bad = [m for m in messages if m.get("severity", 0) not in (0, 1, "INFO", "info")] if isinstance(messages, list) else []
        if bad:
            fail(f"lint of Helm 4, {case}: {bad}")
        found, error = render(paths)
        if error:
            fail(f"{case} does not render: {error}")
            continue
        newer, notes = render4(values)
        if ordered(found) != ordered(newer):
            fail(f"{case}: Helm 3 and Helm 4 make different objects")
        effective = merged(DEFAULTS, values)
        for problem in objects.problems(found, effective, NAMESPACE, **given):
            fail(f"{case}: {problem}")
        check_flags(found)
        ignored = "have no effect here" in notes
        if ignored != (case == "official"):
            fail(f"{case}: warned of ignored values? {ignored}: {notes}")
        if case == "official":
            for key in ("globalConfig", "node.ifPollingKubelet", "storageClasses[0].mountPod", "dashboard,", "serviceAccount.dashboard"):
                if key not in notes:
                    fail(f"NOTES do not name {key}: {notes}")
        print(f"{case or 'defaults'}: {len(found)} objects")
    found, _ = render([CHART / "ci/existing-secret-values.yaml"], {"redis": {"enabled": True}, "storageClasses": [
        {"name": "juicefs-sc", "enabled": True, "backend": {"name": "vol", "storage": "s3", "bucket": "https://b.example.com"}}]})
    secrets = {o["metadata"]["name"]: {k: base64.b64decode(v).decode() for k, v in o["data"].items()} for o in found if o["kind"] == "Secret"}
    password = secrets["ciderfs-csi-redis"]["redis-password"]
    volume = secrets["juicefs-sc-secret"]
    if len(password) < 32 or json.loads(volume["envs"]) != {"META_PASSWORD": password}:
        fail(f"the password that the chart makes is not that of the class")
    if volume["metaurl"] != "redis://ciderfs-csi-redis.kube-system.svc:6379/1":
        fail(f"metaurl {volume['metaurl']}")
    # Somebody who installs it under another name, twice, or as a part of another chart.
    for name, namespace in (("a", "b"), ("ciderfs-csi-" + "x" * 40, "storage")):
        out = helm("template", name, CHART, "--namespace", namespace, "--kube-version", "1.30.0", "--set", "redis.enabled=true", "--set", "global.x=1")
        if out.returncode:
            fail(f"as {name}: {out.stderr}")
            continue
        found = list(filter(None, yaml.safe_load_all(out.stdout)))
        values = merged(DEFAULTS, {"redis": {"enabled": True}})
        for problem in objects.problems(found, values, namespace, secrets=set(), classes=0):
            fail(f"as {name}: {problem}")
    if not ((CHART / "dashboards/ciderfs.json").read_bytes() == (ROOT / "deploy/monitoring/ciderfs.json").read_bytes()):
        fail("the chart has another dashboard: cp deploy/monitoring/ciderfs.json deploy/helm/ciderfs-csi/dashboards/")
    version = next(l.split('"')[1] for l in (ROOT / "Cargo.toml").read_text().splitlines() if l.startswith("version = "))
    chart = load(CHART / "Chart.yaml")
    if (chart["version"], chart["appVersion"]) != (version, version):
        fail(f"Chart.yaml: version and appVersion must be {version}")


def check_promises():
    """What users are told of the defaults."""
    found, _ = render([CHART / "ci/existing-secret-values.yaml"])
    one = lambda kind, end="": next(o for o in found if o["kind"] == kind and o["metadata"]["name"].endswith(end))
    driver, sc = one("CSIDriver")["spec"], one("StorageClass")
    is_so = {
        "driver": driver == {"attachRequired": False, "podInfoOnMount": True, "requiresRepublish": False, "fsGroupPolicy": "None",
                             "volumeLifecycleModes": ["Persistent"]},
        "class": (sc["metadata"]["name"], sc["reclaimPolicy"], sc["allowVolumeExpansion"]) == ("juicefs-sc", "Retain", True),
        "upgrades leave clients alone": one("DaemonSet", "mounter")["spec"]["updateStrategy"] == {"type": "OnDelete"},
        "upgrades reach node plugins": one("DaemonSet", "node")["spec"]["updateStrategy"]["type"] == "RollingUpdate",
        "two controllers": one("Deployment")["spec"]["replicas"] == 2 and one("PodDisruptionBudget", "controller")["spec"]["maxUnavailable"] == 1,
    }
    side_cars = {c["name"]: c["args"] for c in objects.containers(one("Deployment")) if c["name"] != "csi"}
    is_so["patterns know the claim"] = "--extra-create-metadata" in side_cars["csi-provisioner"]
    for name in ("csi-provisioner", "csi-resizer"):
        is_so[f"one {name} leads"] = {"--leader-election", "--leader-election-namespace=kube-system"} <= set(side_cars[name])
    is_so["side-cars"] = set(side_cars) == {"csi-provisioner", "csi-resizer", "liveness-probe"}
    node = {c["name"] for c in objects.containers(one("DaemonSet", "node"))}
    is_so["side-cars of nodes"] = node == {"csi", "node-driver-registrar", "liveness-probe"}
    # One image for all, and nothing beside it on nodes.
    alone, _ = render([CHART / "ci/parts-values.yaml"])
    images = {c["image"].split(":")[0] for o in alone if o["kind"] == "DaemonSet" for c in objects.containers(o)}
    is_so["nodes with one image"] = images == {"localhost/ciderfs"}
    seen = [m for m in objects.containers(one("DaemonSet", "mounter"))[0]["volumeMounts"] if m["mountPath"] == DEFAULTS["kubeletDir"]]
    is_so["the mounter sees which volumes are in use"] = [m.get("mountPropagation") for m in seen] == ["HostToContainer"]
    is_so["clients have time to store what was written"] = one("DaemonSet", "mounter")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 60
    for what, is_true in is_so.items():
        if not is_true:
            fail(f"it is not so: {what}")


def check_schema():
    """Nothing unknown passes anywhere."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(node, at):
        if isinstance(node, dict):
            if "properties" in node and node.get("additionalProperties") is not False:
                fail(f"values.schema.json: {at} takes unknown keys")
            for name, inner in node.items():
                walk(inner, f"{at}/{name}")
        elif isinstance(node, list):
            for i, inner in enumerate(node):
                walk(inner, f"{at}/{i}")

    walk(schema, "")

    def undocumented(values, node, at):
        while "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        for name, value in values.items():
            inner = node.get("properties", {}).get(name)
            if inner is None:
                if "properties" in node:
                    fail(f"values.yaml: {at}{name} is not in the schema")
            elif isinstance(value, dict):
                undocumented(value, inner, f"{at}{name}.")
        # What the schema has and values.yaml does not is for values of the official chart only.
        for name, inner in node.get("properties", {}).items():
            if name not in values and "official driver" not in inner.get("description", "") and at.split(".")[0] in ("", *parts) and at.count(".") <= 1:
                known = {"mountMode", "global"} if not at else set()
                if name not in known:
                    fail(f"values.yaml lacks {at}{name}")

    parts = ("controller", "node", "mounter", "redis", "csidriver", "serviceAccount", "networkPolicy", "rbac")
    undocumented(DEFAULTS, schema, "")


CLASS = {"name": "juicefs-sc", "enabled": True, "existingSecret": "s"}
BACKEND = {"name": "vol", "metaurl": "redis://h/1", "storage": "s3", "bucket": "https://b.example.com"}
OWN = {"name": "juicefs-sc", "enabled": True}
# Values, and words that both versions of Helm say of them.
REFUSED = [
    # What users of the official chart have written in vain.
    ({"storageClasses": [{**OWN, "backend": {**BACKEND, "endpoint": "https://s3.gra.io.cloud.ovh.net"}}]}, ["endpoint", "not allowed"]),
    ({"storageClasses": [{**OWN, "backend": {**BACKEND, "token": "x"}}]}, ["token"]),
    ({"storageClasses": [{**OWN, "backend": {**BACKEND, "name": "My_Volume"}}]}, ["name"]),
    ({"redis": {"enable": True}}, ["enable", "not allowed"]),
    ({"nodes": {}}, ["nodes", "not allowed"]),
    ({"mountMode": "sidecar"}, ["mountMode", "mountpod"]),
    ({"image": {"repository": "juicedata/juicefs-csi-driver", "tag": "v0.25.0"}}, ["the image of the official driver"]),
    ({"image": "ciderfs:1"}, ["image"]),
    ({"controller": {"replica": 2}}, ["replica", "not allowed"]),
    ({"controller": {"replicas": "two"}}, ["replicas"]),
    ({"controller": {"replicas": 0}}, ["replicas"]),
    ({"controller": {"leaderElection": {"enabled": False}}}, ["without controller.leaderElection"]),
    ({"controller": {"resources": {"limit": {}}}}, ["limit", "not allowed"]),
    ({"mounter": {"resources": {"limits": {"memory": "lots"}}}}, ["memory"]),
    ({"mounter": {"updateStrategy": {"type": "Recreate"}}}, ["type", "OnDelete"]),
    ({"mounter": {"tolerations": [{"key": "a", "operator": "Exist"}]}}, ["operator"]),
    ({"serviceAccount": {"node": {"create": False}}}, ["name the account that is not to be created"]),
    ({"serviceAccount": {"node": "other"}}, ["serviceAccount", "node"]),
    ({"driverName": "csi_juicefs.com"}, ["driverName"]),
    ({"fullnameOverride": "juicefs_csi"}, ["fullnameOverride"]),
    ({"kubeletDir": "var/lib/kubelet"}, ["kubeletDir"]),
    ({"kubeletDir": "/var/lib/kubelet/"}, ["kubeletDir"]),
    ({"csidriver": {"fsGroupPolicy": "Always"}}, ["fsGroupPolicy"]),
    ({"storageClasses": [{**CLASS, "name": "juicefs_sc"}]}, ["name"]),
    ({"storageClasses": [{**CLASS, "reclaimPolicy": "Recycle"}]}, ["reclaimPolicy"]),
    ({"storageClasses": [{**CLASS, "mountOptions": "cache-size=1024"}]}, ["mountOptions"]),
    ({"storageClasses": [{"enabled": True}]}, ["name"]),
    ({"storageClasses": [{**CLASS, "isDefault": True}, {**CLASS, "name": "b", "isDefault": True}]}, ["juicefs-sc, b are all the default class"]),
    ({"storageClasses": [OWN]}, ["name a Secret in existingSecret"]),
    ({"storageClasses": [{**CLASS, "backend": BACKEND}]}, ["has both existingSecret and backend"]),
    ({"storageClasses": [{**OWN, "backend": {"name": "vol"}}]}, ["where is the metadata?"]),
    ({"storageClasses": [{**OWN, "backend": {"name": "vol"}}], "redis": {"enabled": True, "existingSecret": "s"}}, ["does not know the password"]),
    ({"storageClasses": [{**OWN, "backend": {"name": "vol", "envs": "{}"}}], "redis": {"enabled": True}}, ["write backend.envs as a map"]),
    ({"redis": {"enabled": True, "persistence": {"storageClass": ""}}}, ["redis.persistence.storageClass"]),
    ({"redis": {"enabled": True, "persistence": {"storageClass": "juicefs-sc"}}}, ["would keep its own metadata in itself"]),
    ({"redis": {"enabled": True, "appendfsync": "no"}}, ["appendfsync"]),
    ({"redis": {"maxmemoryPolicy": "allkeys-lru"}}, ["maxmemoryPolicy", "not allowed"]),
    ({"snapshot": {"enabled": True}, "storageClasses": []}, ["snapshot.enabled needs a storage class"]),
    ({"metrics": {"podMonitor": {"intervall": "1m"}}}, ["intervall", "not allowed"]),
    ({"rbac": {"secretNamespaces": ["*"]}}, ["secretNamespaces"]),
]


def check_refused():
    for values, words in REFUSED:
        found, error = render([], values)
        if found is not None:
            fail(f"it takes {values}")
        elif not all(w in error for w in words):
            fail(f"{values}: none of {words} in: {error}")
        try:
            render4(values)
            fail(f"Helm 4 takes {values}")
        except helm_python.HelmError as e:
            if not all(w in str(e) for w in words):
                fail(f"{values}: none of {words} in what Helm 4 says: {e}")
    print(f"{len(REFUSED)} values are refused")


# --- Manifests -------------------------------------------------------------------------------------------------------------------
def unpacked(text):
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text)), mode="r:gz") as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def check_plain():
    made = tempfile.TemporaryDirectory()
    subprocess.run([PLAIN / "render.sh", made.name], check=True)
    for name in ("csi.yaml", "csi-with-redis.yaml", "k3s.yaml"):
        now, fresh = (PLAIN / name).read_text(), pathlib.Path(made.name, name).read_text()
        if name == "k3s.yaml":
            # Compressors differ; what they compressed must not.
            now, fresh = (yaml.safe_load(t) | {"text": [l for l in t.splitlines() if "chartContent" not in l]} for t in (now, fresh))
            for o in (now, fresh):
                o["spec"]["chartContent"] = unpacked(o["spec"]["chartContent"])
        if now != fresh:
            fail(f"deploy/kubernetes/{name} is not what the chart says: run deploy/kubernetes/render.sh")
    secrets = {(NAMESPACE, "juicefs-sc-secret")}
    values = merged(DEFAULTS, load(PLAIN / "values.yaml"))
    found = list(filter(None, yaml.safe_load_all((PLAIN / "csi.yaml").read_text())))
    for problem in objects.problems(found, values, NAMESPACE, secrets=secrets, classes=1):
        fail(f"csi.yaml: {problem}")
    values = merged(values, load(PLAIN / "values-redis.yaml"))
    found = list(filter(None, yaml.safe_load_all((PLAIN / "csi-with-redis.yaml").read_text())))
    for problem in objects.problems(found, values, NAMESPACE, secrets=secrets | {(NAMESPACE, "ciderfs-csi-redis")}, classes=1):
        fail(f"csi-with-redis.yaml: {problem}")
    check_helm_chart(load(PLAIN / "k3s.yaml"), "k3s.yaml")
    examples = [o for p in sorted(PLAIN.glob("example-*.yaml")) for o in yaml.safe_load_all(p.read_text())]
    for problem in objects.valid(examples):
        fail(f"examples: {problem}")
    claims = {o["metadata"]["name"] for o in examples if o["kind"] == "PersistentVolumeClaim"}
    for o in examples:
        for volume in (objects.pod_of(o) or {}).get("volumes", []):
            if volume["persistentVolumeClaim"]["claimName"] not in claims:
                fail(f"examples: no claim {volume}")
        if o["kind"] == "PersistentVolume" and o["spec"]["csi"]["driver"] != DEFAULTS["driverName"]:
            fail("examples: another driver")
    print(f"{len(examples)} objects of examples")


def check_helm_chart(o, what):
    """A HelmChart of k3s: its fields, the chart inside, and that the chart takes its values."""
    for problem in objects.valid([o]):
        fail(f"{what}: {problem}")
    files = unpacked(o["spec"]["chartContent"])
    wanted = {f"ciderfs-csi/{p.relative_to(CHART)}": p.read_bytes() for p in CHART.rglob("*")
              if p.is_file() and "ci" not in p.relative_to(CHART).parts and not p.name.startswith(".")}
    if files != wanted:
        fail(f"{what}: another chart is inside: {sorted(k for k in files.keys() | wanted.keys() if files.get(k) != wanted.get(k))}")
    values = yaml.safe_load(o["spec"]["valuesContent"])
    with tempfile.TemporaryDirectory() as where:
        packed = pathlib.Path(where, "chart.tgz")
        packed.write_bytes(base64.b64decode(o["spec"]["chartContent"]))
        pathlib.Path(where, "values.yaml").write_text(o["spec"]["valuesContent"])
        out = helm("template", o["metadata"]["name"], packed, "--namespace", o["spec"]["targetNamespace"], "--kube-version", "1.30.0",
                   "--values", pathlib.Path(where, "values.yaml"))
    if out.returncode:
        fail(f"{what}: the chart inside does not render: {out.stderr}")
        return
    found = list(filter(None, yaml.safe_load_all(out.stdout)))
    secrets = {(NAMESPACE, c["existingSecret"]) for c in values["storageClasses"]}
    secrets |= {(NAMESPACE, s) for s in [values.get("redis", {}).get("existingSecret")] if s}
    for problem in objects.problems(found, merged(DEFAULTS, values), o["spec"]["targetNamespace"], secrets=secrets, classes=1):
        fail(f"{what}: {problem}")
    check_flags(found)
    print(f"{what}: {len(found)} objects")


def check_nix():
    """What the module gives to k3s."""
    env = {**os.environ, "NIX_REMOTE": "dummy://", "NIX_STATE_DIR": tempfile.mkdtemp()}
    out = subprocess.run(["nix-instantiate", "--eval", "--strict", "--json", "-A", "manifests", ROOT / "deploy/tests/nix/cases.nix"],
                         capture_output=True, text=True, env=env, check=False)
    if out.returncode:
        fail(f"deploy/tests/nix/cases.nix: {out.stderr}")
        return
    for name, manifests in json.loads(out.stdout).items():
        for o in manifests:
            check_helm_chart(o, f"NixOS {name}")


# --- The checks themselves -------------------------------------------------------------------------------------------------------
def planted(found):
    """Defects, each with what must be said of it."""
    one = lambda kind, end="": next(o for o in found if o["kind"] == kind and o["metadata"]["name"].endswith(end))
    pod = lambda kind, end="": one(kind, end)["spec"]["template"]["spec"]
    box = lambda kind, end="", at=0: pod(kind, end)["containers"][at]
    yield "additional properties", lambda: pod("Deployment").update(hostNetworks=True)
    yield "not of type", lambda: one("Deployment")["spec"].update(replicas="2")
    yield "a name that RFC 1123", lambda: one("ConfigMap")["metadata"].update(name="a_b")
    yield "has more than 15", lambda: box("DaemonSet", "mounter")["ports"][0].update(name="metrics-of-clients")
    yield "is there twice", lambda: found.append(one("CSIDriver"))
    yield "default classes: ['juicefs-sc', 'tenant']", lambda: one("StorageClass", "tenant")["metadata"]["annotations"].update(
        {"storageclass.kubernetes.io/is-default-class": "true"})
    yield "default classes: []", lambda: one("StorageClass", "juicefs-sc")["metadata"]["annotations"].clear()
    yield "there is no ServiceAccount", lambda: pod("DaemonSet", "node").update(serviceAccountName="other")
    yield "gets a token", lambda: pod("DaemonSet", "node").update(automountServiceAccountToken=True)
    yield "no priority", lambda: pod("StatefulSet").pop("priorityClassName")
    yield "does not tolerate node-role.kubernetes.io/master", lambda: pod("Deployment")["tolerations"].pop()
    yield "volumes that are not there or not used", lambda: pod("DaemonSet", "mounter")["volumes"].pop()
    yield "there is no ConfigMap", lambda: pod("StatefulSet")["volumes"][0]["configMap"].update(name="other")
    yield "there is no Secret", lambda: box("StatefulSet")["env"][0]["valueFrom"]["secretKeyRef"].update(name="other")
    yield "there is no Service other", lambda: one("StatefulSet")["spec"].update(serviceName="other")
    yield "it has no flag", lambda: box("Deployment", at=1)["args"].append("--enable-topology")
    yield "is named nowhere", lambda: box("Deployment", at=1).update(image="registry.k8s.io/sig-storage/csi-provisioner:latest")
    yield "there is no port", lambda: box("Deployment")["livenessProbe"]["httpGet"].update(port="health")
    yield "no limits of memory", lambda: box("DaemonSet", "mounter")["resources"]["limits"].pop("memory")
    yield "privileged? True", lambda: box("Deployment", at=1)["securityContext"].update(privileged=True)
    yield "it keeps capabilities", lambda: box("StatefulSet")["securityContext"].pop("capabilities")
    yield "its root can be written", lambda: box("DaemonSet", "mounter")["securityContext"].pop("readOnlyRootFilesystem")
    yield "Bidirectional is for privileged", lambda: box("Deployment")["volumeMounts"][0].update(mountPropagation="Bidirectional")
    yield "names no variable", lambda: box("DaemonSet", "node")["env"].clear()
    yield "no pod has the port", lambda: one("Service")["spec"]["ports"][0].update(targetPort="other")
    yield "nothing serves metrics", lambda: box("DaemonSet", "mounter")["ports"][0].update(containerPort=1)
    yield "it selects nothing", lambda: one("PodDisruptionBudget", "redis")["spec"]["selector"]["matchLabels"].update(a="b")
    yield "gives too much", lambda: one("ClusterRole")["rules"].append({"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]})
    yield "gives secrets too widely", lambda: one("ClusterRole")["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})
    yield "gives all secrets of kube-system", lambda: next(
        o for o in found if o["kind"] == "Role" and "resourceNames" in o["rules"][0])["rules"][0].pop("resourceNames")
    yield "the controller may not read", lambda: next(
        o for o in found if o["kind"] == "Role" and "resourceNames" in o["rules"][0])["rules"][0].update(resourceNames=["other"])
    yield "is nobody's", lambda: found.remove(one("ClusterRoleBinding"))
    yield "there is no role", lambda: found.remove(one("ClusterRole"))
    yield "of another driver", lambda: one("StorageClass")["provisioner"] and one("StorageClass").update(provisioner="csi.other.io")
    yield "there is no Secret", lambda: one("StorageClass", "juicefs-sc")["parameters"].update({"csi.storage.k8s.io/node-stage-secret-name": "x"})
    yield "snapshot classes for", lambda: found.remove(one("VolumeSnapshotClass", "tenant"))
    yield "2 default snapshot classes", lambda: one("VolumeSnapshotClass", "tenant")["metadata"]["annotations"].update(
        {"snapshot.storage.kubernetes.io/is-default-class": "true"})
    yield "kubelet does not find it", lambda: pod("DaemonSet", "node")["volumes"][0]["hostPath"].update(path="/var/lib/kubelet/plugins/x")
    yield "node plugin and mounter do not meet", lambda: next(
        v for v in pod("DaemonSet", "node")["volumes"] if v["name"] == "run-dir")["hostPath"].update(path="/run/other")
    yield "it keeps its data in itself", lambda: one("StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"].update(storageClassName="tenant")
    yield "there is no Service for", lambda: one("Service")["spec"]["ports"][0].update(port=6380)
    yield "fields that are none", lambda: one("PodMonitor")["spec"].update(podMetricEndpoints=[])


def check_checks():
    values = merged(DEFAULTS, load(CHART / "ci/all-values.yaml"))
    whole, _ = render([CHART / "ci/all-values.yaml"])
    for at, (text, _) in enumerate(planted(whole)):
        found = copy.deepcopy(whole)
        list(planted(found))[at][1]()
        said = list(objects.problems(found, values, NAMESPACE, **CASES["all"]))
        if not any(text.lower() in problem.lower() for problem in said):
            fail(f"a planted defect is overlooked, {text}: {said}")
    print(f"{at + 1} planted defects are found")


# --- The program -----------------------------------------------------------------------------------------------------------------
helps = {}


def help_of(command):
    if command not in helps:
        out = subprocess.run([PROGRAM, command, "--help"], capture_output=True, text=True, check=False)
        helps[command] = out.stdout if out.returncode == 0 else None
    return helps[command]


def check_flags(found):
    """Every flag that a container gives to the program is one."""
    for o in found:
        for container in objects.containers(o):
            command = container.get("command", [])
            if command[:1] != ["ciderfs"]:
                continue
            text = help_of(command[1])
            if command[1] in LATER:
                if text is not None:
                    fail(f"the program has the command {command[1]}: take it out of LATER in {__file__}")
                continue
            if text is None:
                fail(f"the program has no command {command[1]}")
                continue
            known = {word.strip(",").split("=")[0] for word in text.split()}
            for arg in container.get("args", []):
                if arg.split("=")[0] not in known:
                    fail(f"ciderfs {command[1]} has no flag {arg}")


def check_starts():
    """They do start with them, in what the pod gives them."""
    for case in ("existing-secret", "parts"):
        for o in render([CHART / f"ci/{case}-values.yaml"])[0]:
            if any(c.get("command", [""])[0] == "ciderfs" and c["command"][1] not in LATER for c in objects.containers(o)):
                for problem in start.problems(PROGRAM, o):
                    fail(f"{case}: {problem}")


check_schema()
check_chart()
check_promises()
check_refused()
check_checks()
check_plain()
check_nix()
check_starts()
for problem in redis.problems(render([CHART / "ci/all-values.yaml"])[0]):
    fail(f"Redis: {problem}")
if failures:
    sys.exit(f"{len(failures)} failures")
print("all is well")
