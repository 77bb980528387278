LC_ALL=C /usr/bin/qemu-system-x86_64 \
-name guest=web,debug-threads=on \
-machine pc-i440fx-7.2,usb=off -m size=2097152k -smp 2,sockets=2,cores=1,threads=1 \
-blockdev '{"driver":"file","filename":"/a,b.qcow2","node-name":"s","auto-read-only":true}' \
-blockdev '{"node-name":"f","read-only":false,"driver":"qcow2","file":"s","backing":null,"cache":{"direct":true}}' \
-device '{"driver":"virtio-blk-pci","bus":"pci.0","drive":"f","bootindex":1}' -msg timestamp=on
