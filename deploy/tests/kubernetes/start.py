"""The containers of the chart that run our program, started with the program: their command lines and environment as they are rendered,
volumes as directories, a root that nobody can write, and the user and capabilities that the pod gives. Needs root."""

import os
import pathlib
import socket
import subprocess
import tempfile
import time

PATIENCE = 30
# Volumes get a place of their own, and the root is read-only then.
SANDBOX = """
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,ro,bind /
shift
exec "$@"
"""


def problems(program, workload):
    pod = workload["spec"]["template"]["spec"]
    for container in pod["containers"]:
        if container.get("command", [""])[0] == "ciderfs":
            for problem in started(program, pod, container):
                yield f"{workload['kind']} {workload['metadata']['name']}: {problem}"


def started(program, pod, container):
    with tempfile.TemporaryDirectory(prefix="k8s") as name:
        where = pathlib.Path(name)
        where.chmod(0o755)
        # The longest first: one may lie in another.
        places = sorted((m["mountPath"], m["name"]) for m in container["volumeMounts"])[::-1]
        user = pod.get("securityContext", {}).get("runAsUser", 0)
        for _, volume in places:
            (where / volume).mkdir(exist_ok=True)
            os.chown(where / volume, user, user)

        def here(text):
            for path, volume in places:
                for before in ("=", "unix://"):
                    text = text.replace(f"{before}{path}", f"{before}{where}/{volume}")
            return text

        env = {"PATH": os.environ["PATH"], "NODE_NAME": "node-1", "TMPDIR": str(where / "tmp")}
        args = [here(a).replace("$(NODE_NAME)", "node-1") for a in container["args"]]
        command = ["unshare", "--mount", "sh", "-euc", SANDBOX, "sandbox", str(where)]
        if not container["securityContext"].get("privileged"):
            command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        command += [program, *container["command"][1:], *args]
        flag = "--mounter-socket=" if container["command"][1] == "mounter" else "--endpoint=unix://"
        listens = next(a for a in args if a.startswith(flag)).removeprefix(flag)
        log = where / "log"
        with log.open("w") as out:
            process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + PATIENCE
            while not answers(listens):
                if process.poll() is not None or time.monotonic() > end:
                    yield f"{container['command']} does not listen at {listens}: {log.read_text()}"
                    return
                time.sleep(0.05)
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                yield f"{container['command']} does not end: {log.read_text()}"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def answers(path):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
        except OSError:
            return False
    return True
