fd = opened("alloc")
os.write(fd, bytes(range(1, 251)) * 800)
for mode in (0, KEEP, PUNCH | KEEP, ZERO, ZERO | KEEP):
    for off, n in ((0, 0), (-1, 5), (5, -1), (10, 5000), (4096, 8192), (190000, 20000), (300000, 100),
                   (1 << 62, 1 << 62), (1 << 62, 100)):
        show("fallocate", mode, off, n, fallocate(fd, mode, off, n), os.fstat(fd).st_size, digest(fd))
show("punch alone", fallocate(fd, PUNCH, 0, 10), "with zero", fallocate(fd, PUNCH | ZERO | KEEP, 0, 10))
show("unknown", fallocate(fd, 1 << 20, 0, 1))
read = os.open("alloc", os.O_RDONLY)
show("read-only", fallocate(read, 0, 0, 10), fallocate(read, PUNCH | KEEP, 0, 10))
d = os.open(".", os.O_RDONLY)
show("directory", fallocate(d, 0, 0, 10))
os.mkfifo("pipe")
show("fifo", fallocate(os.open("pipe", os.O_RDWR), 0, 0, 10))
for mode in (0, KEEP, PUNCH | KEEP, ZERO):
    before = os.stat("alloc")
    fallocate(fd, mode, 0, 10)
    after = os.stat("alloc")
    show("times advance", mode, after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns)
# Unlinked, it is still a file.
os.unlink("alloc")
show("unlinked", fallocate(fd, 0, 0, 1 << 20), fallocate(fd, PUNCH | KEEP, 0, 100000), os.fstat(fd).st_size, digest(fd))
