import ctypes, errno, fcntl, hashlib, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
KEEP, PUNCH, ZERO = 1, 2, 16
def call(f, *a, **k):
    try:
        return f(*a, **k)
    except OSError as e:
        return errno.errorcode[e.errno]
def fallocate(fd, mode, off, n):
    c = ctypes
    failed = libc.fallocate(c.c_int(fd), c.c_int(mode), c.c_long(off), c.c_long(n))
    return errno.errorcode[c.get_errno()] if failed else 0
def digest(fd):
    return hashlib.sha1(os.pread(fd, 1 << 26, 0)).hexdigest()[:12]
def opened(name, flags=os.O_RDWR | os.O_CREAT, mode=0o644):
    return os.open(name, flags, mode)
show = print
