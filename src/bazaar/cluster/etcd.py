"""etcd's members: taking one in before it starts, letting one go, snapshots and restores."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from bazaar.cluster.description import Node
from bazaar.cluster.facts import ETCDCTL, FOLDER
from bazaar.cluster.members import ETCD
from bazaar.cluster.parts import Context

SNAPSHOT = f"{FOLDER}/snapshot.db"
# etcd changes its members only once all have been connected for five seconds.
_PATIENT = f"""patient() {{
  tries=0
  until said=$({ETCDCTL} "$@" 2>&1); do
    tries=$((tries + 1))
    case $said in *"unhealthy cluster"*) [ $tries -lt 40 ] ;; *) false ;; esac ||
      {{ printf '%s\\n' "$said" >&2; return 1; }}
    sleep 0.5
  done
}}
"""


def add(node: Node) -> str:
    """A script, for a member, that takes ``node`` in; nothing where it is one already."""
    url = f"https://{node.ip}:2380"
    # What was taken in and never started has no name yet; its address tells.
    return (
        f"{_PATIENT}"
        f"{ETCDCTL} member list | grep -qF {shlex.quote(url)} || "
        f"patient member add {node.name} --peer-urls={url}"
    )


def remove(node: Node) -> str:
    """A script, for a member, that lets ``node`` go; nothing where it is none."""
    url = f"https://{node.ip}:2380"
    return (
        f"{_PATIENT}"
        f"id=$({ETCDCTL} member list | grep -F {shlex.quote(url)} | cut -d, -f1)\n"
        '[ -z "$id" ] || patient member remove "$id"'
    )


def save(context: Context) -> str:
    """A script that writes a snapshot of what etcd holds, checked, readable by root alone."""
    etcdutl = context.program("etcdutl")
    return (
        f"umask 077; rm -f {SNAPSHOT}\n"
        f"{ETCDCTL} snapshot save {SNAPSHOT} >/dev/null 2>&1 || "
        "{ echo 'etcd gave no snapshot' >&2; exit 1; }\n"
        f"{etcdutl} snapshot status {SNAPSHOT} -w json"
    )


def restore(context: Context, nodes: Sequence[Node]) -> str:
    """A script that puts a snapshot in place of what etcd held, as one of the members ``nodes``.

    What was there is kept beside, once, under another name.
    """
    peers = ",".join(f"{node.name}=https://{node.ip}:2380" for node in nodes)
    # Whoever watched before must not believe that revisions went back.
    return (
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin; set -eu\n"
        "systemctl stop kube-apiserver.service kube-controller-manager.service "
        "kube-scheduler.service etcd.service 2>/dev/null || true\n"
        f"rm -rf {ETCD}.new\n"
        f"{context.program('etcdutl')} snapshot restore {SNAPSHOT} --data-dir {ETCD}.new "
        f"--name {context.node.name} --initial-cluster {shlex.quote(peers)} "
        f"--initial-cluster-token {context.keys['identity']} "
        f"--initial-advertise-peer-urls https://{context.node.ip}:2380 "
        "--bump-revision 1000000000 --mark-compacted >/dev/null 2>&1 || "
        "{ echo 'the snapshot could not be restored' >&2; exit 1; }\n"
        f"rm -rf {ETCD}.before; [ ! -e {ETCD} ] || mv {ETCD} {ETCD}.before\n"
        f"mv {ETCD}.new {ETCD}; chmod 700 {ETCD}; rm -f {SNAPSHOT}\n"
    )
