"""Kubernetes clusters of any machines one can SSH into.

binaries  the programs a cluster is made of: from a mirror, the releases, or built
"""
