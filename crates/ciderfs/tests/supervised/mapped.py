import mmap, os, sys, time

# Pages written through a mapping, some of them synced, and read in the end through another mount as well.
PAGES = 256
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.ftruncate(fd, PAGES * 4096)
pages = mmap.mmap(fd, PAGES * 4096)
expected = bytearray(PAGES * 4096)
end = time.monotonic() + 8
n = 0
while time.monotonic() < end:
    at = n * 7 % PAGES * 4096
    expected[at : at + 4096] = pages[at : at + 4096] = n.to_bytes(8, "little") * 512
    if n % 50 == 0:
        pages.flush()
    n += 1
    time.sleep(0.001)
pages.flush()
os.fsync(fd)
assert os.pread(fd, len(expected), 0) == expected
with open(sys.argv[2], "rb") as f:
    assert f.read() == expected, "the other mount has something else"
