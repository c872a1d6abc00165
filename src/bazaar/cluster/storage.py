"""The default StorageClass: volumes that are folders of the node their pod runs on.

local-path-provisioner runs in a pod, so that one of it runs whatever machine is lost; its helper
pods run `volume` of the same image, on the node whose disk it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bazaar.cluster.objects import NAMESPACE, binding, made
from bazaar.cluster.parts import Context, File, Unit, unit

ARCHIVE = "local-path.tar"
IMAGE = "bazaar.local/local-path-provisioner:0.0.30"
FOLDER = "/var/lib/bazaar-volumes"
_NAME = "local-path-provisioner"
_PROVISIONER = "rancher.io/local-path"
_CONFIG = "local-path-config"
_UNIT = "bazaar-images.service"
_WRITE = ["get", "list", "watch", "create", "patch", "update", "delete"]


def files(context: Context) -> Iterator[File]:
    """The unit that has containerd know the image; nobody waits for its end."""
    if ARCHIVE not in context.extras.has:
        return
    load = (
        f"/bin/sh -c 'ctr -n k8s.io image ls -q | grep -qx {IMAGE} || "
        f"exec ctr -n k8s.io image import {context.further(ARCHIVE)}'"
    )
    yield unit(
        _UNIT,
        "The images of a cluster's add-ons",
        [load],
        after="containerd.service",
        kind="exec",
        restart="on-failure",
        service=("RemainAfterExit=yes", "Nice=10"),
    )


def units(context: Context) -> Iterator[Unit]:
    if ARCHIVE in context.extras.has:
        yield Unit(_UNIT, "node", ())


def manifests() -> list[dict[str, Any]]:
    """The StorageClass, and who makes its volumes."""
    rules = [
        _rule("", ["nodes", "persistentvolumeclaims", "configmaps"], ["get", "list", "watch"]),
        _rule("", ["persistentvolumes"], _WRITE),
        _rule("", ["events"], ["create", "patch", "update"]),
        _rule("storage.k8s.io", ["storageclasses"], ["get", "list", "watch"]),
    ]
    pods = [_rule("", ["pods", "pods/log"], ["get", "list", "watch", "create", "delete"])]
    role, group = "bazaar:local-path", "rbac.authorization.k8s.io/v1"
    account = {"kind": "ServiceAccount", "name": _NAME, "namespace": NAMESPACE}
    return [
        made(
            "storage.k8s.io/v1",
            "StorageClass",
            "local-path",
            annotations={
                "storageclass.kubernetes.io/is-default-class": "true",
                "defaultVolumeType": "local",
            },
            body={
                "provisioner": _PROVISIONER,
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "WaitForFirstConsumer",
            },
        ),
        made("v1", "ServiceAccount", _NAME, namespace=NAMESPACE),
        made(group, "ClusterRole", role, body={"rules": rules}),
        binding(role, role, account),
        made(group, "Role", role, namespace=NAMESPACE, body={"rules": pods}),
        binding(role, role, account, namespace=NAMESPACE),
        made("v1", "ConfigMap", _CONFIG, namespace=NAMESPACE, body={"data": _data()}),
        _deployment(),
    ]


def _rule(group: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _data() -> dict[str, str]:
    paths = [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [FOLDER]}]
    config = {"nodePathMap": paths, "setupCommand": "/volume", "teardownCommand": "/volume"}
    container = {
        "name": "helper-pod",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        # Its folder is root's; of all that root may, it needs to write there whoever owns what.
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "FOWNER"]},
        },
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "volume"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "hostNetwork": True,
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }
    return {"config.json": json.dumps(config), "helperPod.yaml": json.dumps(pod)}


def _deployment() -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": _NAME}
    words = ["start", f"--provisioner-name={_PROVISIONER}", f"--namespace={NAMESPACE}"]
    words += [f"--configmap-name={_CONFIG}", f"--service-account-name={_NAME}"]
    container = {
        "name": _NAME,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": [*words, f"--helper-image={IMAGE}"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec = {
        "serviceAccountName": _NAME,
        "priorityClassName": "system-cluster-critical",
        "hostNetwork": True,  # it works before, and without, a network of pods
        "containers": [container],
        "tolerations": [
            {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"},
        ],
    }
    return made(
        "apps/v1",
        "Deployment",
        _NAME,
        namespace=NAMESPACE,
        body={
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},  # two would each make the same volume
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            }
        },
    )
