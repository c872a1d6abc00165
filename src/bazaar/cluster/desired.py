"""How one machine is to be: all its files and units, by what its cluster is and what it is."""

from __future__ import annotations

from collections.abc import Mapping

from bazaar.cluster import control_plane, hardening, members, network, worker
from bazaar.cluster.facts import FOLDER
from bazaar.cluster.parts import UNITS, Context, File, Unit, digest
from bazaar.model.record import record


@record
class Desired:
    """One machine as it is to be."""

    files: Mapping[str, File]  # by path
    units: tuple[Unit, ...]  # in the order of their start
    packages: tuple[str, ...]  # those it lacks

    def digest_of(self, unit: Unit) -> str:
        """What a unit was started with, when it was started with this."""
        paths = [f"{UNITS}/{unit.name}", *unit.files]
        return digest(*(self.files[path].content for path in paths if path in self.files))


def desired(context: Context) -> Desired:
    """Work out all that a machine is to hold."""
    found: dict[str, File] = {}
    units: list[Unit] = []
    produced: list[File] = []
    works = not context.node.etcd  # a machine for etcd alone is no node
    if works:
        units += network.units(context)
        produced += [*worker.files(context), *network.files(context)]
    if members.holds(context):
        units += members.units(context)
        produced += members.files(context)
    if context.node.control_plane:
        produced += control_plane.files(context)
        units += control_plane.units(context)
    if works:
        units += worker.units(context)
    for file in produced:
        found[file.path] = hardening.tightened(context.cluster, file)
    listed = "".join(f"{unit.name}\n" for unit in units)
    belongs = f"{context.cluster.name} {context.keys['identity']}\n"
    for name, content in (("units", listed), ("identity", belongs)):
        found[f"{FOLDER}/{name}"] = File(f"{FOLDER}/{name}", content.encode())
    return Desired(found, tuple(units), tuple(worker.packages(context)) if works else ())
