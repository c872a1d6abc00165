"""Taking a cluster away from machines: what we put there goes, what was there before stays."""

from __future__ import annotations

from collections.abc import Callable

from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.facts import FOLDER
from bazaar.errors import ClusterError

Progress = Callable[[str], None]
RESET = f"""
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
set -u
if [ -s {FOLDER}/units ]; then
  # kubelet first: it would start again what is ended.
  for unit in kubelet.service $(grep -v containerd {FOLDER}/units); do
    systemctl disable -q --now "$unit" 2>/dev/null || true
  done
fi
ctr -n k8s.io task ls -q 2>/dev/null | while read -r id; do
  ctr -n k8s.io task rm -f "$id" >/dev/null 2>&1 || true
done
ctr -n k8s.io container ls -q 2>/dev/null | while read -r id; do
  ctr -n k8s.io container rm "$id" >/dev/null 2>&1 || true
done
systemctl stop containerd.service 2>/dev/null || true
for path in $(awk '$2 ~ "^/var/lib/kubelet/|^/run/netns/cni-" {{print $2}}' /proc/mounts |
  sort -r); do
  umount -l "$path" 2>/dev/null || true
done
for name in cni0 bazaar-vxlan; do ip link del $name 2>/dev/null || true; done
ip -4 route show proto 98 2>/dev/null | while read -r range rest; do
  ip route del "$range" proto 98 2>/dev/null || true
done
for table in bazaar_pods kube-proxy cni_hostport; do
  nft delete table ip $table 2>/dev/null || true
  nft delete table inet $table 2>/dev/null || true
done
nft delete table ip6 kube-proxy 2>/dev/null || true
if [ -s {FOLDER}/files ]; then
  while read -r path; do rm -f -- "$path"; done <{FOLDER}/files
fi
rm -rf /etc/kubernetes /var/lib/etcd /var/lib/kubelet /var/lib/kube-proxy /etc/coredns \\
  /etc/bazaar-node /var/lib/cni /var/log/kubernetes /var/log/pods /var/log/containers \\
  /run/netns/cni-* {FOLDER}
case $(readlink /usr/local/bin/kubectl) in /opt/bazaar/*) rm -f /usr/local/bin/kubectl ;; esac
find /opt/bazaar -mindepth 1 -maxdepth 1 -exec rm -rf {{}} + 2>/dev/null || true
systemctl daemon-reload
systemctl start containerd.service 2>/dev/null || true
ctr -n k8s.io image ls -q 2>/dev/null | xargs -r ctr -n k8s.io image rm >/dev/null 2>&1 || true
"""


async def reset(cluster: Cluster, progress: Progress) -> None:
    """Take the cluster away from every machine. Raises ClusterError with those that failed."""
    from bazaar.cluster.apply import each
    from bazaar.host import remote

    async def clear(node: Node) -> None:
        async with remote.connect(node.machine) as there:
            await there.run(RESET, root=True, timeout=120, what="taking the cluster away")

    progress(f"{cluster.name}: taking it away from {len(cluster.nodes)} machines")
    try:
        await each(cluster, cluster.nodes, clear)
    except ClusterError as error:
        raise ClusterError(error.message, hint="run the same again when they answer") from error
