"""`bazaar cluster`: Kubernetes on any machines one can SSH into."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bazaar.cli.groups import Group
from bazaar.cli.output import Progress, colour, output_option, print_json

if TYPE_CHECKING:
    from bazaar.errors import BazaarError
    from bazaar.model.change import Change
    from bazaar.up.cluster_request import Request
    from bazaar.up.clusters import Outcome

Command = TypeVar("Command", bound=Callable[..., Any])
# In the order of a cluster's life, and where those are that are not here.
ORDER: dict[str, str] = {
    **dict.fromkeys(("plan", "apply"), ""),
    **dict.fromkeys(("status", "shell"), "cluster_life"),
    "kubeconfig": "",
    "load": "cluster_load",
    "doctor": "cluster_doctor",
    **dict.fromkeys(("upgrade", "certs", "backup", "restore", "bundle"), "cluster_life"),
    "reset": "",
}
_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "destroy": ("-", "red")}


class Commands(Group):
    """Finds the commands of a cluster that lives where they are, when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(ORDER)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if place := ORDER.get(cmd_name):
            module = importlib.import_module(f"bazaar.cli.{place}")
            found: click.Command = getattr(module, cmd_name)
            return found
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands)
def command() -> None:
    """Make Kubernetes clusters of machines, change them, look after them.

    `bazaar cluster apply --local 5` is a highly available cluster on this machine;
    `bazaar cluster apply --machines 10.0.0.1,10.0.0.2,10.0.0.3` one on machines of yours.
    """


def named(function: Command) -> Command:
    """The option that names one of several clusters."""
    return click.option("--name", metavar="NAME", help="Which cluster, where there are several.")(
        function
    )


_MACHINES = click.option(
    "--machines", metavar="LIST", help="Its machines, by commas: [NAME=][USER@]ADDRESS[:PORT]."
)
_LOCAL = click.option(
    "--local", type=click.IntRange(1, 100), metavar="N", help="N machines made here."
)


def meant(function: Command) -> Command:
    """All the ways to say which of the clusters that live is meant; the command gets its ``name``.

    It has to be known: nothing is made of what is said here.
    """

    @functools.wraps(function)
    def call(*words: Any, **options: Any) -> Any:
        from bazaar.up import cluster_request

        file, site = options.pop("file", None), options.pop("site", None)
        said = {key: options.pop(key) for key in ("name", "machines", "local")}
        if file is not None or site is not None:
            name = _only(requests_of(file, site, said))
        elif said["local"] is not None:
            name = said["name"] or cluster_request.LOCAL_NAME
        else:
            name = said["name"] or (cluster_request.NAME if said["machines"] else None)
        return function(*words, name=name, **options)

    return named(_LOCAL(_MACHINES(call)))  # pyright: ignore[reportReturnType]


def _only(requests: list[Request]) -> str:
    from bazaar.errors import UsageError

    names = [str(request.name) for request in requests]
    if len(names) != 1:
        raise UsageError(f"which cluster? {', '.join(names)}", hint="say its --site")
    return names[0]


def described(function: Command) -> Command:
    """A description's file, and which of its clusters."""
    option = click.option("--site", metavar="SITE", help="Of FILE's clusters this one alone.")
    return click.argument("file", required=False)(option(function))


def asked(function: Command) -> Command:
    """The options that say which cluster, and what it is to be."""
    for option in reversed(
        [
            _MACHINES,
            _LOCAL,
            click.option(
                "--control-planes",
                type=click.Choice(["1", "3", "5"]),
                help="How many; 3 where there are as many machines, else 1.",
            ),
            click.option("--version", metavar="X.Y.Z", help="Of Kubernetes."),
            click.option(
                "--network",
                type=click.Choice(["auto", "routes", "vxlan", "wireguard", "none"]),
                help="How pods of different machines reach one another.",
            ),
            click.option("--key", type=click.Path(), metavar="FILE", help="The SSH key."),
            click.option("--known-hosts", type=click.Path(), metavar="FILE", help="The host keys."),
        ]
    ):
        function = option(function)
    return named(function)


def request_of(options: dict[str, Any]) -> Request:
    """What the options of `asked` say."""
    from bazaar.up.cluster_request import Request

    machines = [one for one in (options.pop("machines") or "").split(",") if one.strip()]
    planes = options.pop("control_planes")
    return Request(machines=machines, control_planes=int(planes) if planes else None, **options)


def requests_of(file: str | None, site: str | None, options: dict[str, Any]) -> list[Request]:
    """The clusters meant: those of a file, or the one that the options name."""
    from bazaar.errors import UsageError
    from bazaar.up import cluster_file

    if file is None:
        if site is not None:
            raise UsageError(
                "--site is one of a FILE", hint="bazaar cluster apply FILE --site SITE"
            )
        return [request_of(options)]
    if said := [f"--{name.replace('_', '-')}" for name, value in options.items() if value]:
        raise UsageError(f"{', '.join(said)}: beside a FILE", hint=f"say it in {file}")
    return cluster_file.requests(file, site)


@command.command("plan")
@described
@asked
@output_option
def plan(output: str, file: str | None, site: str | None, **options: Any) -> int:
    """Show, for each machine, what `apply` would change, and why; change nothing.

    With a FILE, a bazaar's description, for each of its sites that is a cluster.
    """
    from bazaar.up import clusters

    wanted = requests_of(file, site, options)
    progress = Progress()
    try:
        results = clusters.plan_all(wanted, progress.step)
    finally:
        progress.clear()
    if file is None:
        results = {name: clusters.of_one(results) for name in results}
    if output == "json":
        told: list[dict[str, Any]] = []
        for name, result in results.items():
            if isinstance(result, tuple):
                known = name if result[0] or file else None
                told.append({"cluster": known, "changes": [asdict(one) for one in result[1]]})
            else:
                told.append({"cluster": name, "error": result.message})
        print_json(told[0] if file is None else {"clusters": told})
    else:
        _show_each({n: r[1] if isinstance(r, tuple) else r for n, r in results.items()}, bool(file))
    return 0 if all(isinstance(result, tuple) for result in results.values()) else 1


@command.command("apply")
@described
@asked
@click.option("--yes", is_flag=True, help="Take machines out of the cluster without asking.")
@output_option
@click.option("--bundle", type=click.Path(path_type=Path), metavar="TAR", help="Install from it.")
@click.option(
    "--bundle-key", type=click.Path(path_type=Path), metavar="PUB", help="Whose bundle is believed."
)
def apply(
    output: str,
    yes: bool,
    file: str | None,
    site: str | None,
    bundle: Path | None,
    bundle_key: Path | None,
    **options: Any,
) -> int:
    """Make the cluster as it is to be; done again, it goes on where it was.

    With a FILE, a bazaar's description, all its sites that are clusters, at the same time; one
    that fails stops no other.
    """
    from bazaar.up import cluster_request, clusters

    if bundle is not None:
        from bazaar.cluster import bundle as bundles

        brought = bundles.take(bundle, bundle_key)
        options["version"] = options.get("version") or brought
    wanted = requests_of(file, site, options)
    going = [name for request in wanted for name in cluster_request.leaving(request)]
    if going and not yes:
        question = f"Take {', '.join(going)} out of the cluster, with what they hold?"
        click.confirm(question, abort=True, err=True)
    progress = Progress()
    try:
        results = clusters.apply_all(wanted, progress.step)
    finally:
        progress.clear()
    if file is not None:
        return _show_outcomes(results, output)
    outcome = clusters.of_one(results)
    show_outcome(outcome, output, "is ready")
    if output != "json" and outcome.changes:
        name = outcome.cluster.name
        progress.done(f"bazaar cluster shell --name {name}, or kubeconfig for your own kubectl")
    return 0


def show_outcome(outcome: Outcome, output: str, said: str) -> None:
    """Print what was changed and how long it took."""
    if output == "json":
        print_json(_outcome(outcome))
        return
    _show(outcome.changes)
    _tell(outcome, said)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "cluster": outcome.cluster.name,
        "changes": [asdict(change) for change in outcome.changes],
        "seconds": round(outcome.seconds, 3),
        "phases": {name: round(took, 3) for name, took in outcome.phases.items()},
    }


def _show_outcomes(results: Mapping[str, Outcome | BazaarError], output: str) -> int:
    """Print what several clusters came to; the exit code."""
    from bazaar.errors import BazaarError

    failed = [one for one in results.values() if isinstance(one, BazaarError)]
    if output == "json":
        told = [
            {"cluster": name, "error": one.message}
            if isinstance(one, BazaarError)
            else _outcome(one)
            for name, one in results.items()
        ]
        print_json({"clusters": told})
    else:
        _show_each(
            {n: r if isinstance(r, BazaarError) else r.changes for n, r in results.items()}, True
        )
        for one in results.values():
            if not isinstance(one, BazaarError):
                _tell(one, "is ready")
    return 1 if failed else 0


def _tell(outcome: Outcome, said: str) -> None:
    if outcome.changes:
        parts = ", ".join(f"{name} {took:.1f} s" for name, took in outcome.phases.items())
        told = f"   ({parts})" if parts else ""
        line = f"cluster {outcome.cluster.name} {said}, in {outcome.seconds:.1f} s{told}"
        print(line, file=sys.stderr)
    for note in outcome.notes:
        print(f"{outcome.cluster.name}: {note}", file=sys.stderr)


@command.command("kubeconfig")
@described
@meant
def kubeconfig(name: str | None) -> None:
    """Print an administrator's kubeconfig: bazaar cluster kubeconfig >~/.kube/config"""
    from bazaar.up import clusters

    sys.stdout.write(clusters.kubeconfig(name))


@command.command("reset")
@described
@meant
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--forget", is_flag=True, help="Machines that do not answer stay as they are.")
def reset(yes: bool, forget: bool, name: str | None) -> None:
    """Take a cluster away from its machines, with all that runs on it and its data."""
    from bazaar.cluster import store
    from bazaar.up import clusters

    chosen = store.the_one(name)
    if not yes:
        click.confirm(f"Take the cluster {chosen} away, with all its data?", abort=True, err=True)
    progress = Progress()
    try:
        clusters.reset(chosen, progress.step, forget=forget)
    finally:
        progress.clear()
    progress.done(f"cluster {chosen} is gone")


def _show_each(results: Mapping[str, list[Change] | BazaarError], headed: bool) -> None:
    """Print what is to change, cluster by cluster; what failed is told on stderr."""
    for name, result in results.items():
        if isinstance(result, list):
            if headed:
                print(f"{name}:")
            _show(result)
            continue
        print(f"{name}: {colour(result.message, 'red', sys.stderr)}", file=sys.stderr)
        for line in (result.hint or "").splitlines():
            print(f"  {line}", file=sys.stderr)


def _show(changes: list[Change]) -> None:
    """Print a plan: a line a change, by machine, and the sum of them."""
    if not changes:
        print("No changes.")
        return
    rows = [_row(change) for change in changes]
    widths = [max(len(row[column]) for row in rows) for column in (1, 2)]
    for sign, name, kind, rest in rows:
        print(f"  {sign} {name.ljust(widths[0])}  {kind.ljust(widths[1])}  {rest}".rstrip())
    of_all = ("manifests", "cluster")
    machines = len({change.name for change in changes if change.kind not in of_all})
    count = len(changes)
    print(f"{count} change{'s' * (count != 1)} on {machines} machine{'s' * (machines != 1)}.")


def _row(change: Change) -> tuple[str, str, str, str]:
    sign, hue = _SIGNS[change.action]
    why = f"  ({change.why})" if change.why else ""
    return colour(sign, hue), change.name, change.kind, change.detail + why
