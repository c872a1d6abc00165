"""Descriptions that are wrong, each with the messages it gets."""

from __future__ import annotations

# ruff: noqa: E501
SERVICE = "bazaar: x\nservices:\n  a:\n    "

# name → (YAML, messages with their places). Those in STRUCTURE the JSON Schema refuses too.
STRUCTURE: dict[str, tuple[str, list[str]]] = {
    "no mapping": ("- a\n", ["f:1:1  a list is not a bazaar: begin with 'bazaar: NAME'"]),
    "no name": ("sites: {}\n", ["f:1:1  there is no 'bazaar: NAME', the name of the whole"]),
    "a wrong name": (
        "bazaar: Fosdem\n",
        [
            (
                "f:1:9  bazaar: 'Fosdem' is no name: up to 63 lower-case letters, digits and '-', "
                "with a letter or digit at both ends"
            )
        ],
    ),
    "an unknown key": (
        "bazaar: x\nservice: {}\n",
        ["f:2:1  service: there is no key 'service' here. Did you mean 'services'?"],
    ),
    "replicas as a word": (
        SERVICE + "stand: apache\n    replicas: two\n",
        ["f:5:15  services.a.replicas: 'two' is not a whole number above 0"],
    ),
    "no replicas": (
        SERVICE + "stand: apache\n    replicas: 0\n",
        ["f:5:15  services.a.replicas: 0 is not a whole number above 0"],
    ),
    "half a replica": (
        SERVICE + "stand: apache\n    replicas: 1.5\n",
        ["f:5:15  services.a.replicas: 1.5 is not a whole number above 0"],
    ),
    "an unknown stand": (
        SERVICE + "stand: apach\n",
        ["f:4:12  services.a.stand: there is no stand 'apach'. Did you mean 'apache'?"],
    ),
    "a stand and an image": (
        SERVICE + "stand: apache\n    image: x\n",
        [
            (
                "f:3:3  services.a: a service needs exactly one of: stand (`bazaar stands` lists them), "
                "image"
            )
        ],
    ),
    "neither stand nor image": (
        SERVICE + "port: 80\n",
        [
            (
                "f:3:3  services.a: a service needs exactly one of: stand (`bazaar stands` lists them), "
                "image"
            )
        ],
    ),
    "a service that is a word": (
        "bazaar: x\nservices:\n  a: apache\n",
        ["f:3:6  services.a: 'apache' is not a mapping. It has: stand, image, command"],
    ),
    "services as a list": (
        "bazaar: x\nservices: [apache]\n",
        ["f:2:11  services: a list is not a mapping of services by name"],
    ),
    "an unknown kernel": (
        SERVICE + "stand: apache\n    kernel: none\n",
        ["f:5:13  services.a.kernel: 'none' is not own or shared"],
    ),
    "a port that is none": (
        SERVICE + "image: x\n    port: 70000\n",
        ["f:5:11  services.a.port: 70000 is not a port, a whole number from 1 to 65535"],
    ),
    "a variable that is a boolean": (
        SERVICE + "stand: apache\n    environment: {A: true}\n",
        [
            (
                "f:5:22  services.a.environment.A: true is not text; put it in quotes, or name a "
                "secret: {file: PATH} or {env: NAME}"
            )
        ],
    ),
    "a secret of nothing known": (
        SERVICE + "stand: apache\n    environment: {A: {vault: x}}\n",
        ["f:5:22  services.a.environment.A: there is no key 'vault'. A secret has: file, env"],
    ),
    "a secret of two places": (
        SERVICE + "stand: apache\n    environment: {A: {file: x, env: B}}\n",
        ["f:5:22  services.a.environment.A: a secret needs exactly one of: file, env"],
    ),
    "a volume without a target": (
        SERVICE + "stand: apache\n    volumes: [data]\n",
        [
            (
                "f:5:15  services.a.volumes[0]: 'data' is not NAME:/path or /path/on/host:/path, each "
                "with or without ':ro'"
            )
        ],
    ),
    "volumes as a word": (
        SERVICE + "stand: apache\n    volumes: data:/x\n",
        [
            (
                "f:5:14  services.a.volumes: 'data:/x' is not a list of volumes such as "
                "data:/var/lib/mysql"
            )
        ],
    ),
    "memory in words": (
        SERVICE + "stand: apache\n    memory: much\n",
        ["f:5:13  services.a.memory: 'much' is not a size of memory such as 256M or 1G"],
    ),
    "an unknown health key": (
        SERVICE + "stand: apache\n    health: {url: /}\n",
        [
            (
                "f:5:14  services.a.health.url: there is no key 'url' here. There are: kind, path, "
                "interval, timeout, start_period"
            )
        ],
    ),
    "health as a word": (
        SERVICE + "stand: apache\n    health: good\n",
        [
            (
                "f:5:13  services.a.health: 'good' is not a mapping. It has: kind, path, interval, "
                "timeout, start_period"
            )
        ],
    ),
    "published nowhere": (
        SERVICE + "stand: apache\n    publish: 8080:80\n",
        [
            (
                "f:5:14  services.a.publish: '8080:80' is not a port of the host such as 8080 "
                "(loopback) or 0.0.0.0:8080"
            )
        ],
    ),
    "no sites for a service": (
        SERVICE + "stand: apache\n    sites: []\n",
        ["f:5:12  services.a.sites: a list is not 'all' or a list of at least one site's name"],
    ),
    "a wrong name of a service": (
        "bazaar: x\nservices:\n  A_b: {stand: apache}\n",
        [
            (
                "f:3:3  services.A_b: 'A_b' is no name: up to 63 lower-case letters, digits and '-', "
                "with a letter or digit at both ends"
            )
        ],
    ),
    "a name inside": (
        SERVICE + "stand: apache\n    name: b\n",
        ["f:5:5  services.a.name: the name stands before the colon"],
    ),
    "a subnet of the wrong size": (
        "bazaar: x\nsubnet: 10.1.0.0/24\n",
        ["f:2:9  subnet: '10.1.0.0/24' is not a private network of /16 such as 10.44.0.0/16"],
    ),
    "an unknown provider": (
        "bazaar: x\nsites:\n  a: {provider: awss}\n",
        ["f:3:17  sites.a.provider: there is no provider 'awss'. Did you mean 'aws'?"],
    ),
    "a probe of nothing": (
        "bazaar: x\nprobes:\n  p: {}\n",
        ["f:3:3  probes.p: a probe needs exactly one of: text, file"],
    ),
    "a shield's mode": (
        "bazaar: x\nshield: {mode: of}\n",
        ["f:2:16  shield.mode: 'of' is not on, dry-run or off. Did you mean 'off'?"],
    ),
    "a shield's rate": (
        "bazaar: x\nshield: {rate: fast}\n",
        ["f:2:16  shield.rate: 'fast' is not a rate above 0 such as 2000/s"],
    ),
}

# What only the parts together make wrong: no schema sees it.
TOGETHER: dict[str, tuple[str, list[str]]] = {
    "what comes later, beside other mistakes": (
        "bazaar: x\nsites:\n  a:\n    provider: aws\n  b: {zone: x, machines: 3}\nservices:\n  s: {stand: apache, sites: [c]}\n",
        [
            "f:4:15  sites.a.provider: 'aws' is not there yet: this version runs sites on this machine, 'provider: local', and clusters on machines of yours, 'provider: hosts'",
            "f:5:7  sites.b.zone: is not there yet: providers of machines have it",
            "f:5:16  sites.b.machines: is not there yet: a local site is a network namespace of this machine",
            "f:7:30  services.s.sites[0]: there is no site 'c'. There are: a, b",
        ],
    ),
    "a key twice": (
        "bazaar: x\nbazaar: y\n",
        ["f:2:1  'bazaar' stands here twice, first in line 1"],
    ),
    "an address to allow": (
        "bazaar: x\nshield: {allow: [10.0.0.0/8, here]}\n",
        [
            (
                "f:2:30  shield.allow[1]: 'here' is not an address or network such as 192.0.2.7 or "
                "192.0.2.0/24"
            )
        ],
    ),
    "an unknown site": (
        "bazaar: x\nsites: {u: {}, k: {}}\nservices:\n  a: {stand: apache, sites: [u, kk]}\n",
        ["f:4:33  services.a.sites[1]: there is no site 'kk'. Did you mean 'k'?"],
    ),
    "a site elsewhere preferred": (
        "bazaar: x\nsites: {u: {}, k: {}}\nservices:\n  a: {stand: apache, sites: [u], nearest: k}\n",
        ["f:4:43  services.a.nearest: the service does not run in 'k'"],
    ),
    "copies that do not replicate": (
        "bazaar: x\nservices:\n  a: {stand: mariadb, replicas: 2}\n",
        [
            (
                "f:3:33  services.a.replicas: 2 replicas of 'mariadb' would each keep data of their own, "
                "and answer differently: it is stateful and does not replicate. Accepted: one replica "
                "in one site"
            )
        ],
    ),
    "a database in every site": (
        "bazaar: x\nsites: {u: {}, k: {}}\nservices:\n  a:\n    stand: mariadb\n",
        [
            (
                "f:4:3  services.a.sites: 2 sites of 'mariadb' would each keep data of their own, "
                "and answer differently: it is stateful and does not replicate. Accepted: one replica "
                "in one site"
            )
        ],
    ),
    "a volume of a database's": (
        (
            "bazaar: x\nservices:\n  a: {stand: mariadb, volumes: ['d:/var/lib/mysql']}\n"
            "  b: {stand: apache, volumes: ['d:/srv']}\n"
        ),
        [
            (
                "f:4:32  services.b.volumes[0]: 'd' holds the data of a; take another volume, or add "
                "':ro'"
            )
        ],
    ),
    "two volumes in one place": (
        "bazaar: x\nservices:\n  a: {stand: apache, volumes: ['d:/srv', 'e:/srv']}\n",
        ["f:3:42  services.a.volumes[1]: a volume stands at '/srv' already"],
    ),
    "a port published twice": (
        (
            "bazaar: x\nservices:\n  a: {stand: apache, publish: 8080}\n"
            "  b: {stand: nginx, publish: ['0.0.0.0:8080', 8081]}\n"
        ),
        ["f:4:31  services.b.publish[0]: port 8080 of 127.0.0.1 is published for a already"],
    ),
    "published without a port": (
        "bazaar: x\nservices:\n  a: {image: x, publish: 8080, health: {kind: http}}\n",
        [
            "f:3:26  services.a.publish: means nothing without a port; add 'port: 80' or so",
            "f:3:40  services.a.health: means nothing without a port; add 'port: 80' or so",
        ],
    ),
    "a path for a TCP check": (
        "bazaar: x\nservices:\n  a: {stand: apache, health: {kind: tcp, path: /x}}\n",
        ["f:3:48  services.a.health.path: a check of kind tcp asks for no path"],
    ),
    "a site outside": (
        (
            "bazaar: x\nsubnet: 10.1.0.0/16\nsites:\n  a: {subnet: 10.2.1.0/24}\n"
            "  b: {subnet: 10.1.0.0/24}\n"
        ),
        [
            "f:4:15  sites.a.subnet: '10.2.1.0/24' is not inside the bazaar's subnet 10.1.0.0/16",
            (
                "f:5:15  sites.b.subnet: '10.1.0.0/24' is the network of the front addresses; take "
                "another"
            ),
        ],
    ),
    "a subnet twice": (
        (
            "bazaar: x\nsubnet: 10.1.0.0/16\nsites:\n  a: {subnet: 10.1.1.0/24}\n"
            "  b: {subnet: 10.1.1.0/24}\n"
        ),
        ["f:5:15  sites.b.subnet: '10.1.1.0/24' is the subnet of a already"],
    ),
    "a site's subnet alone": (
        "bazaar: x\nsites:\n  a: {subnet: 10.199.1.0/24}\n",
        [
            (
                "f:3:15  sites.a.subnet: lies in the bazaar's subnet, which is not given: "
                "add 'subnet: 10.199.0.0/16'"
            )
        ],
    ),
    "the name of others": (
        "bazaar: run\n",
        ["f:1:9  bazaar: 'run' is what the containers of `bazaar run` go by; take another name"],
    ),
    "names too long together": (
        f"bazaar: {'b' * 60}\nsites: {{{'s' * 60}: {{}}, t: {{}}}}\nservices:\n  a: {{stand: apache}}\n",
        [
            (
                f"f:4:3  services.a: its name makes 130 characters with the bazaar's and that of '{'s' * 60}'; "
                "a container's has up to 127. Shorten one of them"
            )
        ],
    ),
    "too many": (
        (
            "bazaar: x\nsites: {u: {}}\nservices:\n  a: {stand: apache, replicas: 100}\n"
            "  b: {stand: apache, replicas: 100}\n  c: {stand: apache}\n"
        ),
        ["f:2:9  sites.u: 201 replicas; a site holds up to 200"],
    ),
    "an empty program": (
        "bazaar: x\nprobes: {p: ' '}\n",
        ["f:2:13  probes.p: an empty program; the least is: BEGIN { exit(); }"],
    ),
    "a program that does not compile": (
        "bazaar: x\nprobes:\n  p: |\n    BEGIN {\n      @ = cuont();\n    }\n",
        ["f:3  probes.p: 2:7 "],
    ),
    "a program's file that is not there": (
        "bazaar: x\nprobes: {p: {file: /nowhere.bt}}\n",
        ["f:2:20  probes.p.file: cannot read /nowhere.bt: No such file or directory"],
    ),
    "everything at once": (
        (
            "bazaar: x\nsites: {a: {}, a: {}}\nservices:\n  s:\n    stand: apach\n"
            "    replicas: two\n    sites: [b]\n    helth: {}\n"
        ),
        [
            "f:2:16  sites: 'a' stands here twice, first in line 2",
            "f:5:12  services.s.stand: there is no stand 'apach'. Did you mean 'apache'?",
            "f:6:15  services.s.replicas: 'two' is not a whole number above 0",
            "f:7:13  services.s.sites[0]: there is no site 'b'. There are: a",
            "f:8:5  services.s.helth: there is no key 'helth' here. Did you mean 'health'?",
        ],
    ),
}
