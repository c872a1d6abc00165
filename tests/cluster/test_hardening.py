"""The CIS profile on paper: flags, configurations and who may read what."""

from __future__ import annotations

import pytest
import yaml

from bazaar.cluster.description import check
from bazaar.cluster.desired import Desired, desired
from bazaar.errors import SpecError
from tests.cluster.conftest import cluster, context
from tests.cluster.test_golden import compare, shown


def hardened() -> tuple[Desired, Desired]:
    of = cluster(3, 2, hardening="cis")
    check(of)
    return desired(context(of, of.nodes[0])), desired(context(of, of.nodes[3]))


def test_what_it_changes():
    plain = shown(cluster(3, 2), "cp1").split("==> ")
    text = shown(cluster(3, 2, hardening="cis"), "cp1").split("==> ")
    same = {one.partition(" <==")[2] for one in plain}
    compare(
        "cp1-cis.txt",
        "".join(f"==> {one}" for one in text if one.partition(" <==")[2] not in same),
    )


def test_what_kubernetes_reads_is_root_s_alone():
    for wanted in hardened():
        places = ("/etc/kubernetes", "/etc/cni", "/var/lib/kube", "/etc/systemd/system")
        modes = {p: f.mode for p, f in wanted.files.items() if p.startswith(places)}
        assert len(modes) > 15 and not any(mode & 0o077 for mode in modes.values()), modes
        # What is a program stays one.
        assert wanted.files["/etc/bazaar-node/network"].mode == 0o755


def test_nobody_may_ask_but_whether_it_works():
    plane, worker = hardened()
    unit = plane.files["/etc/systemd/system/kube-apiserver.service"].content.decode()
    assert "--authentication-config=/etc/kubernetes/authentication.yaml" in unit
    assert "--anonymous-auth" not in unit  # the two exclude one another
    told = yaml.safe_load(plane.files["/etc/kubernetes/authentication.yaml"].content)
    assert {one["path"] for one in told["anonymous"]["conditions"]} >= {"/readyz"}
    kubelet = yaml.safe_load(worker.files["/var/lib/kubelet/config.yaml"].content)
    assert kubelet["seccompDefault"] is True and kubelet["podPidsLimit"] == 4096
    assert "/etc/kubernetes/admission.yaml" not in worker.files


def test_it_needs_the_audit_log():
    with pytest.raises(SpecError, match="hardening cis needs audit"):
        check(cluster(hardening="cis", audit=False))
    with pytest.raises(SpecError, match="hardening 'x': one of none, cis"):
        check(cluster(hardening="x"))
