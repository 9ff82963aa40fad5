. /out/inside.sh
await 90 is_active ciderfs-k3s-storage.service
expect "k3s came after the mount" is_active k3s.service
expect "cache and uploads" bash -c 'tr "\0" " " </proc/$(systemctl show -P MainPID ciderfs-k3s-storage.service)/cmdline | grep -F -- "--cache-dir /var/cache/juicefs --cache-size 1024M --max-uploads 20"'
store /mnt/juicefs/of-master
tell master-ready
await 90 told agent-ready
expect "what the agent wrote" is_whole /mnt/juicefs/of-agent
keeps
validates
expect "Redis wants a password" bash -c 'redis-cli -h 10.99.0.1 ping 2>&1 | grep NOAUTH'

# Redis dies and returns.
k3s=$(property k3s.service MainPID) client=$(property ciderfs-k3s-storage.service MainPID)
systemctl kill -s KILL redis-juicefs.service
tell redis-died
await 30 is_active redis-juicefs.service
await 60 store /mnt/juicefs/after-redis
tell redis-back
await 90 told agent-again
expect "what the agent wrote after it" is_whole /mnt/juicefs/of-agent-again
expect "the client runs on" [ "$(property ciderfs-k3s-storage.service MainPID)" = "$client" ]
expect "k3s runs on" [ "$(property k3s.service MainPID)" = "$k3s" ]

# The agent is destroyed, with its disk and its cache.
tell destroy-agent
await 60 told destroyed
systemctl restart ciderfs-k3s-storage.service
expect "what the lost agent had fsynced" is_whole /mnt/juicefs/of-agent
expect "what it had fsynced last" is_whole /mnt/juicefs/of-agent-again
# The manager learns of mounts a second later where many come at once.
expect "the manager knows the mount" await 10 is_active mnt-juicefs.mount
touch /out/done
systemctl poweroff
