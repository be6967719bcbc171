# What version 0.1 holds in the kernel of node-1, with node-2 and node-3 as peers and the defaults of all settings. Nodes of
# later versions must still hold this, or at least take it over without a write: it is what the nodes of a cluster
# presume of each other, and what an upgrade finds. Not to be changed, but for a reason that docs/install.md gives to whoever
# upgrades.
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding

# The VTEP MACs: 66, then five bytes of SHA-1 over "node-1", and over "node-1-v6".
ip link add vxlan.calico address 66:b3:68:28:39:8e mtu 1450 up type vxlan id 4096 local 172.30.0.2 dev eth0 dstport 4789 nolearning
ip link add vxlan-v6.calico address 66:24:ac:63:df:6c mtu 1430 up type vxlan id 4096 local fd00:30::2 dev eth0 dstport 4789 nolearning udp6zerocsumrx
echo 2 >/proc/sys/net/ipv4/conf/vxlan.calico/rp_filter

# The tunnel addresses: the first of each pod subnet.
ip address add 10.244.1.0/32 dev vxlan.calico
ip address add fd00:244:1::/128 dev vxlan-v6.calico nodad
ip route add blackhole 10.244.1.0/24 proto 80
ip route add blackhole fd00:244:1::/64 proto 80

# The peers. The ids of nexthops are each agent's own choice: these are none that a hash would give.
bridge fdb add 66:c0:93:2e:56:2c dev vxlan.calico dst 172.30.0.3 self permanent
bridge fdb add 66:87:de:de:c9:2e dev vxlan.calico dst 172.30.0.4 self permanent
bridge fdb add 66:1a:96:15:e3:d8 dev vxlan-v6.calico dst fd00:30::3 self permanent
bridge fdb add 66:aa:b0:50:e4:84 dev vxlan-v6.calico dst fd00:30::4 self permanent
ip neighbour add 10.244.2.0 lladdr 66:c0:93:2e:56:2c dev vxlan.calico nud permanent protocol 80
ip neighbour add 10.244.3.0 lladdr 66:87:de:de:c9:2e dev vxlan.calico nud permanent protocol 80
ip neighbour add fd00:244:2:: lladdr 66:1a:96:15:e3:d8 dev vxlan-v6.calico nud permanent protocol 80
ip neighbour add fd00:244:3:: lladdr 66:aa:b0:50:e4:84 dev vxlan-v6.calico nud permanent protocol 80
ip nexthop add id 1000000001 via 10.244.2.0 dev vxlan.calico onlink proto 80
ip nexthop add id 1000000002 via 10.244.3.0 dev vxlan.calico onlink proto 80
ip nexthop add id 1000000003 via fd00:244:2:: dev vxlan-v6.calico onlink proto 80
ip nexthop add id 1000000004 via fd00:244:3:: dev vxlan-v6.calico onlink proto 80
ip route add 10.244.2.0/24 nhid 1000000001 proto 80
ip route add 10.244.3.0/24 nhid 1000000002 proto 80
ip route add fd00:244:2::/64 nhid 1000000003 proto 80
ip route add fd00:244:3::/64 nhid 1000000004 proto 80
