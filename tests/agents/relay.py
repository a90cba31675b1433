"""Stands between an agent and the server, and loses the reply to one call."""

import socket
import struct
import threading

PIECE_BYTES = 64 * 1024


class Relay:
    """Forwards TCP connections. The first one whose request holds `marker` never gets a reply.

    That connection is reset when `when_taken()` returns: when the server has done what was asked.
    """

    def __init__(self, port, target_port, marker, when_taken):
        self.target_port = target_port
        self.marker = marker
        self.when_taken = when_taken
        self.has_lost_one = False
        self.listener = socket.create_server(("127.0.0.1", port))

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        close(self.listener)

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                close(client)
                continue
            pair = Pair(self, client, server)
            threading.Thread(target=pair.requests, daemon=True).start()
            threading.Thread(target=pair.replies, daemon=True).start()


class Pair:
    """A connection of the agent and the one to the server that belongs to it."""

    def __init__(self, relay, client, server):
        self.relay = relay
        self.client = client
        self.server = server
        self.is_muted = False

    def requests(self):
        seen = b""
        while piece := receive(self.client):
            seen = (seen + piece)[-PIECE_BYTES:]
            if not self.relay.has_lost_one and self.relay.marker in seen:
                self.relay.has_lost_one = True
                self.is_muted = True
                threading.Thread(target=self.reset_when_taken, daemon=True).start()
            send(self.server, piece)
        close(self.server)

    def replies(self):
        while piece := receive(self.server):
            if not self.is_muted:
                send(self.client, piece)
        if not self.is_muted:
            close(self.client)

    def reset_when_taken(self):
        self.relay.when_taken()
        # With a linger of 0 s, a close without a shutdown of the sending side is a reset.
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        close(self.client, socket.SHUT_RD)
        close(self.server)


def receive(connection):
    try:
        return connection.recv(PIECE_BYTES)
    except OSError:
        return b""


def send(connection, data):
    try:
        connection.sendall(data)
    except OSError:
        close(connection)


def close(connection, how=socket.SHUT_RDWR):
    # A close alone does not wake the thread that reads from it.
    try:
        connection.shutdown(how)
    except OSError:
        pass
    connection.close()
