# The same machine after its shutdown.
. /out/inside.sh
systemctl start redis.service
await 60 is_active ciderfs@mnt-juicefs.service
expect "content of the first boot" is_whole /mnt/juicefs/first
expect "content from before the shutdown" is_whole /mnt/juicefs/second
touch /out/done
systemctl poweroff
