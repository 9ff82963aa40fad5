"""What is wrong with a set of objects: by the schemas of the API, and between them."""

import base64
import re
import urllib.parse

import kubernetes_validate

VERSION = "1.30"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
# The only containers that may do anything to their node.
PRIVILEGED = {("node", "csi"), ("mounter", "mounter")}
# Fields of objects whose schemas are not of the API.
EXTRA = {
    "VolumeSnapshotClass": {"driver", "deletionPolicy", "parameters"},
    "PodMonitor": {"spec.selector", "spec.podMetricsEndpoints"},
    "HelmChart": {f"spec.{f}" for f in (
        "chart chartContent version repo targetNamespace createNamespace set valuesContent valuesSecrets bootstrap failurePolicy backOffLimit"
        " timeout jobImage authSecret repoCA plainHTTP insecureSkipTLSVerify").split()},
}


# Flags of the side-cars that are used here: they exist in the versions of values.yaml and in those of the official chart.
SIDECARS = {
    "csi-provisioner": "csi-address timeout v leader-election leader-election-namespace leader-election-lease-duration extra-create-metadata worker-threads",
    "csi-resizer": "csi-address timeout v leader-election leader-election-namespace leader-election-lease-duration handle-volume-inuse-error",
    "csi-snapshotter": "csi-address timeout v leader-election leader-election-namespace leader-election-lease-duration extra-create-metadata",
    "liveness-probe": "csi-address health-port probe-timeout",
    "node-driver-registrar": "csi-address kubelet-registration-path v",
}


def key(o):
    return o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]


def pod_of(o):
    return o.get("spec", {}).get("template", {}).get("spec")


def containers(o):
    pod = pod_of(o) or {}
    return pod.get("initContainers", []) + pod.get("containers", [])


def valid(found):
    """By itself."""
    for o in found:
        name = "/".join(key(o))
        if o["kind"] in EXTRA:
            fields = set(o) - {"apiVersion", "kind", "metadata", "spec"} | {f"spec.{f}" for f in o.get("spec", {})}
            if fields - EXTRA[o["kind"]]:
                yield f"{name} has fields that are none: {fields - EXTRA[o['kind']]}"
        else:
            try:
                kubernetes_validate.validate(o, VERSION, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as e:
                yield f"{name}: {e}"
        is_label = o["kind"] in ("Service",)
        if not (LABEL if is_label else SUBDOMAIN).fullmatch(o["metadata"]["name"]):
            yield f"{name}: a name that RFC 1123 does not have"
        if not LABEL.fullmatch(o["metadata"].get("namespace", "x")):
            yield f"{name}: a namespace that RFC 1123 does not have"
        labels = [o["metadata"].get("labels", {}), o.get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})]
        for value in (v for group in labels for v in group.values()):
            if not LABEL_VALUE.fullmatch(value):
                yield f"{name}: no value for a label: {value}"
        # The names of pods are longer by a hash.
        if pod_of(o) and len(o["metadata"]["name"]) > 63 - 11:
            yield f"{name}: too long for the names of its pods"
        inner = [c["name"] for c in containers(o)] + [v["name"] for v in (pod_of(o) or {}).get("volumes", [])]
        inner += [p["name"] for c in containers(o) for p in c.get("ports", [])]
        for one in inner:
            if not LABEL.fullmatch(one):
                yield f"{name}: {one} is no name by RFC 1123"
        for port in (p for c in containers(o) for p in c.get("ports", [])):
            if len(port["name"]) > 15:
                yield f"{name}: the name of port {port['name']} has more than 15 characters"


def problems(found, values, namespace, *, secrets, classes, accounts=frozenset(), configs=frozenset()):
    """Between them: whatever one names, another is. `secrets`, `accounts` and `configs` are made by others."""
    yield from valid(found)
    keys = [key(o) for o in found]
    for one in set(keys):
        if keys.count(one) > 1:
            yield f"{one} is there twice"
    of = lambda kind: [o for o in found if o["kind"] == kind]
    secrets = secrets | {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in of("Secret")}
    accounts = accounts | {o["metadata"]["name"] for o in of("ServiceAccount")}
    configs = configs | {o["metadata"]["name"] for o in of("ConfigMap")}
    workloads = [o for o in found if pod_of(o)]
    images = {f"{i['repository']}:{i['tag']}" for i in (*values["sidecars"].values(), values["redis"]["image"])}
    ours = f"{values['image']['repository']}:{values['image']['tag'] or '0.1.0'}"

    defaults = [o["metadata"]["name"] for o in of("StorageClass")
                if o["metadata"]["annotations"].get("storageclass.kubernetes.io/is-default-class") == "true"]
    if len(defaults) != classes or (classes and defaults != ["juicefs-sc"]):
        yield f"default classes: {defaults}"

    for o in found:
        own = o["metadata"].get("namespace")
        cluster_wide = o["kind"] in ("CSIDriver", "StorageClass", "VolumeSnapshotClass", "ClusterRole", "ClusterRoleBinding")
        if cluster_wide == (own is not None):
            yield f"{key(o)}: namespace {own}"

    for o in workloads:
        name, pod = "/".join(key(o)), pod_of(o)
        part = o["metadata"]["labels"]["app.kubernetes.io/component"]
        if pod.get("serviceAccountName", "default") not in accounts | {"default"}:
            yield f"{name}: there is no ServiceAccount {pod['serviceAccountName']}"
        if part != "controller" and pod.get("automountServiceAccountToken") is not False:
            yield f"{name}: it gets a token, and talks to no API server"
        if not pod.get("priorityClassName"):
            yield f"{name}: no priority"
        for taint in CONTROL_PLANE:
            # Values of others may say otherwise; ours tolerate.
            given = values[part]["tolerations"] if part in values else []
            if given and not tolerates(pod, taint) and any(tolerates({"tolerations": given}, t) for t in CONTROL_PLANE):
                yield f"{name}: it does not tolerate {taint}"
        if not matches(o["spec"]["selector"]["matchLabels"], o["spec"]["template"]["metadata"]["labels"]):
            yield f"{name}: its selector is not of its pods"
        volumes = {v["name"]: v for v in pod.get("volumes", [])}
        claimed = {t["metadata"]["name"] for t in o["spec"].get("volumeClaimTemplates", [])}
        used = {m["name"] for c in containers(o) for m in c.get("volumeMounts", [])}
        if used != set(volumes) | claimed:
            yield f"{name}: volumes that are not there or not used: {used ^ (set(volumes) | claimed)}"
        for volume in volumes.values():
            config, secret = volume.get("configMap", {}).get("name"), volume.get("secret", {}).get("secretName")
            if config and config not in configs:
                yield f"{name}: there is no ConfigMap {config}"
            if secret and (namespace, secret) not in secrets:
                yield f"{name}: there is no Secret {secret}"
        if "serviceName" in o["spec"] and o["spec"]["serviceName"] not in {s["metadata"]["name"] for s in of("Service")}:
            yield f"{name}: there is no Service {o['spec']['serviceName']}"
        for c in containers(o):
            at = f"{name} {c['name']}"
            if c["image"] not in images | {ours} or c["image"].endswith((":", ":latest")):
                yield f"{at}: the image {c['image']} is named nowhere"
            if (c.get("command", [""])[0] == "ciderfs") != (c["image"] == ours):
                yield f"{at}: the image {c['image']} does not have {c.get('command')}"
            if c["name"] in SIDECARS:
                for arg in c["args"]:
                    if arg.split("=")[0][2:] not in SIDECARS[c["name"]].split():
                        yield f"{at}: it has no flag {arg}"
            ports = {p["name"] for p in c.get("ports", [])}
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                port = c.get(probe, {}).get("httpGet", {}).get("port")
                if port and port not in ports:
                    yield f"{at}: there is no port {port}"
            for env in c.get("env", []):
                ref = env.get("valueFrom", {}).get("secretKeyRef")
                if ref and (namespace, ref["name"]) not in secrets:
                    yield f"{at}: there is no Secret {ref['name']}"
            for group in ("requests", "limits"):
                for kind in ("cpu", "memory"):
                    if not c.get("resources", {}).get(group, {}).get(kind):
                        yield f"{at}: no {group} of {kind}"
            security = c.get("securityContext", {})
            is_privileged = security.get("privileged", False)
            if is_privileged != ((part, c["name"]) in PRIVILEGED):
                yield f"{at}: privileged? {is_privileged}"
            if not is_privileged and (security.get("capabilities", {}).get("drop") != ["ALL"] or security.get("allowPrivilegeEscalation") is not False):
                yield f"{at}: it keeps capabilities"
            if not security.get("readOnlyRootFilesystem"):
                yield f"{at}: its root can be written"
            for mount in c.get("volumeMounts", []):
                if mount.get("mountPropagation") == "Bidirectional" and not is_privileged:
                    yield f"{at}: Bidirectional is for privileged containers"
            variables = {e["name"] for e in c.get("env", [])}
            for arg in c.get("args", []):
                for variable in re.findall(r"\$\((\w+)\)", arg):
                    if variable not in variables:
                        yield f"{at}: {arg} names no variable of its"
    yield from between(found, of, workloads, namespace, values, secrets, accounts)


def between(found, of, workloads, namespace, values, secrets, accounts):
    labels = [o["spec"]["template"]["metadata"]["labels"] for o in workloads]
    ports = lambda selector: {p["name"] for o in workloads if matches(selector, o["spec"]["template"]["metadata"]["labels"])
                              for c in containers(o) for p in c.get("ports", [])}
    for o in of("Service"):
        for port in o["spec"]["ports"]:
            if port["targetPort"] not in ports(o["spec"]["selector"]):
                yield f"{key(o)}: no pod has the port {port['targetPort']}"
    for o in of("PodDisruptionBudget") + of("NetworkPolicy") + of("PodMonitor"):
        selector = o["spec"].get("selector") or o["spec"]["podSelector"]
        if not any(matches(selector["matchLabels"], l) for l in labels):
            yield f"{key(o)}: it selects nothing"
        named = [p["port"] for rule in o["spec"].get("ingress", []) for p in rule.get("ports", [])]
        named += [e["port"] for e in o["spec"].get("podMetricsEndpoints", [])]
        for port in named:
            if port not in ports(selector["matchLabels"]):
                yield f"{key(o)}: no pod has the port {port}"
    # Whoever looks for figures finds them.
    for o in workloads:
        for c in containers(o):
            for port in (p["containerPort"] for p in c.get("ports", []) if p["name"] == "metrics"):
                if f"--metrics=0.0.0.0:{port}" not in c["args"]:
                    yield f"{key(o)}: nothing serves metrics at port {port}"

    # Rights.
    roles = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o["rules"] for o in of("Role") + of("ClusterRole")}
    granted = {}
    bound = set()
    for o in of("RoleBinding") + of("ClusterRoleBinding"):
        ref = (o["roleRef"]["kind"], o["metadata"].get("namespace"), o["roleRef"]["name"])
        if ref not in roles:
            yield f"{key(o)}: there is no role {ref}"
            continue
        bound.add(ref)
        for subject in o["subjects"]:
            if subject["name"] not in accounts or subject["namespace"] != namespace:
                yield f"{key(o)}: there is no account {subject}"
            granted.setdefault(subject["name"], []).extend((ref, rule) for rule in roles[ref])
    for ref in set(roles) - bound:
        yield f"{ref} is nobody's"
    readable = set()
    for account, rules in granted.items():
        if account.endswith(("-node", "-mounter")):
            yield f"{account} has rights, and needs none"
        for ref, rule in rules:
            if "*" in rule["verbs"] + rule["resources"] + rule["apiGroups"] or "nodes/proxy" in rule["resources"] or "pods" in rule["resources"]:
                yield f"{ref} gives too much: {rule}"
            if "secrets" in rule["resources"]:
                if ref[0] == "ClusterRole" or rule["verbs"] != ["get"] or rule["resources"] != ["secrets"]:
                    yield f"{ref} gives secrets too widely: {rule}"
                if "resourceNames" not in rule and ref[1] not in values["rbac"]["secretNamespaces"]:
                    yield f"{ref} gives all secrets of {ref[1]}"
                readable |= {(ref[1], n) for n in rule.get("resourceNames", ["*"])}

    # Classes, their driver and their Secrets.
    drivers = {o["metadata"]["name"] for o in of("CSIDriver")}
    if drivers != {values["driverName"]}:
        yield f"CSIDriver {drivers}"
    for o in of("CSIDriver"):
        if o["spec"].get("seLinuxMount", False) != values["csidriver"]["seLinuxMount"]:
            yield f"{key(o)}: seLinuxMount is {o['spec'].get('seLinuxMount')}"
    for o in of("StorageClass") + of("VolumeSnapshotClass"):
        if o.get("provisioner", o.get("driver")) not in drivers:
            yield f"{key(o)}: of another driver"
        parameters = o["parameters"]
        for name in (n for n in parameters if n.endswith("-secret-name")):
            secret = (parameters[name.replace("-name", "-namespace")], parameters[name])
            if secret not in secrets:
                yield f"{key(o)}: there is no Secret {secret}"
            if secret not in readable and (secret[0], "*") not in readable:
                yield f"{key(o)}: the controller may not read {secret}"
        uses = {n.split("/")[1].removesuffix("-secret-name") for n in parameters if n.endswith("-secret-name")}
        wanted = {"snapshotter", "snapshotter-list"} if o["kind"] == "VolumeSnapshotClass" else {"provisioner", "controller-expand", "node-stage", "node-publish"}
        if uses != wanted:
            yield f"{key(o)}: Secrets for {uses}"
    # Snapshots of every volume can be made and listed, and one class is that of those who name none.
    secret_of = lambda o, use: (o["parameters"].get(f"csi.storage.k8s.io/{use}-secret-namespace"), o["parameters"].get(f"csi.storage.k8s.io/{use}-secret-name"))
    if values["snapshot"]["enabled"]:
        needed = {secret_of(o, "provisioner") for o in of("StorageClass")}
        given = [secret_of(o, "snapshotter") for o in of("VolumeSnapshotClass")]
        if sorted(given) != sorted(needed):
            yield f"snapshot classes for {given}, storage classes of {needed}"
        first = [o for o in of("VolumeSnapshotClass") if o["metadata"]["annotations"]["snapshot.storage.kubernetes.io/is-default-class"] == "true"]
        if len(first) != values["snapshot"]["volumeSnapshotClass"]["isDefault"]:
            yield f"{len(first)} default snapshot classes"
    classes = {o["metadata"]["name"] for o in of("StorageClass")}
    for o in workloads:
        args = [a for c in containers(o) for a in c.get("args", [])]
        part = o["metadata"]["labels"]["app.kubernetes.io/component"]
        if part in ("controller", "node") and f"--driver-name={values['driverName']}" not in args:
            yield f"{key(o)}: of another driver"
        if part == "node":
            plugin = f"{values['kubeletDir']}/csi-plugins/{values['driverName']}"
            paths = {v["hostPath"]["path"] for v in pod_of(o)["volumes"] if "hostPath" in v}
            flag = "kubelet-socket" if values["node"]["singleImage"] else "kubelet-registration-path"
            if f"--{flag}={plugin}/csi.sock" not in args or not {plugin, f"{values['kubeletDir']}/plugins_registry"} <= paths:
                yield f"{key(o)}: kubelet does not find it"
        for template in o["spec"].get("volumeClaimTemplates", []):
            if template["spec"]["storageClassName"] in classes:
                yield f"{key(o)}: it keeps its data in itself"
    sockets = {a for o in workloads for c in containers(o) for a in c.get("args", []) if a.startswith("--mounter-socket=")}
    socket = sockets | {v["hostPath"]["path"] for o in workloads for v in pod_of(o)["volumes"] if v["name"] == "run-dir"}
    mounts = {v["hostPath"]["path"] for o in workloads for v in pod_of(o)["volumes"] if v["name"] == "mount-dir"}
    if len(socket - sockets) > 1 or len(sockets) > 1 or len(mounts) > 1:
        yield f"node plugin and mounter do not meet: {socket} {mounts}"

    # Addresses of metadata inside the cluster are of Services here.
    services = {(o["metadata"]["name"], o["metadata"]["namespace"]): {p["port"] for p in o["spec"]["ports"]} for o in of("Service")}
    for o in of("Secret"):
        if "metaurl" not in o["data"]:
            continue
        url = urllib.parse.urlsplit(base64.b64decode(o["data"]["metaurl"]).decode())
        parts = url.hostname.split(".")
        if parts[2:3] == ["svc"]:
            if url.port not in services.get((parts[0], parts[1]), ()):
                yield f"{key(o)}: there is no Service for {url.hostname}:{url.port}"
        elif not any(url.geturl() == c.get("backend", {}).get("metaurl") for c in values["storageClasses"]):
            yield f"{key(o)}: nobody named {url.hostname}"


def matches(selector, labels):
    return all(labels.get(k) == v for k, v in selector.items())


def tolerates(pod, taint):
    return any(t.get("operator") == "Exists" and t.get("key") in (None, taint) and t.get("effect") in (None, "NoSchedule")
               for t in pod.get("tolerations", []))
