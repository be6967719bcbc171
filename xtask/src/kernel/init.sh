#!/bin/busybox sh
# The first program of the virtual machine: runs the tests listed in /tests, tells on the second serial port how each
# ended, and switches off. What it does not get to tell, the host counts as a failure.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for directory in /dev/shm /run /tmp; do mount -t tmpfs tmpfs $directory; done
ip link set lo up
exec 3>/dev/ttyS1

. /environment
export ROUTELET_SKIPPED=/run/skipped
modprobe -a $MODULES
seconds() { cut -d. -f1 /proc/uptime; }
echo "Linux $(uname -r) has booted in $(seconds) s"

while IFS='	' read -r name directory path; do
  began=$(seconds)
  echo "--- $name"
  cd "$directory" && timeout -s KILL "$LIMIT" "$path" $ARGUMENTS </dev/null
  echo "ended $name $? $(($(seconds) - began))" >&3
done </tests

[ ! -e $ROUTELET_SKIPPED ] || sed 's/^/skipped /' $ROUTELET_SKIPPED >&3
echo "complete" >&3
sync
poweroff -f
