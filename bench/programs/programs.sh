#!/bin/sh
# programs.sh REPS [NAME...] - class programs: programs of Debian 12, all or those that are named,
# REPS times each. Runs in the tree that prepare-engines.sh makes, natively or in a guest.
export LC_ALL=C HOME=/tmp PYTHONDONTWRITEBYTECODE=1
reps=$1
shift
only=$*
data=/bench/data
out=/tmp/bench-out

t() { # NAME COMMAND...
    name=$1
    shift
    [ -z "$only" ] || case " $only " in *" $name "*) ;; *) return ;; esac
    pb time "programs/$name" "$reps" "$@"
}

mkdir -p $out
cat $data/* >/dev/null # read it from the disk once
t gzip gzip -6 -c $data/text
t gunzip gzip -dc $data/text.gz
t zstd zstd -q -3 -T1 -c $data/text
t unzstd zstd -q -d -c $data/text.zst
t xz xz -1 -T1 -c $data/text.small
t unxz xz -T1 -dc $data/text.xz
t bzip2 bzip2 -1 -c $data/text.small
t sha256sum sha256sum $data/text4
t md5sum md5sum $data/text4
t sort sort $data/lines
t grep grep -cE '([a-z])\1[a-z]*_[a-z]+\(' $data/text.small
t awk awk -f $data/t.awk $data/lines
t sed sed -n 's/\([a-z]*\)=\([a-z]*\)/\2=\1/p' $data/text.small
t lua lua5.4 $data/t.lua
t python python3 -S $data/t.py
t perl perl $data/t.pl
t python0 python3 -c pass
t perl0 perl -e 1
t lua0 lua5.4 -e 'x=1'
t bash0 bash -c true
t true /usr/bin/true
t sqlite sqlite3 -batch -init /dev/null :memory: ".read $data/t.sql"
t ccO0 gcc -O0 -c -o $out/int.o $data/int.c
t ccO1 gcc -O1 -c -o $out/int.o $data/int.c
t cc1 /usr/lib/gcc/x86_64-linux-gnu/12/cc1 -quiet -O1 -imultiarch x86_64-linux-gnu \
    $data/int.c -o $out/int.s
t cclink gcc -o $out/hello $data/hello.c
t shfork busybox sh $data/fork.sh
t find find /usr -type f -name 'x*'
t tar tar -cf $out/lib.tar -C /usr/lib python3.11
rm -f $out/lib.tar
t ossl_aes openssl enc -aes-256-ctr -K 00 -iv 00 -in $data/text4 -out /dev/null
t ossl_chacha openssl enc -chacha20 -K 00 -iv 00 -in $data/text4 -out /dev/null
t ossl_prime openssl prime -hex "$(cat $data/prime)"
t ossl_pbkdf openssl kdf -keylen 32 -kdfopt digest:SHA512 -kdfopt pass:x -kdfopt salt:abcdefgh \
    -kdfopt iter:60000 PBKDF2
rm -rf $out
