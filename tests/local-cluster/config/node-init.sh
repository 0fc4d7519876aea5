# Process 1 of the node, until it becomes the member program. Runs in network, mount, process, hostname and IPC
# namespaces of its own; everything made here ends with them. Arguments: see the names below.
set -eu
dir=$1 name=$2 member=$3 node_ip=$4 client_ip=$5 lb=$6

# Its own /run, /var/lib and /var/log: containerd, kubelet and the network plugins write to fixed places there.
mount --make-rshared /
mount --bind "$dir/fs/run" /run
mount --bind "$dir/fs/var-lib" /var/lib
mount --bind "$dir/fs/var-log" /var/log
# kubelet sets these for the whole machine: it gets files of its own that hold what it wants to see.
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  file="$dir/fs/sysctl.$(echo "${setting%=*}" | tr / .)"
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done
hostname "$name" || echo "$name" >/proc/sys/kernel/hostname

# The client lives in a network of its own that this process's child holds open.
LOCAL_CLUSTER_COMPONENT=client unshare --net "$member" pause &
client=$!
own=$(readlink /proc/self/ns/net)
while [ "$(readlink /proc/$client/ns/net)" = "$own" ]; do sleep 0.02; done
outside() { nsenter --net=/proc/$client/ns/net "$@"; }

ip link set lo up
ip link add uplink type veth peer name eth0 netns $client
ip addr add "$node_ip/24" dev uplink
ip link set uplink up
outside ip link set lo up
outside ip addr add "$client_ip/24" dev eth0
outside ip link set eth0 up
# A ClusterIP is rewritten only after a route for it was found: any will do.
ip route add default via "$client_ip"
# An external address nobody has been given ends here: sent back to the client it would come again.
ip link add lbsink type bridge
ip link set lbsink up
ip route add "$lb" dev lbsink
# The client knows the external range, and nothing of pods or Services.
outside ip route add "$lb" via "$node_ip"
echo 1 >/proc/sys/net/ipv4/ip_forward
# Answers of a pod on the same bridge must pass the rules that rewrote the request.
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables

touch "$dir/node.up"
exec "$member" pause
