# Waits until the process that started a cluster is gone, however it went, then stops the cluster and removes it.
# Arguments: the cluster's directory, the name of its cgroup. Standard input: a pipe that process holds open.
# It must live without that process, so it is a shell and not a thread; `down` ends it with the other processes.
cat >/dev/null
exec 9>"$1.lock"
flock 9
turn=0
while [ $turn -lt 200 ]; do
  turn=$((turn + 1)) found=
  for environ in /proc/[0-9]*/environ; do
    pid=${environ#/proc/} pid=${pid%/environ}
    [ "$pid" = $$ ] && continue
    if grep -qzxF "LOCAL_CLUSTER_DIR=$1" "$environ" 2>/dev/null; then
      kill -KILL "$pid" 2>/dev/null && found=1
    fi
  done
  [ -z "$found" ] && break
done
for cgroup in /sys/fs/cgroup/*/"$2" /sys/fs/cgroup/"$2"; do
  [ -d "$cgroup" ] || continue
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$cgroup" ] || break
    sleep 0.2
  done
done
[ -e "$1/local-cluster.json" ] && rm -rf "$1"
rm -f "$1.lock"
