#!/bin/sh
# A machine for the shell blocks of one page: with mounts, processes and a network of its own, so that the addresses and places of the
# page are there and nothing is left of them. Called through unshare: stage.sh CIDERFS TESTS TREE SCRIPT; the working directory is empty.
set -eu
program=$1 tests=$2 tree=$3 script=$4
stage=$PWD
mount -t tmpfs -o mode=0755 stage "$stage"
cd "$stage"
mkdir bin tree etc work
: >bin/ciderfs
mount --bind "$program" bin/ciderfs
: >bin/documents
mount --bind "$tests" bin/documents
: >page
mount --bind "$script" page
mount --bind "$tree" tree
mount -o remount,bind,ro tree
mount -t overlay -o "lowerdir=/etc,upperdir=$stage/etc,workdir=$stage/work" etc /etc
for place in /mnt /srv /root /run /var/log /var/cache /var/lib/redis; do mount -t tmpfs -o mode=0755 stage "$place"; done
mkdir -p /run/redis /var/log/redis
chown redis: /run/redis /var/log/redis /var/lib/redis
ip link set lo up
for host in 10.0.0.1 10.0.0.2; do ip address add "$host/32" dev lo; done

# What pages name and a test cannot have: the build, which is done, and the manager of services, which is that of the machine.
cat >bin/cargo <<'END'
#!/bin/sh
[ "$1 $2 $3" = "run --release --" ] || { echo "cargo: the stage has only \`cargo run --release --\`" >&2; exit 9; }
shift 3
exec ciderfs "$@"
END
cat >bin/systemctl <<'END'
#!/bin/sh
stop() {
  pid=$(cat /run/redis/redis-server.pid 2>/dev/null) || return 0
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}
start() { runuser -u redis -- redis-server /etc/redis/redis.conf --supervised no; }
case "$*" in
  "start redis-server") start ;;
  "stop redis-server") stop ;;
  "restart redis-server") stop; start ;;
  *) echo "systemctl: the stage has only Redis" >&2; exit 9 ;;
esac
END
chmod +x bin/cargo bin/systemctl
unset ACCESS_KEY SECRET_KEY SESSION_TOKEN JFS_RSA_PASSPHRASE META_PASSWORD REDIS_PASSWORD RUST_LOG XDG_DATA_HOME
export HOME=/root LC_ALL=C.UTF-8 STAGE="$stage" PATH="$stage/bin:$PATH"
cd tree
exec sh "$stage/page"
