# Writes until the machine loses its power; /out/stored has what is on stable storage.
. /out/inside.sh
set +x
systemctl start redis.service
await 60 is_active ciderfs@mnt-juicefs.service
for n in $(seq 100000); do
  store "/mnt/juicefs/load-$n" 1 && echo "$n" >>/out/stored
done
