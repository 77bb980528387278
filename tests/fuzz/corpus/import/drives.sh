# what a script may look like
sudo qemu-system-x86_64 -M q35,accel=kvm -m 1.5G,slots=2 -smp sockets=2,cores=2 \
  -name 'guest=my vm',debug-threads=on -drive file=a,,b.qcow2,if=none,id=d0,format=qcow2 \
  -device ahci,id=sata -device ide-hd,drive=d0,bus=sata.0,serial=x \
  -blockdev driver=file,node-name=f,filename=/n.img -blockdev qcow2,node-name=n,file=f \
  -device nvme,drive=n,serial=1 -cdrom "/iso/a b.iso" -fda boot.img -boot order=dca,menu=on \
  -kernel bz -initrd rd -append "console=ttyS0 \"q\" $X" -serial file:s.log -snapshot \
  -netdev user,id=n0 -device e1000,netdev=n0 -frob 7 -nographic disk.img; echo done
