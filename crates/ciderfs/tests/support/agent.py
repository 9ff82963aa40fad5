"""A process that opens, locks, writes and closes files as it is told, a command a line."""
import errno, fcntl, os, signal, struct, sys

FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "a": os.O_WRONLY | os.O_APPEND, "ra": os.O_RDWR | os.O_APPEND}
KINDS = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
FLOCKS = {"sh": fcntl.LOCK_SH, "ex": fcntl.LOCK_EX, "un": fcntl.LOCK_UN}
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
FORM = "hhqqi4x"
files = {}


class Interrupted(Exception):
    pass


def interrupted(*_):
    raise Interrupted


def record(kind, start, length, whence=0):
    return struct.pack(FORM, KINDS[kind], int(whence), int(start), int(length), 0)


def found(raw):
    kind, _, start, length, pid = struct.unpack(FORM, raw)
    name = {v: k for k, v in KINDS.items()}[kind]
    return "free" if kind == fcntl.F_UNLCK else f"{name} {start} {length} {pid}"


def run(command, *args):
    if command == "open":
        name, path, flags = args
        files[name] = os.open(path, FLAGS[flags] | os.O_CREAT, 0o644)
    elif command == "dup":
        files[args[1]] = os.dup(files[args[0]])
    elif command == "close":
        os.close(files.pop(args[0]))
    elif command in ("try", "wait"):
        name, *what = args
        fcntl.fcntl(files[name], fcntl.F_SETLK if command == "try" else fcntl.F_SETLKW, record(*what))
    elif command in ("ofdtry", "ofdwait"):
        name, *what = args
        fcntl.fcntl(files[name], OFD_SETLK if command == "ofdtry" else OFD_SETLKW, record(*what))
    elif command == "get":
        name, *what = args
        return found(fcntl.fcntl(files[name], fcntl.F_GETLK, record(*what)))
    elif command == "flock":
        name, how, *nb = args
        fcntl.flock(files[name], FLOCKS[how] | (fcntl.LOCK_NB if nb else 0))
    elif command == "seek":
        return str(os.lseek(files[args[0]], int(args[1]), int(args[2])))
    elif command == "write":
        return str(os.write(files[args[0]], " ".join(args[1:]).encode()))
    elif command == "read":
        return os.pread(files[args[0]], 1 << 20, 0).decode()
    elif command == "size":
        return str(os.fstat(files[args[0]]).st_size)
    elif command == "links":
        return str(os.fstat(files[args[0]]).st_nlink)
    elif command == "fsync":
        os.fsync(files[args[0]])
    elif command == "alarm":
        signal.signal(signal.SIGALRM, interrupted)
        signal.setitimer(signal.ITIMER_REAL, float(args[0]))
    elif command == "childtry":
        # What a child may do with a file that it has inherited.
        name, *what = args
        end, begin = os.pipe()
        if os.fork() == 0:
            os.write(begin, answer(lambda: run("try", name, *what)).encode())
            os._exit(0)
        os.wait()
        said = os.read(end, 100).decode()
        os.close(end)
        os.close(begin)
        return said
    elif command == "childholds":
        # A child that keeps every file open until it is killed.
        child = os.fork()
        if child == 0:
            signal.pause()
        return str(child)
    elif command == "kill":
        os.kill(int(args[0]), signal.SIGKILL)
        os.waitpid(int(args[0]), 0)
    else:
        raise ValueError(command)
    return ""


def answer(work):
    try:
        return "ok " + (work() or "")
    except Interrupted:
        return "EINTR"
    except OSError as e:
        # One number, two names.
        return errno.errorcode[e.errno].replace("EDEADLOCK", "EDEADLK")


def append(path, how, lock, me, rounds, fresh):
    """Appends lines with the next number of the file, each under a lock."""
    open_it = lambda: os.open(path, os.O_CREAT | (os.O_RDWR | os.O_APPEND if how == "append" else os.O_RDWR), 0o644)
    fd = None if fresh else open_it()
    for n in range(rounds):
        if fresh:
            fd = open_it()
        if lock == "flock":
            fcntl.flock(fd, fcntl.LOCK_EX)
        else:
            fcntl.lockf(fd, fcntl.LOCK_EX)
        end = os.lseek(fd, 0, os.SEEK_END)
        tail = os.pread(fd, 200, max(0, end - 200)).splitlines()
        last = int(tail[-1].split()[0]) if tail else 0
        line = f"{last + 1} {me} {n} {'x' * (7 * n % 60)}\n".encode()
        assert os.write(fd, line) == len(line)
        if fresh:
            os.close(fd)
        elif lock == "flock":
            fcntl.flock(fd, fcntl.LOCK_UN)
        else:
            fcntl.lockf(fd, fcntl.LOCK_UN)


if sys.argv[1:2] == ["append"]:
    append(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5], int(sys.argv[6]), sys.argv[7] == "fresh")
else:
    print("ready", flush=True)
    for line in sys.stdin:
        print(answer(lambda: run(*line.split())).replace("\n", "|"), flush=True)
