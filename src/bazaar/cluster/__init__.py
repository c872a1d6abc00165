"""Kubernetes on any machines one can SSH into.

In the order of the work:

    description    what a cluster is to be
    binaries       its programs: from releases, a mirror, or built
    extras         what machines are given besides
    bundle, debs   all of it in one file, for where the world is far
    facts          what machines are and hold (facts.sh asks, facts.py reads)
    checks         what forbids a cluster there
    pki, vault     certificates, issued here; sealed at rest
    rotation       new authorities, in three steps
    parts          what the following hand one another
    outside, network, worker, members, control_plane, hardening
                   files and units, each its part
    storage, metrics
                   add-ons: volumes on local disks, figures
    desired        all of them, for one machine
    objects, addons
                   what the API is told
    plan           from facts to changes
    scripts, api   from changes to scripts
    apply          connections, phases, barriers
    removal        the way back
    status, doctor how a cluster is, and what is wrong with it
    store          what is remembered
"""
