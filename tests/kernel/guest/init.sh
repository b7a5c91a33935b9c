#!/bin/sh
# The first program of the guest: it gives a read-only view of the host some writable places, the 9P client and the
# network, and hands over to the agent. The host's files are seen, uncovered, under /mnt/host.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8
mount -t tmpfs tmpfs /mnt
mkdir /mnt/host
mount --bind / /mnt/host
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
for module in net/9p/9pnet net/9p/9pnet_fd fs/netfs/netfs fs/fscache/fscache fs/9p/9p; do
    insmod "/usr/lib/uml/modules/$(uname -r)/kernel/$module.ko"
done
ip link set lo up
ip address add 10.99.0.2/24 dev vec0
ip link set vec0 up
cd "/mnt/host$(dirname "$0")/../.." && /usr/bin/python3 -X pycache_prefix=/run/python -m kernel.guest.agent
halt -f
