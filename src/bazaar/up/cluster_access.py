"""Who may ask a cluster's API, from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bazaar.cluster import pki, store
from bazaar.cluster.client import Access, Client
from bazaar.up import cluster_request


def client(cluster: str) -> Client:
    """Who administers a cluster, as a client of its API. Raises MissingError, ClusterError."""
    keys = store.keys(cluster_request.known(cluster), store=True)
    return Client(access(cluster, keys, keys["pairs"]["/admin"]))


def access(cluster: str, keys: Mapping[str, Any], pair: Mapping[str, Any]) -> Access:
    """What somebody with a certificate needs to ask a cluster's API; ``keys`` are the cluster's."""
    known = cluster_request.known(cluster)
    hosts = [known.endpoint] if known.endpoint else []
    hosts += [node.machine.address for node in known.control_planes]
    servers = tuple(f"https://{host}:{known.api_port}" for host in dict.fromkeys(hosts))
    authority = pki.trusted(keys["authorities"]["ca"])
    return Access(cluster, servers, authority, pair["certificate"], pair["key"])
