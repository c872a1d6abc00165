"""`bazaar cluster status|upgrade|certs|backup|restore|shell`: for a cluster that lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bazaar.cli.cluster import asked, described, meant, request_of, show_outcome
from bazaar.cli.groups import Group
from bazaar.cli.output import Progress, output_option, print_json, size, table


@click.command("status")
@described
@meant
@output_option
def status(name: str | None, output: str) -> None:
    """Show each machine: its role, whether it is ready, what does not run, until when keys hold."""
    from bazaar.cluster.status import days
    from bazaar.up import cluster_life

    progress = Progress()
    try:
        found = cluster_life.status(name, progress.step)
    finally:
        progress.clear()
    cluster = found.cluster
    if output == "json":
        nodes = [
            {
                "name": node.name,
                "address": node.address,
                "role": node.role,
                "state": node.state,
                "version": node.version,
                "failing": list(node.failing),
                "etcd": node.etcd or None,
                "certificates_until": node.certificates_until,
                "reason": node.reason or None,
            }
            for node in found.nodes
        ]
        head = {"cluster": cluster.name, "version": cluster.version, "server": cluster.server}
        print_json({**head, "api": found.api, "healthy": found.healthy, "nodes": nodes})
        return
    api = "API answers" if found.api else "API does not answer"
    print(f"{cluster.name}   Kubernetes {cluster.version}   {cluster.server}   {api}\n")
    rows = [
        (
            node.name,
            node.address,
            node.role,
            node.state,
            node.version or "-",
            node.etcd or "-",
            f"{days(node.certificates_until)} days",
            ", ".join(node.failing) or "-",
        )
        for node in found.nodes
    ]
    header = ("NODE", "ADDRESS", "ROLE", "STATE", "KUBELET", "ETCD", "CERTIFICATES", "NOT RUNNING")
    print(table(header, rows))
    for node in found.nodes:
        if node.reason:
            print(f"{node.name}: {node.reason}", file=sys.stderr)


@click.command("upgrade")
@described
@meant
@click.option("--version", metavar="X.Y.Z", help="To which; the newest there is.")
@output_option
def upgrade(name: str | None, version: str | None, output: str) -> None:
    """Bring a cluster to another version, machine by machine; workers are drained before."""
    from bazaar.up import cluster_life

    progress = Progress()
    try:
        outcome = cluster_life.upgrade(name, version, progress.step)
    finally:
        progress.clear()
    show_outcome(outcome, output, f"is at {outcome.cluster.version}")


@click.group("certs", cls=Group)
def certs() -> None:
    """Show a cluster's certificates, issue them anew."""


@certs.command("show")
@described
@meant
@output_option
def show(name: str | None, output: str) -> None:
    """List all certificates, those first that end first."""
    from bazaar.cluster.status import days
    from bazaar.up import cluster_life

    found = cluster_life.certificates(name)
    if output == "json":
        print_json([asdict(one) for one in found])  # pyright: ignore[reportArgumentType]
        return
    rows = [
        (
            one.node or "-",
            one.name,
            "authority" if one.authority else "certificate",
            time.strftime("%Y-%m-%d", time.gmtime(one.until)),
            f"{days(one.until)} days",
        )
        for one in found
    ]
    print(table(("NODE", "NAME", "KIND", "UNTIL", "LEFT"), rows))


@certs.command("rotate")
@described
@meant
@click.option("--ca", is_flag=True, help="The authorities too.")
@output_option
def rotate(name: str | None, ca: bool, output: str) -> None:
    """Issue every certificate anew and bring them to the machines.

    With --ca there are new authorities, in three steps: they are trusted beside the old, all is
    issued by them, the old are trusted no more. Kubeconfigs from before are refused then; pods
    that ask the API have to be started again between its end and theirs (docs/limits.md).
    """
    from bazaar.up import cluster_life

    progress = Progress()
    try:
        work = cluster_life.rotate_authorities if ca else cluster_life.rotate
        outcome = work(name, progress.step)
    finally:
        progress.clear()
    show_outcome(outcome, output, f"has new {'authorities' if ca else 'certificates'}")


@click.command("backup")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@meant
def backup(target: Path, name: str | None) -> None:
    """Write what etcd holds, the description and the sealed keys into one FILE."""
    from bazaar.up import cluster_life

    progress = Progress()
    try:
        count = cluster_life.backup(name, target, progress.step)
    finally:
        progress.clear()
    progress.done(f"{target}: {size(count)}")


@click.command("bundle")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--version", metavar="X.Y.Z", help="Of Kubernetes; the newest there is.")
def bundle(file: Path, version: str | None) -> None:
    """Write all that an installation needs into one FILE, listed and signed.

    `bazaar cluster apply --bundle FILE` installs from it, where nothing else can be reached. The
    key is /etc/bazaar/bundle.key (BAZAAR_BUNDLE_KEY_FILE names another), made with the first
    bundle; bring its public half, beside it in .pub, to whom is to believe it.
    """
    from bazaar.cluster import bundle as bundles
    from bazaar.up import cluster_life

    progress = Progress()
    try:
        count = cluster_life.bundle(file, version, progress.step)
    finally:
        progress.clear()
    progress.done(f"{file}: {size(count)}, signed by {bundles.key_file()}")


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@asked
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(file: Path, yes: bool, **options: Any) -> None:
    """Bring a cluster back to what a backup FILE holds, on its machines or on others."""
    from bazaar.up import cluster_life

    if not yes:
        click.confirm("Replace what the cluster holds by the backup?", abort=True, err=True)
    progress = Progress()
    try:
        cluster = cluster_life.restore(file, request_of(options), progress.step)
    finally:
        progress.clear()
    progress.done(f"cluster {cluster.name} is what {file} holds")


@click.command("shell", context_settings={"ignore_unknown_options": True})
@meant
@click.argument("words", metavar="[-- COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def shell(name: str | None, words: tuple[str, ...]) -> None:
    """Start a shell, or a COMMAND, with kubectl on its path that speaks to the cluster."""
    from bazaar.cluster import store
    from bazaar.up import cluster_pods

    progress = Progress()
    try:
        environment = cluster_pods.environment(store.the_one(name), progress.step)
    finally:
        progress.clear()
    command = list(words) or [os.environ.get("SHELL", "/bin/sh")]
    try:
        done = subprocess.run(command, env=environment, check=False)
    except OSError as error:
        raise click.UsageError(f"{command[0]}: {error.strerror}") from error
    sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
