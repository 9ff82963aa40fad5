. /out/inside.sh
# The master may come up later.
await 120 is_active ciderfs-k3s-storage.service
expect "no unit of an agent makes volumes" [ -z "$(systemctl list-unit-files --no-legend 'ciderfs-format*')" ]
expect "cache and uploads" bash -c 'tr "\0" " " </proc/$(systemctl show -P MainPID ciderfs-k3s-storage.service)/cmdline | grep -F -- "--cache-dir /var/cache/juicefs --cache-size 2048M --max-uploads 20"'
await 90 told master-ready
expect "what the master wrote" is_whole /mnt/juicefs/of-master
store /mnt/juicefs/of-agent
tell agent-ready
keeps
await 90 told redis-back
expect "what the master wrote after Redis died" is_whole /mnt/juicefs/after-redis
await 30 store /mnt/juicefs/of-agent-again
tell agent-again
touch /out/done
sleep infinity
