"""This machine and others: paths, processes, namespaces, cgroups, packages, identity."""
