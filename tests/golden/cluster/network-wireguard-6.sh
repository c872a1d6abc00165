#!/bin/sh -e
PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
modprobe -qa br_netfilter overlay vxlan wireguard 2>/dev/null || true
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
for name in iptables ip6tables; do
  path=/proc/sys/net/bridge/bridge-nf-call-$name
  [ ! -e $path ] || echo 1 >$path
done
nft -f - <<'END'
table ip bazaar_pods
delete table ip bazaar_pods
table ip bazaar_pods {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.244.0.0/24 ip daddr 10.244.0.0/16 accept
    ip saddr 10.244.0.0/24 ip daddr != 224.0.0.0/4 oifname != "cni0" masquerade
  }
}
table ip6 bazaar_pods
delete table ip6 bazaar_pods
table ip6 bazaar_pods {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip6 saddr fd00:244::/64 ip6 daddr fd00:244::/48 accept
    ip6 saddr fd00:244::/64 ip6 daddr != ff00::/8 oifname != "cni0" masquerade
  }
}
END
[ -e /sys/class/net/bazaar-wg ] || ip link add bazaar-wg type wireguard
wg setconf bazaar-wg /etc/bazaar-node/wireguard.conf
ip addr flush dev bazaar-wg
ip addr add 10.244.0.0 dev bazaar-wg
ip addr add fd00:244::ffff:ffff:ffff:fffe dev bazaar-wg
ip link set bazaar-wg mtu 1420 up
ip route flush dev bazaar-wg proto 98
ip -6 route flush dev bazaar-wg proto 98
ip route replace 10.244.1.0/24 dev bazaar-wg src 10.244.0.0 proto 98
ip -6 route replace fd00:244:0:1::/64 dev bazaar-wg src fd00:244::ffff:ffff:ffff:fffe proto 98
