"""The supervisor's figures in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from bazaar.up.supervisor import Supervisor

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Status(Collector):
    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status

    def collect(self) -> Iterator[Metric]:
        yield from _replicas(self.status)
        yield from _probes(self.status)
        if self.status["shield"]:
            yield from _shield(self.status["shield"])


def render(supervisor: Supervisor) -> bytes:
    """All metrics of one bazaar as text."""
    from bazaar.up import status

    registry = CollectorRegistry()
    registry.register(_Status(status.build(supervisor)))
    return generate_latest(registry)


def _replicas(status: dict[str, Any]) -> Iterator[Metric]:
    labels = ["service", "site", "replica"]
    healthy = GaugeMetricFamily(
        "bazaar_replica_healthy", "1 when the replica answers", labels=labels
    )
    start = GaugeMetricFamily(
        "bazaar_replica_start_seconds", "From its start to its first answer", labels=labels
    )
    restarts = CounterMetricFamily("bazaar_replica_restarts", "Starts after an end", labels=labels)
    wanted = GaugeMetricFamily("bazaar_service_wanted", "Replicas wanted", labels=["service"])
    for service in status["services"]:
        wanted.add_metric([service["name"]], service["wanted"])
        for row in service["replicas"]:
            values = [service["name"], row["site"], row["id"]]
            healthy.add_metric(values, int(row["healthy"]))
            restarts.add_metric(values, row["restarts"])
            if row["start_ms"] is not None:
                start.add_metric(values, row["start_ms"] / 1000)
    yield from (wanted, healthy, start, restarts)


def _probes(status: dict[str, Any]) -> Iterator[Metric]:
    runs = CounterMetricFamily("bazaar_probe_runs", "Times a probe ran", labels=["probe"])
    lost = CounterMetricFamily("bazaar_probe_lost", "Events a probe lost", labels=["probe"])
    values = GaugeMetricFamily(
        "bazaar_probe_value", "A map's value by its key", labels=["probe", "map", "key"]
    )
    for probe in status["probes"]:
        if probe["runs"] is not None:
            runs.add_metric([probe["name"]], probe["runs"])
        lost.add_metric([probe["name"]], probe["lost"])
        for line in probe["maps"]:
            for name, key, number in _numbers(line):
                values.add_metric([probe["name"], name, key], number)
    yield from (runs, lost, values)


def _numbers(line: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """The plain numbers of bpftrace's JSON; a histogram counts by its key."""
    for name, value in line.get("data", {}).items():
        keyed = cast("dict[str, Any]", value if isinstance(value, dict) else {"": value})
        for key, number in keyed.items():
            if isinstance(number, int | float):
                yield name, key, number
            elif isinstance(number, list):
                buckets = cast("list[dict[str, int]]", number)
                yield name, key, sum(bucket.get("count", 0) for bucket in buckets)


def _shield(shield: dict[str, Any]) -> Iterator[Metric]:
    packets = CounterMetricFamily("bazaar_shield_packets", "Packets by verdict", labels=["verdict"])
    packets.add_metric(["passed"], shield["passed"])
    packets.add_metric(["dropped"], shield["dropped"])
    yield packets
    yield GaugeMetricFamily(
        "bazaar_shield_blocked_sources", "Sources shut out now", value=len(shield["blocked"])
    )
