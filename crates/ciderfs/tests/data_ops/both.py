what, prefix = sys.argv[1:]
if what == "look":
    for d in sorted(n for n in os.listdir(".") if not n.startswith(".")):
        for n in sorted(os.listdir(d)):
            fd = os.open(d + "/" + n, os.O_RDONLY)
            s = os.fstat(fd)
            sha = hashlib.file_digest(open(fd, "rb"), "sha1").hexdigest()
            show(d, n, s.st_ino, s.st_size, s.st_nlink, s.st_mtime_ns, sha)
    sys.exit()
if what == "make":
    os.mkdir(prefix)
os.chdir(prefix)
def noise(seed, n):
    return (hashlib.sha512(b"%d" % seed).digest() * (n // 64 + 1))[:n]
C = 64 << 20
if what == "make":
    a = opened("a")
    os.pwrite(a, noise(1, 500_000), 0)
    os.pwrite(a, noise(2, 300_000), C - 100_000)
    os.ftruncate(a, 2 * C)
    for mode, off, n in ((0, 0, 1000), (PUNCH | KEEP, 10_000, 5000), (ZERO, C - 10, 20), (ZERO | KEEP, 2 * C - 5, 100),
                         (0, 2 * C, 12_345), (PUNCH | KEEP, C + C // 2, C), (KEEP, 4 * C, 100)):
        show("allocate", fallocate(a, mode, off, n), os.fstat(a).st_size)
    b = opened("b")
    os.write(b, noise(3, 100_000))
    for n, off, to in ((200_000, 5000, 50_000), (C, C - 150_000, C - 50_000), (10, 1 << 40, 0), (C + 5000, 0, C + 77)):
        show("copy", os.copy_file_range(a, b, n, off, to), os.fstat(b).st_size)
    show("within", call(os.copy_file_range, b, b, 1000, 0, 500), os.copy_file_range(b, b, 1000, 0, 200_000))
    t = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(t, noise(4, 70_000))
    os.fsync(t)
    c = opened("c")
    while os.copy_file_range(a, c, 1 << 30):
        pass
    for fd in (a, b, c):
        os.fsync(fd)
        show("content", os.fstat(fd).st_size, digest(fd))
else:
    a, b = opened("a"), opened("b")
    fallocate(a, PUNCH | KEEP, 100, 400_000)
    fallocate(a, ZERO, C + 50_000, C)
    os.copy_file_range(b, a, 100_000, 0, 2 * C + 5)
    # No ftruncate to fewer chunks: the official client leaves their lists behind.
    os.ftruncate(b, os.fstat(b).st_size - 10)
    d = opened("d")
    os.copy_file_range(a, d, 1 << 30)
    for fd in (a, b, d):
        os.fsync(fd)
    os.unlink("a")
    os.unlink("c")
