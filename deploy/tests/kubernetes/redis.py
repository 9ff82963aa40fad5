"""The chart's Redis, with a real server: its start and its probes as the ConfigMap has them, in other directories."""

import pathlib
import re
import socket
import subprocess
import tempfile
import time

PASSWORD = "it's a \"pass\\word\" $HOME"


def problems(found):
    config = next(o for o in found if o["kind"] == "ConfigMap" and "redis.conf" in o["data"])
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        where = pathlib.Path(name)
        for inner in ("etc", "data", "tmp"):
            (where / inner).mkdir()
        for file, text in config["data"].items():
            places = {"/etc/redis": f"{where}/etc", "/data": f"{where}/data", "/tmp": f"{where}/tmp", "6379": str(port)}
            (where / "etc" / file).write_text(re.sub("|".join(places), lambda found: places[found[0]], text))
        env = {"PATH": "/usr/bin:/bin", "REDIS_PASSWORD": PASSWORD}
        empty = run(["sh", where / "etc/start.sh"], {**env, "REDIS_PASSWORD": ""})
        if empty.returncode == 0 or "no redis-password" not in empty.stderr:
            yield f"it starts without a password: {empty.stderr}"
        # A container that has ended is started again in the same pod, with what the first one has left.
        for _ in range(2):
            server = subprocess.Popen(["sh", where / "etc/start.sh"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            try:
                yield from serving(where, port, env, server)
            finally:
                server.terminate()
                server.wait(timeout=30)


def serving(where, port, env, server):
    probe = lambda kind, password=PASSWORD: run(["sh", where / "etc/probe.sh", kind], {**env, "REDIS_PASSWORD": password})
    end = time.monotonic() + 30
    while probe("ready").returncode:
        if time.monotonic() > end or server.poll() is not None:
            server.kill()
            yield f"it does not become ready: {probe('ready').stdout} {server.stdout.read()}"
            return
        time.sleep(0.05)
    if probe("live").returncode:
        yield "it is ready and not alive"
    if probe("ready", "wrong").returncode == 0:
        yield "it is ready for a wrong password"
    cli = lambda password, *words: run(["redis-cli", "-p", str(port), *words], {**env, "REDISCLI_AUTH": password} if password else {"PATH": env["PATH"]})
    if "NOAUTH" not in cli("", "get", "x").stdout:
        yield "it answers without a password"
    for name, want in (("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction"), ("save", ""), ("maxmemory", str(768 << 20)),
                       ("protected-mode", "yes")):
        said = cli(PASSWORD, "config", "get", name).stdout.split("\n")
        if said[1] != want:
            yield f"{name} is {said[1]}, not {want}"
    proc = pathlib.Path(f"/proc/{server.pid}")
    for file in ("cmdline", "environ"):
        if b"pass\\word" in (proc / file).read_bytes():
            yield f"the password is in its {file}"
    if "redis-server" not in (proc / "comm").read_text():
        yield "it is not the first process"
    # A full one refuses, and throws nothing away.
    cli(PASSWORD, "set", "kept", "yes")
    cli(PASSWORD, "config", "set", "maxmemory", "1000")
    if "OOM" not in cli(PASSWORD, "set", "more", "x").stdout or "yes" not in cli(PASSWORD, "get", "kept").stdout:
        yield "a full one takes writes or throws data away"


def run(command, env):
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
