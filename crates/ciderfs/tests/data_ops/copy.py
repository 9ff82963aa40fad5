a, b = opened("from"), opened("to")
os.write(a, bytes(range(256)) * 1000)
os.write(b, b"z" * 1000)
for args in ((a, b, 100, 0, 50), (a, b, 1 << 30, 200, 900), (a, b, 100, 256000, 0), (a, b, 100, 300000, 0),
             (a, b, 4096, 255000, 4096), (a, b, 100, 0, 1 << 20), (a, a, 100, 0, 50), (a, a, 100, 0, 100),
             (a, a, 1 << 20, 0, 255999), (a, a, 1000, 0, 300000), (a, b, 0, 0, 0)):
    source, target, n, off, to = args
    copied = call(os.copy_file_range, source, target, n, off, to)
    show("copy", args[2:], copied, os.fstat(target).st_size, digest(target))
append, write = os.open("to", os.O_WRONLY | os.O_APPEND), os.open("to", os.O_WRONLY)
read, d = os.open("from", os.O_RDONLY), os.open(".", os.O_RDONLY)
os.mkfifo("fifo")
pipe = os.open("fifo", os.O_RDWR)
show("to a file opened for appending", call(os.copy_file_range, a, append, 10, 0, 0))
show("from write-only", call(os.copy_file_range, write, a, 10, 0, 0))
show("to read-only", call(os.copy_file_range, a, read, 10, 0, 0))
show("directories", call(os.copy_file_range, d, a, 10, 0, 0), call(os.copy_file_range, a, d, 10, 0, 0))
show("fifo", call(os.copy_file_range, a, pipe, 10, 0))
before = os.stat("to")
os.copy_file_range(a, b, 10, 0, 0)
show("times advance", os.stat("to").st_mtime_ns > before.st_mtime_ns)
# Pages of the target that are in memory, and changes of the source that are only there.
os.ftruncate(a, 8192)
m = mmap.mmap(a, 8192)
m[0:6] = b"mapped"
os.pread(b, 100, 0)
os.copy_file_range(a, b, 6, 0, 10)
show("mapped", os.pread(b, 20, 0))
