# Starts a few hundred short processes, as configure scripts do.
i=0
while [ $i -lt 60 ]; do
    x=$(echo $i | busybox sed s/1/2/)
    /usr/bin/true
    [ -e /nonexistent ] || y=$(busybox expr "$x" + 1)
    i=$((i + 1))
done
echo "$y"
