#!/bin/bash
# Makes a guest for the lab's real VMs out of Debian packages: make.sh FOLDER -> FOLDER/{vmlinuz,initrd.gz}.
# Needs busybox-static, gcc, dpkg and, unless a cloud kernel is installed, the network: the kernel's package is
# downloaded and unpacked, never installed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}')
[ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64; run apt-get update" >&2; exit 1; }
version=${package#linux-image-}
if [ -f "/boot/vmlinuz-$version" ]; then
  kernel=/boot/vmlinuz-$version modules=/lib/modules/$version
else
  (cd "$work" && apt-get download -qq "$package" >&2 && dpkg-deb -x "$package"_*.deb kernel)
  kernel=$work/kernel/boot/vmlinuz-$version modules=$work/kernel/lib/modules/$version
fi

root=$work/root
mkdir -p "$root/bin" "$root/lib"
cp "$(dpkg -L busybox-static | grep -m1 '/bin/busybox$')" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
gcc -O2 -static -o "$root/echo" "$here/echo.c"
strip "$root/echo"
: > "$root/modules.list"
for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net; do
  file=$(find "$modules" -name "$name.ko*" | head -1)
  [ -n "$file" ] || continue
  case $file in *.xz) xz -dc "$file" > "$root/lib/$name.ko" ;; *) cp "$file" "$root/lib/$name.ko" ;; esac
  strip -g "$root/lib/$name.ko"
  echo "$name.ko" >> "$root/modules.list"
done
install -m755 "$here/init" "$root/init"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) > "$work/initrd.gz"
cp "$kernel" "$out/vmlinuz"
mv "$work/initrd.gz" "$out/initrd.gz"   # last: the guest is complete when it is there
