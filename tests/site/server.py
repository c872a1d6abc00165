"""A small HTTP/1.1 server for the tests: answers every request with its own name.

server.py ADDRESS PORT NAME [delay=SECONDS] [status=CODE] [mode=echo]
"""

import contextlib
import socket
import sys
import threading
import time

address, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
options = dict(word.split("=", 1) for word in sys.argv[4:])
delay = float(options.get("delay", "0"))
status = options.get("status", "200")


def serve(client: socket.socket) -> None:
    with client, contextlib.suppress(OSError):
        if options.get("mode") == "echo":
            client.sendall(name.encode() + b"\n")
            while data := client.recv(4096):
                client.sendall(data)
            return
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                chunk = client.recv(4096)
                if not chunk:
                    return
                received += chunk
            head, _, received = received.partition(b"\r\n\r\n")
            time.sleep(delay)
            body = name.encode() + b"\n" + (head if b"/head" in head.split(b"\r\n")[0] else b"")
            client.sendall(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )


with socket.create_server((address, port), backlog=512) as server:
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
