"""FOSDEM as a bazaar, the same as fosdem.yaml: `bazaar up examples/fosdem.py`."""

from bazaar import Bazaar, Probe, Service, Shield, Site

fosdem = Bazaar(
    "fosdem",
    sites=[Site("brussels-u"), Site("brussels-k")],
    services=[
        Service("apache", stand="apache", replicas=2),
        Service("python", stand="python"),
        Service("prometheus", stand="prometheus"),
        Service(
            "mariadb",
            stand="mariadb",
            sites=["brussels-k"],
            kernel="shared",
            volumes=["data:/var/lib/mysql"],
        ),
    ],
    probes=[
        Probe(
            "write-sizes",
            "tracepoint:syscalls:sys_enter_write { @[container] = hist(args.count); }\n",
        ),
        Probe("sends", "tracepoint:net:net_dev_queue { @[container] = hist(args.len); }\n"),
    ],
    shield=Shield(rate="2000/s"),
)
