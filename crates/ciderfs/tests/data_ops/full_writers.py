# Eight writers fill a volume, several times: whatever write() accepted, fsync and close bring home.
import multiprocessing
import shutil

WRITERS, ROUNDS, PIECE = 8, 10, 10000


def fill(who):
    """Files until there is no room; what a later call said of data that was accepted, if anything."""
    made = []
    for n in range(1000):
        name = f"{who}/{n}"
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if n % 3 == 0 else 0), 0o644)
        except OSError as e:
            return made, e.errno != errno.ENOSPC and f"open: {e}"
        size, full = 0, False
        for i in range(10 + (who * 7 + n * 3) % 30):
            try:
                size += os.write(fd, bytes([65 + who]) * PIECE)
                if i == 9 and n % 4 == 1:
                    os.ftruncate(fd, size // 2)
                    os.lseek(fd, 0, os.SEEK_END)
                    size //= 2
            except OSError as e:
                if e.errno != errno.ENOSPC:
                    return made, f"write: {e}"
                full = True
                break
        made.append((name, size))
        try:
            if n % 2 == 0:
                os.fsync(fd)
            os.close(fd)
        except OSError as e:
            return made, f"{name}, {size} bytes accepted: {e}"
        if full:
            return made, None
    return made, "never full"


def work(who, queue):
    os.mkdir(f"{who}")
    made, wrong = fill(who)
    for name, size in made:
        with open(name, "rb") as f:
            data = f.read()
        if wrong is None and (len(data) != size or data.strip(bytes([65 + who]))):
            wrong = f"{name}: {len(data)} bytes of {size}"
    queue.put(wrong)


wrong = []
for _ in range(ROUNDS):
    queue = multiprocessing.Queue()
    writers = [multiprocessing.Process(target=work, args=(who, queue)) for who in range(WRITERS)]
    for w in writers:
        w.start()
    wrong += [w for w in (queue.get() for _ in writers) if w]
    for w in writers:
        w.join()
    for who in range(WRITERS):
        shutil.rmtree(f"{who}")
assert not wrong, wrong
print("done")
