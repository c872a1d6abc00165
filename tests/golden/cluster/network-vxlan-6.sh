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
ip link del bazaar-vxlan 2>/dev/null || true
ip link add bazaar-vxlan address 02:69:65:c4:34:b1 mtu 1450 type vxlan id 4096 local 10.1.0.11 dev eth0 dstport 8472 nolearning
ip addr add 10.244.0.0/32 dev bazaar-vxlan
ip -6 addr add fd00:244::ffff:ffff:ffff:fffe/128 dev bazaar-vxlan
ip link set bazaar-vxlan up
bridge fdb replace 02:21:8b:9d:c8:82 dev bazaar-vxlan dst 10.1.0.12
ip neigh replace 10.244.1.0 lladdr 02:21:8b:9d:c8:82 dev bazaar-vxlan nud permanent
ip route replace 10.244.1.0/24 via 10.244.1.0 dev bazaar-vxlan onlink
ip neigh replace fd00:244:0:1:ffff:ffff:ffff:fffe lladdr 02:21:8b:9d:c8:82 dev bazaar-vxlan nud permanent
ip -6 route replace fd00:244:0:1::/64 via fd00:244:0:1:ffff:ffff:ffff:fffe dev bazaar-vxlan onlink
