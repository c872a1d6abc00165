"""Local machines one can SSH into: Debian roots booted by systemd-nspawn.

For tests, trials and learning: they have a real systemd and sshd, a network and an address of
their own, and may do what containerd and kubelet need to. They belong to nobody: no process of
Bazaar looks after them, and what there is of them is found by what runs.

    base      the root that all share, made of the distribution's packages
    places    folders, names and addresses
    network   the bridge, one namespace for each machine, the way to the world
    nspawn    starting one, finding its processes, ending it
    life      prepare, create, listing, stop, start, destroy
"""

from __future__ import annotations

from bazaar.host.machines.life import create, destroy, listing, owned, prepare, start, stop
from bazaar.host.machines.places import LocalMachine

__all__ = ["LocalMachine", "create", "destroy", "listing", "owned", "prepare", "start", "stop"]
