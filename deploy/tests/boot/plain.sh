# One machine with the plain units. Redis comes up late.
. /out/inside.sh
mount=ciderfs@mnt-juicefs.service format=ciderfs-format@mnt-juicefs.service

# Storage is away: whoever writes gets an error.
await 10 is_active ciderfs-guard@mnt-juicefs.service
refuse "active before Redis is there" is_active "$mount"
expect "closed" [ "$(stat -c %a:%u /mnt/juicefs)" = 555:0 ]
case $(lsattr -d /mnt/juicefs) in
  *i*\ *) refuse "a write while nothing is mounted" touch /mnt/juicefs/lost ;;
esac

# A first attempt to make the volume fails, and the mount with it; a later one brings both.
await 90 bash -c "[ \$(systemctl show -P NRestarts $format) -ge 1 ]"
systemctl start redis.service
await 60 is_active "$mount"
expect "format" is_active "$format"
expect "visible to this unit" is_mounted /mnt/juicefs
await 10 bash -c 'systemctl show -P Before mnt-juicefs.mount | grep -w remote-fs.target'
expect "cache of the client alone" [ "$(stat -c %a /var/cache/ciderfs/mnt/juicefs)" = 700 ]
store /mnt/juicefs/first
expect "content" is_whole /mnt/juicefs/first
keeps
validates
chmod 0640 /etc/ciderfs/mnt/juicefs.env
validates "/etc/ciderfs/mnt/juicefs.env has mode 640"
chmod 0600 /etc/ciderfs/mnt/juicefs.env

# The client dies: systemd brings it back, and who uses it runs on.
main=$(property "$mount" MainPID)
consumer=$(property consumer.service MainPID)
kill -KILL "$main"
await 10 bash -c "[ \$(systemctl show -P MainPID $mount) != $main ]"
await 60 is_active "$mount"
expect "content after kill -9" is_whole /mnt/juicefs/first
expect "the consumer runs on" [ "$(property consumer.service MainPID)" = "$consumer" ]
systemctl restart "$mount"
expect "content after a restart" is_whole /mnt/juicefs/first
expect "the consumer still runs on" [ "$(property consumer.service MainPID)" = "$consumer" ]

systemctl reload "$mount"
expect "after a reload" is_whole /mnt/juicefs/first
systemctl stop "$mount"
refuse "mounted after a stop" is_mounted /mnt/juicefs
expect "stopped well" [ "$(property "$mount" Result)" = success ]
validates "$mount is inactive"
validates "nothing is mounted at /mnt/juicefs"
expect "closed again" [ "$(stat -c %a /mnt/juicefs)" = 555 ]
systemctl start "$mount"
expect "content after a start" is_whole /mnt/juicefs/first

# Mounted by hand: the unit starts, and lives as long as that mount.
systemctl stop "$mount"
systemd-run -q --unit=by-hand -p EnvironmentFile=/etc/ciderfs/mnt/juicefs.env \
  /usr/lib/ciderfs/ciderfs-unit run /usr/bin/ciderfs mount --cache-dir memory --metrics= @META_URL@ /mnt/juicefs
await 30 is_mounted /mnt/juicefs
by_hand=$(property by-hand.service MainPID)
expect "starts over a mount by hand" systemctl start "$mount"
expect "says so" bash -c "systemctl show -P StatusText $mount | grep 'already mounted'"
expect "content of the mount by hand" is_whole /mnt/juicefs/first
kill -KILL "$by_hand"
await 30 bash -c "[ \$(systemctl show -P NRestarts $mount) -ge 1 ] && [ \$(systemctl is-active $mount) = active ]"
expect "served by the unit then" bash -c "systemctl show -P StatusText $mount | grep -v 'already mounted'"
expect "content after it" is_whole /mnt/juicefs/first
systemctl stop "$mount"
systemctl reset-failed by-hand.service
systemd-run -q --unit=by-hand -p EnvironmentFile=/etc/ciderfs/mnt/juicefs.env \
  /usr/lib/ciderfs/ciderfs-unit run /usr/bin/ciderfs mount --cache-dir memory --metrics= @META_URL@ /mnt/juicefs
await 30 is_mounted /mnt/juicefs
expect "starts over a mount by hand again" systemctl start "$mount"
systemctl stop "$mount"
refuse "mounted after a stop of the unit" is_mounted /mnt/juicefs
refuse "served after a stop of the unit" is_active by-hand.service
expect "stopped well after following" [ "$(property "$mount" Result)" = success ]
expect "no line of any mount" bash -c '! grep " TARGET=/mnt/juicefs " /run/mount/utab'
systemctl start "$mount"

# Two file systems.
sed 's/^VOLUME=.*/VOLUME=second/; s|:6379/1|:6379/2|' /etc/ciderfs/mnt/juicefs.env >/etc/ciderfs/mnt/second-one.env
expect "mounts a second file system" systemctl start 'ciderfs@mnt-second\x2done.service'
# The manager learns of mounts a second later where many come at once.
expect "the manager knows the second" await 10 is_active 'mnt-second\x2done.mount'
store /mnt/second-one/file
expect "content of the second" is_whole /mnt/second-one/file
refuse "the first in the second" ls /mnt/second-one/first
expect "one cache each" [ -d /var/cache/ciderfs/mnt/second-one ]

# Another volume at the same place: left alone, not mounted, not tried again.
sed 's/^VOLUME=.*/VOLUME=another/' /etc/ciderfs/mnt/juicefs.env >/etc/ciderfs/mnt/other.env
refuse "mounts another volume" systemctl start ciderfs@mnt-other.service
expect "exit code of format" [ "$(property ciderfs-format@mnt-other.service ExecMainStatus)" = 2 ]
expect "format is not tried again" [ "$(property ciderfs-format@mnt-other.service ActiveState)" = failed ]

. /out/units.sh

store /mnt/juicefs/second
systemctl list-units --failed --no-pager
touch /out/done
systemctl poweroff
