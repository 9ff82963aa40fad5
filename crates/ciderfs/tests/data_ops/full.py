# One GiB in all; the inode itself costs 4 KiB only as long as it is empty.
fd, other, third = opened("a"), opened("b"), opened("c")
assert fallocate(fd, 0, 0, 1000 << 20) == 0
assert fallocate(fd, 0, 0, 1025 << 20) == "ENOSPC"
assert fallocate(fd, ZERO, 0, 1025 << 20) == "ENOSPC"
assert fallocate(fd, KEEP, 0, 1025 << 20) == "ENOSPC"
assert call(os.ftruncate, fd, 1025 << 20) == "ENOSPC"
written = 0
while True:
    n = call(os.pwrite, other, b"w" * (1 << 20), written)
    if n == "ENOSPC":
        break
    written += n
assert 20 << 20 <= written <= 24 << 20, written
# What was accepted arrives, overwriting needs no room, and removal makes some.
os.pwrite(other, b"x" * (1 << 20), 0)
os.fsync(other)
os.close(other)
assert os.stat("b").st_size == written
assert call(os.copy_file_range, fd, third, 100 << 20, 0, 0) == "ENOSPC"
os.ftruncate(fd, 10 << 20)
assert os.pwrite(opened("b"), b"y" * (1 << 20), written) == 1 << 20
print("done")
