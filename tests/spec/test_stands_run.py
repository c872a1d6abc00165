"""Every stand starts on both kernels, from an image of its own packages, and answers."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.model.container import ContainerSpec, Mount
from bazaar.spec import Bazaar, Service, resolve, stands
from bazaar.spec.resolved import ResolvedService

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: containers"),
]
PORT = 81  # below 1024, and no stand's own


@contextlib.contextmanager
def running(service: ResolvedService, engine: str, volumes: Path) -> Iterator[tuple[str, str]]:
    """One replica by hand: its id and address."""
    from bazaar.run import containers, images
    from bazaar.site import run_network

    identity = f"run.t{os.getpid()}-{service.name}-{engine}"
    image = images.ensure(service.image, lambda _: None)
    mounts: list[Mount] = []
    for volume in service.volumes:
        source = volumes / (volume.name or "")
        source.mkdir(exist_ok=True)
        mounts.append(Mount(source, volume.target))
    attachment = run_network.connect_run(identity, to_world=False)
    try:
        containers.start(
            ContainerSpec(
                identity,
                identity,
                image,
                command=service.command,
                environment=service.environment,
                mounts=tuple(mounts),
                hostname=f"replica-{engine}",
                namespace=attachment.namespace,
                engine=engine,
            )
        )
        yield identity, attachment.address
    finally:
        with contextlib.suppress(Exception):
            containers.stop(identity)
        containers.remove(identity, force=True)
        run_network.disconnect_run(identity)


def answers(service: ResolvedService, address: str) -> str:
    """What it answers; waits for it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if service.mode == "tcp":
                socket.create_connection((address, PORT), 1).close()
                return ""
            connection = http.client.HTTPConnection(address, PORT, timeout=2)
            connection.request("GET", service.health.path)
            answer = connection.getresponse()
            if answer.status == 200:
                return answer.read().decode()
            # Prometheus says 503 while it gets ready.
            assert answer.status == 503 and time.monotonic() < deadline
            time.sleep(0.1)
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.parametrize("engine", ["gvisor", "shared"])
@pytest.mark.parametrize("name", stands.names())
def test_a_stand_starts_answers_says_who_it_is_and_ends(name, engine, state, tmp_path):
    from bazaar.run import containers

    service = resolve(Bazaar("x", services=[Service(name, stand=name, port=PORT)])).services[0]
    with running(service, engine, tmp_path) as (identity, address):
        said = answers(service, address)
        if service.health.path == "/" and service.mode == "http":
            assert said == f"{stands.get(name).technology.split()[0]} on replica-{engine}\n"
        # At its stop signal: who is killed instead ends with 137.
        assert containers.stop(identity, 60.0) == 0


def test_the_database_keeps_its_data_and_lets_in_who_has_a_password(state, tmp_path):
    from bazaar.run import containers

    service = resolve(
        Bazaar(
            "x",
            services=[
                Service(
                    "db",
                    stand="mariadb",
                    port=PORT,
                    environment={
                        "MARIADB_ROOT_PASSWORD": 'it\'s \\ "hard"',
                        "MARIADB_DATABASE": "shop",
                        "MARIADB_USER": "clerk",
                        "MARIADB_PASSWORD": "pw",
                    },
                )
            ],
        )
    ).services[0]

    def ask(identity: str, *words: str) -> int:
        return containers.execute(identity, ["mariadb", *words])

    over = ["--protocol=tcp", "--host=127.0.0.1", f"--port={PORT}"]
    with running(service, "shared", tmp_path) as (identity, address):
        answers(service, address)
        assert ask(identity, *over, "-uroot", '-pit\'s \\ "hard"', "-eselect 1") == 0
        assert ask(identity, *over, "-uroot", "-eselect 1") == 1
        assert ask(identity, *over, "-uroot", "-pwrong", "-eselect 1") == 1
        assert ask(identity, *over, "-uclerk", "-ppw", "shop", "-ecreate table t (a int)") == 0
        assert ask(identity, *over, "-uclerk", "-ppw", "mysql", "-eselect 1 from user") == 1
        assert ask(identity, "-eselect 1") == 0  # root by the socket
    with running(service, "shared", tmp_path) as (identity, address):
        answers(service, address)
        assert ask(identity, *over, "-uclerk", "-ppw", "shop", "-einsert into t values (1)") == 0


def test_data_that_was_never_whole_is_made_again(state, tmp_path):
    """Killed while it made the system tables, the database starts all the same."""
    from bazaar.run import containers

    service = resolve(Bazaar("x", services=[Service("db", stand="mariadb", port=PORT)])).services[0]
    data = tmp_path / "db"
    with running(service, "shared", tmp_path) as (identity, _):
        deadline = time.monotonic() + 20
        while not (data / "mysql").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert (data / ".initialising").exists()
        containers.send_signal(identity, 9)
    assert (data / ".initialising").exists()
    with running(service, "shared", tmp_path) as (identity, address):
        answers(service, address)
    assert (data / "mysql").exists() and not (data / ".initialising").exists()
