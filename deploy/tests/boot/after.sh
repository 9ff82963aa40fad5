# The same machine after its power failed.
. /out/inside.sh
systemctl start redis.service
await 90 is_active ciderfs@mnt-juicefs.service
expect "enough was stored" [ "$(wc -l </out/stored)" -ge 20 ]
while read -r n; do
  expect "what was stored before the power failed" is_whole "/mnt/juicefs/load-$n"
done </out/stored
touch /out/done
systemctl poweroff
