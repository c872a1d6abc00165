"""`bazaar machines`: local machines one can SSH into, for tests, trials and learning."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from bazaar.cli.groups import Group
from bazaar.cli.output import Progress, output_option, print_json, table
from bazaar.errors import UsageError

if TYPE_CHECKING:
    from bazaar.host.machines import LocalMachine


@click.group(cls=Group)
def command() -> None:
    """Make local machines with systemd, an address and SSH, for tests, trials and learning.

    They are Debian 12 roots booted by systemd-nspawn, on a network of their own. They share
    this machine's kernel, and root in them is root here: they isolate nothing that is hostile.
    """


@command.command("create")
@click.argument("count", metavar="[N]", type=click.IntRange(1, 100), default=1)
@click.option(
    "--package", "packages", multiple=True, metavar="NAME", help="A Debian package in them besides."
)
@output_option
def create(count: int, packages: tuple[str, ...], output: str) -> None:
    """Make and boot N machines, called m1, m2, … by what is free; wait for their SSH."""
    from bazaar.host import machines

    progress = Progress()
    try:
        began = time.monotonic()
        if machines.prepare(packages, progress.step):
            progress.done(f"base image {time.monotonic() - began:.0f} s   (once; cached)")
        made = machines.create(count, progress.step, packages=packages)
    finally:
        progress.clear()
    _print(made, output)


@command.command("list")
@output_option
def list_(output: str) -> None:
    """List the machines, those that ended too."""
    from bazaar.host import machines

    _print(machines.listing(), output)


@command.command("stop")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--now", is_flag=True, help="At once, as if their power went.")
def stop(names: tuple[str, ...], now: bool) -> None:
    """Shut machines down; what they hold stays."""
    from bazaar.host import machines

    progress = Progress()
    try:
        stopped = machines.stop(names, progress.step, now=now)
    finally:
        progress.clear()
    progress.done(f"{', '.join(stopped)}: stopped" if stopped else "none of them ran")


@command.command("start")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def start(names: tuple[str, ...]) -> None:
    """Boot machines that were stopped, or ended otherwise; wait for their SSH."""
    from bazaar.host import machines

    progress = Progress()
    try:
        started = machines.start(names, progress.step)
    finally:
        progress.clear()
    progress.done(f"{', '.join(started)}: running" if started else "all of them ran")


@command.command("destroy")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of this state folder.")
def destroy(names: tuple[str, ...], everything: bool) -> None:
    """End machines and remove all they hold."""
    from bazaar.host import machines

    if bool(names) == everything:
        raise UsageError("which machines?", hint="bazaar machines destroy m1, or --all")
    progress = Progress()
    try:
        gone = machines.destroy(None if everything else names, progress.step)
    finally:
        progress.clear()
    progress.done(f"{', '.join(gone)}: destroyed" if gone else "there are no machines")


def _print(found: list[LocalMachine], output: str) -> None:
    if output == "json":
        print_json([_facts(one) for one in found])
        return
    rows = [
        (
            one.machine.name,
            one.machine.address or "-",
            _ssh(one) if one.status == "running" else "-",
            one.status,
            "-" if one.ready_seconds is None else f"{one.ready_seconds:.1f} s",
        )
        for one in found
    ]
    print(table(("NAME", "ADDRESS", "SSH", "STATE", "READY IN"), rows))


def _ssh(one: LocalMachine) -> str:
    """The line that opens a shell there, to be pasted."""
    import shlex

    known = f"UserKnownHostsFile={one.machine.known_hosts}"
    place = f"{one.machine.user}@{one.machine.address}"
    return shlex.join(["ssh", "-i", one.machine.key, "-o", known, place])


def _facts(one: LocalMachine) -> dict[str, object]:
    machine = one.machine
    return {
        "name": machine.name,
        "address": machine.address or None,
        "user": machine.user,
        "port": machine.port,
        "key": machine.key,
        "known_hosts": machine.known_hosts,
        "state": one.status,
        "ready_seconds": one.ready_seconds,
        "created_at": one.created_at,
        "ssh": _ssh(one) if one.status == "running" else None,
    }
