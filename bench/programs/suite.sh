#!/bin/sh
# suite.sh SECONDS REPS NAME|CLASS/... - all that engines.py measures: benchmarks for SECONDS each,
# then the programs REPS times each. Between @T,begin and @T,end; what follows these words is the
# clock.
export PATH=/bench:/usr/bin:/usr/sbin
seconds=$1
reps=$2
shift 2
programs=
for name; do
    shift
    case $name in
    programs/) programs=all ;;
    programs/*) programs="${programs#all} ${name#programs/}" ;;
    *) set -- "$@" "$name" ;;
    esac
done
read -r uptime _ </proc/uptime
echo "@T,begin,$uptime"
[ $# = 0 ] || pb measure "$seconds" "$@"
# shellcheck disable=SC2086 # a list of names on purpose
[ -z "$programs" ] || sh /bench/programs.sh "$reps" ${programs#all}
read -r uptime _ </proc/uptime
echo "@T,end,$uptime"
