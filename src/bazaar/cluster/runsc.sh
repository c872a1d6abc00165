#!/bin/sh
# runsc as containerd's shim for runc calls it: runsc --root R --log L … VERB … ID.
#
# gVisor's own shim lowers its oom_score_adj, which needs CAP_SYS_RESOURCE; runc's works anywhere,
# but expects of each container a process of the host, which ends as it does. runsc has one for a
# whole pod. So each of a pod's further containers gets one here: it holds the streams, which
# runsc wants at `start` and the shim gives at `create`, waits, and ends with the same code.
real='@RUNSC@'
runsc() { "$real" --ignore-cgroups "$@"; }
before= verb= root= log= bundle= pid_file=
for word; do
  case $before in
  --root) root=$word ;;
  --log) log=$word ;;
  --bundle) bundle=$word ;;
  --pid-file) pid_file=$word ;;
  esac
  case $word in create | start | kill) [ -n "$verb" ] || verb=$word ;; esac
  before=$word
done
id=$before
held=${log%/*}/held # beside the log, in the container's own folder

case $verb in
create)
  runsc "$@" || exit
  grep -q '"io.kubernetes.cri.container-type":"container"' "$bundle/config.json" || exit 0
  (
    # Until it is started there is nothing to wait for.
    until said=$(runsc --root "$root" wait "$id" 2>/dev/null); do
      runsc --root "$root" state "$id" >/dev/null 2>&1 || exit 137
      sleep 0.1
    done
    code=${said##*\"exitStatus\":}
    exit "${code%%[!0-9]*}"
  ) &
  printf %s $! >"$held"
  printf %s $! >"$pid_file"
  ;;
start)
  # The shim waits for the end of what `start` inherits: it gets the container's streams, or none.
  [ ! -e "$held" ] || streams=/proc/$(cat "$held")/fd
  if [ -n "${streams-}" ]; then
    exec "$real" --ignore-cgroups "$@" <"$streams/0" >"$streams/1" 2>"$streams/2"
  fi
  exec "$real" --ignore-cgroups "$@" </dev/null >/dev/null 2>&1
  ;;
kill)
  said=$(runsc "$@" 2>&1) && exit
  code=$?
  # In the words by which the shim knows that there is nothing left to kill.
  case $said in *"not running"*) said="container not running" ;; esac
  echo "$said" >&2
  exit $code
  ;;
*) exec "$real" --ignore-cgroups "$@" ;;
esac
