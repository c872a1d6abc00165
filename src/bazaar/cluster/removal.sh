# Takes all of a cluster away from a machine: what was there before it stays. Can be run again.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
set -u
exec 3>&2 2>/dev/null
[ -d @FOLDER@ ] || exit 0
case $(cat @FOLDER@/identity) in
  '' | '@NAME@ '*) ;;
  *) echo "it belongs to another cluster by now: $(cat @FOLDER@/identity)" >&3; exit 1 ;;
esac

# kubelet first: it would start again what is ended. The others need no time to end well.
units=$(grep -v containerd @FOLDER@/units)
systemctl stop kubelet.service
for unit in $units; do
  systemctl kill -s KILL "$unit"
  systemctl disable -q --now "$unit"
done

# By their processes: a task whose sandbox is gone lets itself be removed by nobody.
kill -9 $(ctr -n k8s.io task ls | awk 'NR > 1 {print $2}')
for group in $(find /sys/fs/cgroup -maxdepth 3 -type d -name 'kubepods*'); do
  find "$group" -name cgroup.procs -exec cat {} + | xargs -r kill -9
done
pkill -9 -f 'containerd-shim.* -namespace k8s[.]io'
systemctl stop containerd.service
state=io.containerd.runtime.v2.task/k8s.io
awk '{print $2}' /proc/mounts | sort -r | while read -r path; do
  case $path in
    /var/lib/kubelet/* | /run/netns/cni-* | /run/containerd/*/k8s.io/* | \
      /run/containerd/io.containerd.grpc.*) umount -l "$path" ;;
  esac
done
rm -rf /run/containerd/$state /var/lib/containerd/$state /run/containerd/runsc
find /sys/fs/cgroup -maxdepth 4 -depth -type d -path '*/kubepods*' -exec rmdir {} +

for unit in $(systemctl list-units --all --plain --no-legend 'bazaar-edge@*' 'bazaar-names@*' | cut -d ' ' -f 1); do
  systemctl disable -q --now "$unit"
done
rm -rf /etc/bazaar-edge /etc/systemd/system/bazaar-edge@.service /etc/systemd/system/bazaar-names@.service

for name in cni0 bazaar-vxlan bazaar-wg; do ip link del $name; done
ip -4 route show proto 98 | while read -r range rest; do ip route del "$range" proto 98; done
ip -6 route show proto 98 | while read -r range rest; do ip -6 route del "$range" proto 98; done
for table in 'ip bazaar_pods' 'ip6 bazaar_pods' 'ip kube-proxy' 'ip6 kube-proxy' 'inet cni_hostport'; do
  nft delete table $table
done

[ -s @FOLDER@/files ] && while read -r path; do rm -f -- "$path"; done <@FOLDER@/files
rmdir /etc/systemd/system/containerd.service.d /etc/systemd/system/kubelet.service.d \
  /etc/containerd/certs.d/* /etc/containerd/certs.d
rm -rf /etc/kubernetes /var/lib/etcd /var/lib/etcd.before /var/lib/kubelet /var/lib/kube-proxy \
  /var/lib/bazaar-volumes /etc/coredns /etc/bazaar-node /var/lib/cni /var/log/kubernetes /var/log/pods \
  /var/log/containers /run/netns/cni-* @FOLDER@
case $(readlink /usr/local/bin/kubectl) in @SETS@/*) rm -f /usr/local/bin/kubectl ;; esac
rm -rf @SETS@/*
systemctl daemon-reload
systemctl start containerd.service
for kind in container image; do
  ctr -n k8s.io $kind ls -q | xargs -r ctr -n k8s.io $kind rm >/dev/null
done
exit 0
