# Writes through a descriptor that another process makes direct and buffered again, all the time (generic/036): what a write was
# when it began and what its descriptor says when it is sent may differ.
import fcntl, mmap, time

fd = opened("toggled")
flags = fcntl.fcntl(fd, fcntl.F_GETFL)
end = time.monotonic() + 5


def toggle():
    while time.monotonic() < end:
        for _ in range(100):
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def write(first):
    page, back = (memoryview(mmap.mmap(-1, 4096))[:512] for _ in range(2))
    wrote = 0
    while time.monotonic() < end:
        wrote += 1
        # Parts of pages that the kernel does not know whole: it keeps them locked until such a write is answered.
        at = first + 8192 * (wrote % 4)
        page[:8] = wrote.to_bytes(8, "little")
        assert os.pwritev(fd, [page], at) == 512
        if wrote % 16 == 0:
            # What was written last is read, whichever way it went.
            assert os.preadv(fd, [back], at) == 512 and back[:8] == page[:8], (wrote, bytes(back[:8]))
    assert wrote > 10


children = []
for work in (toggle, lambda: write(0), lambda: write(512)):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
print("done")
