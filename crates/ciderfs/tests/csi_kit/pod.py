import fcntl, os, sys, threading, time

os.chdir(sys.argv[1])
new = os.O_RDWR | os.O_CREAT | os.O_EXCL
locked = os.open("locked", new)
fcntl.lockf(locked, fcntl.LOCK_EX)
flocked = os.open("locked", os.O_RDWR)
fcntl.flock(flocked, fcntl.LOCK_EX)
opened = os.open("open", new)
log = os.open("log", new | os.O_APPEND)
written = bytearray()
lines, over = 0, False


def append():
    global lines
    while not over:
        line = b"%d\n" % lines
        assert os.write(log, line) == len(line)
        lines += 1


writer = threading.Thread(target=append)
writer.start()
print("ready", flush=True)
for command in sys.stdin:
    if command == "write\n":
        # Acknowledged, and not synced when something dies.
        data = bytes([97 + len(written) // 300_000]) * 300_000
        os.pwrite(opened, data, len(written))
        written.extend(data)
        print("written", flush=True)
    else:
        before = lines
        while writer.is_alive() and lines < before + 20:
            time.sleep(0.01)
        assert writer.is_alive()
        assert os.pread(opened, len(written), 0) == written
        os.fsync(opened)
        print("fine", flush=True)
over = True
writer.join()
for fd in (opened, log, locked, flocked):
    os.close(fd)
print(lines, flush=True)
