uid = int(sys.argv[1])
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
name = lambda n: "%s-%d" % (n, uid)
source = opened(name("source"))
os.write(source, b"s" * 5000)
ops = {
    "write": lambda fd, p: os.write(fd, b"x"),
    "pwrite": lambda fd, p: os.pwrite(fd, b"x", 100),
    "ftruncate": lambda fd, p: os.ftruncate(fd, 10),
    "same length": lambda fd, p: os.ftruncate(fd, 3),
    "truncate": lambda fd, p: os.truncate(p, 20),
    "O_TRUNC": lambda fd, p: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)),
    "chown": lambda fd, p: os.chown(p, -1, os.getgid()),
    "allocate": lambda fd, p: fallocate(fd, 0, 0, 10000),
    "keep": lambda fd, p: fallocate(fd, KEEP, 0, 10000),
    "punch": lambda fd, p: fallocate(fd, PUNCH | KEEP, 0, 1),
    "zero": lambda fd, p: fallocate(fd, ZERO, 0, 1),
    "copy": lambda fd, p: os.copy_file_range(source, fd, 100, 0, 0),
    "nothing written": lambda fd, p: os.write(fd, b""),
    "utimes": lambda fd, p: os.utime(p),
}
for what, op in ops.items():
    for mode in (0o6755, 0o2745, 0o4644, 0o7777):
        p = name("%s-%o" % (what.replace(" ", ""), mode))
        fd = opened(p, mode=0o600)
        os.write(fd, b"abc")
        os.fchmod(fd, mode)
        os.stat(p)
        op(fd, p)
        show(what, oct(mode), oct(os.stat(p).st_mode & 0o7777))
        os.close(fd)
# Capabilities go whoever changes the content; only the superuser can give some.
if not uid:
    import struct
    capability = struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0)
    for what, op in ops.items():
        p = name("cap-" + what.replace(" ", ""))
        fd = opened(p, mode=0o755)
        os.write(fd, b"abc")
        os.setxattr(fd, "security.capability", capability)
        op(fd, p)
        show(what, call(os.getxattr, p, "security.capability"))
        os.close(fd)
