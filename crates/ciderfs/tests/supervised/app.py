import fcntl, mmap, os, sys

os.chdir(sys.argv[1])
written = os.open("written", os.O_RDWR | os.O_CREAT | os.O_EXCL)
appended = os.open("appended", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
removed = os.open("removed", os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.write(removed, b"still here")
os.unlink("removed")
locked = os.open("locked", os.O_RDWR | os.O_CREAT | os.O_EXCL)
fcntl.lockf(locked, fcntl.LOCK_EX)
flocked = os.open("locked", os.O_RDWR)
fcntl.flock(flocked, fcntl.LOCK_EX)
mapped = os.open("mapped", os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.ftruncate(mapped, 1 << 20)
pages = mmap.mmap(mapped, 1 << 20)
os.mkdir("listed")
for i in range(3000):
    os.close(os.open(f"listed/{i:04}", os.O_WRONLY | os.O_CREAT))
stream = os.scandir("listed")
seen = [next(stream).name for _ in range(100)]
unsynced = bytearray()


def before(n):
    # Not synced when the worker is killed.
    data = bytes([65 + n]) * 300_000
    os.pwrite(written, data, len(unsynced))
    unsynced.extend(data)
    os.write(appended, f"before {n}\n".encode())
    pages[n * 4096 : n * 4096 + 5] = b"page%d" % n


before(0)
print("ready", flush=True)
n = 0
for _ in sys.stdin:
    os.write(appended, f"after {n}\n".encode())
    assert os.pread(written, len(unsynced), 0) == unsynced
    assert os.pread(removed, 100, 0) == b"still here"
    assert os.fstat(removed).st_nlink == 0
    assert pages[n * 4096 : n * 4096 + 5] == b"page%d" % n
    pages.flush()
    os.fsync(written)
    for _ in range(400):
        entry = next(stream, None)
        if entry is not None:
            seen.append(entry.name)
    n += 1
    if n < 4:
        before(n)
    print(f"round {n - 1}", flush=True)
seen.extend(entry.name for entry in stream)
assert sorted(seen) == [f"{i:04}" for i in range(3000)], len(seen)
with open("mapped", "rb") as f:
    content = f.read()
for i in range(4):
    assert content[i * 4096 : i * 4096 + 5] == b"page%d" % i
for fd in (written, appended, removed, locked, flocked, mapped):
    os.close(fd)
print("end", flush=True)
