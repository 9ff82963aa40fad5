LIMIT = 1 << 57
fd = opened("greatest")
assert call(os.ftruncate, fd, LIMIT) == "EFBIG"
os.ftruncate(fd, LIMIT - 1)
assert os.fstat(fd).st_blocks == 0
assert call(os.lseek, fd, 0, os.SEEK_DATA) == "ENXIO"
assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
os.pwrite(fd, b"end", LIMIT - 4)
for off, n in ((LIMIT - 1, 1), (LIMIT - 3, 3), (LIMIT, 1), (LIMIT + 5, 1)):
    assert call(os.pwrite, fd, b"x" * n, off) == "EFBIG", (off, n)
assert fallocate(fd, 0, LIMIT - 10, 9) == 0 and fallocate(fd, 0, LIMIT - 10, 10) == "EFBIG"
assert os.pread(fd, 10, LIMIT - 5) == b"\0end"
for _ in range(2):
    assert os.lseek(fd, 0, os.SEEK_DATA) == LIMIT - 4096
    assert os.lseek(fd, LIMIT - 3, os.SEEK_HOLE) == LIMIT - 1
    os.fsync(fd)
twin = opened("twin")
done = 0
while done < LIMIT - 1:
    n = os.copy_file_range(fd, twin, (1 << 62), done, done)
    assert n > 0
    done += n
assert os.fstat(twin).st_size == LIMIT - 1 and os.pread(twin, 10, LIMIT - 5) == b"\0end"
assert fallocate(twin, PUNCH | KEEP, 1, LIMIT - 3) == 0 and os.pread(twin, 10, LIMIT - 5) == b"\0\0\0d"
print("done")
