import itertools, subprocess
uid = int(sys.argv[1])
# Files of somebody else, who lets everybody write.
foreign = {}
changes = ("write", "append", "ftruncate", "allocate", "keep", "punch", "zero", "copy")
for what, mode in itertools.product(changes, (0o6666, 0o6676, 0o6766, 0o6777)) if uid else ():
    p = foreign[what, mode] = "foreign-%s-%o" % (what, mode)
    fd = opened(p, mode=0o600)
    os.write(fd, b"abc" * 3000)
    os.fchmod(fd, mode)
    os.close(fd)
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
ops["append"] = ops["write"]
for (what, mode), p in foreign.items():
    fd = os.open(p, os.O_RDWR | (os.O_APPEND if what == "append" else 0))
    os.stat(p)
    ops[what](fd, p)
    # This asks for the mode alone, which the kernel may have kept.
    show("foreign", what, oct(mode), subprocess.check_output(["stat", "-c", "%a", p]))
    os.close(fd)
    show("foreign, closed", what, oct(os.stat(p).st_mode & 0o7777))
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
