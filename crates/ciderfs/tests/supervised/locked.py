import fcntl, os, sys

words = []
for lock in (fcntl.lockf, fcntl.flock):
    fd = os.open(sys.argv[1], os.O_RDWR)
    try:
        lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        words.append("free")
    except BlockingIOError:
        words.append("held")
    os.close(fd)
print(*words)
