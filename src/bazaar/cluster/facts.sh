# Prints what a machine is and holds, and changes nothing. One line a fact; see facts.parse.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec 2>/dev/null
set -f

fact() { printf '%s=%s\n' "$1" "$2"; }

. /etc/os-release
fact os "$ID"
fact os_version "$VERSION_ID"
fact os_name "$PRETTY_NAME"
fact architecture "$(uname -m)"
fact kernel "$(uname -r)"
fact hostname "$(cat /proc/sys/kernel/hostname)"
fact user "$(id -u)"
fact machine_id "$(cat /etc/machine-id)"
fact clock "$(date +%s.%N)"
fact processors "$(nproc)"
while read -r name value _; do
  case $name in
    MemTotal:) fact memory_kib "$value" ;;
    SwapTotal:) fact swap_kib "$value" ;;
  esac
done </proc/meminfo
[ -e /sys/fs/cgroup/cgroup.controllers ] && fact cgroup 2 || fact cgroup 1
[ -d /run/systemd/system ] && fact init systemd || fact init other
while read -r name value; do
  [ "$name" = CapBnd: ] && fact capabilities "$value"
done </proc/self/status
fact disk_kib "$(df -Pk /var/lib | awk 'NR==2 {print $4}')"
fact root_type "$(stat -f -c %T /)"
fact containerd_type "$(stat -f -c %T /var/lib/containerd || stat -f -c %T /var/lib)"
fact forwarding "$(cat /proc/sys/net/ipv4/ip_forward)"
fact source "$(ip -4 route get 192.0.2.1 | sed -n 's/.* src \([0-9.]*\).*/\1/p')"
fact source6 "$(ip -6 route get 2001:db8::1 | sed -n 's/.* src \([0-9a-f:]*\).*/\1/p')"
fact device "$(ip -4 route get 192.0.2.1 | sed -n 's/.* dev \([^ ]*\).*/\1/p')"
fact name_servers "$(sed -n 's/^nameserver *//p' /etc/resolv.conf | tr '\n' ' ')"
fact identity "$(cat @FOLDER@/identity)"
fact pending "$(cat @FOLDER@/pending)"
other=
for path in /etc/rancher /var/lib/rancher /var/lib/k0s /etc/kubernetes/manifests/kube-apiserver.yaml \
  /etc/kubernetes/kubelet.conf /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env; do
  [ -e "$path" ] && other="$other $path"
done
fact kubernetes "${other# }"

ip -4 -o address show | while read -r _ _ _ address _; do echo "address ${address}"; done
for name in containerd runc haproxy nft iptables conntrack socat mount ip tar base64 sha256sum \
  apt-get dnf modprobe kubelet wg; do
  path=$(command -v "$name") && echo "program $name $path"
done
ss -Hltn -p | awk '{
  who = $6; sub(/.*\(\("/, "", who); sub(/".*/, "", who); print "port", $4, who }'
set +f
for path in @SETS@/*/manifest.json; do
  [ -e "$path" ] && echo "set $(sha256sum <"$path" | cut -d' ' -f1) ${path%/manifest.json}"
done
set -f
if [ -s @FOLDER@/files ]; then
  # Those that are not there are not told.
  tr '\n' '\0' <@FOLDER@/files | xargs -0 sha256sum -- | while read -r digest path; do
    echo "file $digest $path"
  done
  tr '\n' '\0' <@FOLDER@/files | xargs -0 stat -c 'file mode %a %n' --
fi
# One that starts again by itself is soon what it will be: kube-proxy does when its node changes.
state() {
  state=$(systemctl is-active "$1")
  while [ "$state" = activating ] && [ "$patience" -gt 0 ]; do
    sleep 0.3
    patience=$((patience - 1))
    state=$(systemctl is-active "$1")
  done
}
patience=10
if [ -s @FOLDER@/units ]; then
  while read -r unit; do
    state "$unit"
    echo "unit $unit $state $(cat "@FOLDER@/started/$unit")"
  done <@FOLDER@/units
fi
if [ "${ASK_API-}" ] && [ -e @ADMIN@ ] && systemctl -q is-active kube-apiserver.service; then
  ask() { timeout 5 @FOLDER@/kubectl --kubeconfig @ADMIN@ --request-timeout 4s "$@"; }
  echo "addons $(ask -n kube-system get configmap bazaar -o 'jsonpath={.data.digest}')"
  ask get nodes -o go-template='{{range .items}}node {{.metadata.name}} {{range .status.conditions}}{{if eq .type "Ready"}}{{.status}}{{end}}{{end}} {{.status.nodeInfo.kubeletVersion}} {{or .spec.podCIDR "-"}} {{$c := ""}}{{range $k, $v := .metadata.labels}}{{$c}}{{$k}}={{$v}}{{$c = ","}}{{end}} {{$c = "-"}}{{range .spec.taints}}{{if ne $c "-"}},{{end}}{{$c = ""}}{{.key}}={{with .value}}{{.}}{{end}}:{{.effect}}{{end}}{{$c}} {{or .spec.unschedulable "-"}} {{with .metadata.annotations}}{{or (index . "@LABELS@") "-"}} {{or (index . "@TAINTS@") "-"}}{{else}}- -{{end}}
{{end}}'
fi
if [ "${ASK_API-}" ] && systemctl -q is-active etcd.service; then
  timeout 5 @ETCDCTL@ member list |
    while IFS=', ' read -r id status name rest; do echo "member $name $id $status"; done
fi
echo end=facts
