import sqlite3, sys, time

db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
db.execute("create table t (n integer primary key, text text)")
end = time.monotonic() + 8
n = 0
while time.monotonic() < end:
    db.execute("begin immediate")
    for _ in range(5):
        n += 1
        db.execute("insert into t values (?, ?)", (n, "x" * (n % 700)))
    db.execute("commit")
assert db.execute("select count(*), sum(n) from t").fetchone() == (n, n * (n + 1) // 2)
assert db.execute("pragma integrity_check").fetchone() == ("ok",)
