keep = []
def made(name, flags=0):
    keep.append(opened(name, os.O_RDWR | os.O_CREAT | flags))
    return keep[-1]
fd = made("sync", os.O_SYNC)
os.write(fd, b"first ")
os.write(fd, b"second")
os.write(made("dsync", os.O_DSYNC), b"data")
page = mmap.mmap(-1, 8192)
page[:] = b"d" * 8192
os.writev(made("direct", os.O_DIRECT | os.O_DSYNC), [page])
fd = made("mapped")
os.ftruncate(fd, 10000)
m = mmap.mmap(fd, 10000)
m[4096:4100] = b"page"
m.flush()
source = made("source")
os.write(source, b"copied")
target = made("fsynced")
os.copy_file_range(source, target, 6, 0, 0)
os.fsync(target)
keep.append(os.open(".", os.O_TMPFILE | os.O_RDWR))
os.write(keep[-1], b"gone" * 5000)
os.fsync(keep[-1])
print("synced", flush=True)
sys.stdin.read()
os._exit(0)
