# After the facts: what only a doctor asks. One line a finding's ground; see doctor.parse.
set +f
for path in /etc/kubernetes/*.conf /etc/kubernetes/*.yaml /etc/kubernetes/pki/* \
  /etc/kubernetes/pki/etcd/* /var/lib/etcd /var/lib/kubelet/config.yaml /etc/cni/net.d/* \
  /etc/systemd/system/kube*.service /etc/systemd/system/etcd.service /var/log/kubernetes; do
  [ -e "$path" ] && stat -c 'mode %a %U:%G %n' "$path"
done
for path in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt; do
  [ -e "$path" ] && echo "certificate $path $(base64 -w 0 <"$path")"
done
for path in /etc/kubernetes/*.conf; do
  [ -e "$path" ] && sed -n "s|^ *client-certificate-data: *|certificate $path |p" "$path"
done
for unit in kube-apiserver kube-controller-manager kube-scheduler etcd kubelet; do
  pid=$(systemctl show -p MainPID --value $unit.service)
  [ "${pid:-0}" -gt 0 ] && tr '\0' '\n' <"/proc/$pid/cmdline" | sed "1d; s/^/flag $unit /"
done
sed 's/^/kubelet|/' /var/lib/kubelet/config.yaml
df -Pk /var/lib/etcd /var/lib/kubelet /var/lib/containerd /var/log |
  awk 'NR > 1 {print "space", $4, $5, $6}'
systemctl --failed --plain --no-legend | while read -r unit _; do echo "failed $unit"; done
# A question for the API's own name, by TCP, as a pod would ask it.
ask() {
  timeout 4 "$@" bash -c 'exec 3<>/dev/tcp/@DNS@/53 && printf "@QUESTION@" >&3 &&
    head -c 14 <&3 | od -An -v -tx1' | tr -d ' \n'
}
echo "dns machine $(ask env)"
# As the first pod that has a network here: gVisor takes its pods' addresses to itself.
for path in /run/netns/cni-*; do
  nsenter --net="$path" ip -4 route get @DNS@ >/dev/null || continue
  echo "dns pod $(ask nsenter --net="$path")"
  break
done
if [ "${ASK_API-}" ] && systemctl -q is-active etcd.service; then
  member() {
    timeout 6 @ETCDCTL@ --command-timeout=4s "$@"
  }
  echo "etcd $(member endpoint health --cluster -w json)"
  member alarm list | sed 's/^/alarm /'
fi
echo end=doctor
