import socket

from bazaar.host import namespaces
from bazaar.shield import ports
from tests.shield.network import wire

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0A2C0001:01BB 0A2C0002:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3 1
"""


def test_sockets_that_listen_to_others_are_served_ports() -> None:
    assert ports.parse("tcp", 0x0A, TABLE) == {("tcp", 80)}


def test_what_listens_in_a_namespace_is_found_there_and_nowhere_else() -> None:
    with wire() as made:
        with namespaces.enter(made.door):
            server = socket.create_server(("10.99.0.1", 8080))
            names = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            names.bind(("::", 53))
        with server, names:
            assert ports.listening(made.door) == {("tcp", 8080), ("udp", 53)}
            assert ports.listening(made.sender) == frozenset()
