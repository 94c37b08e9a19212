"""Between psql and the gateway, and between the gateway and the server: what the gateway refuses runs all the same.

    psql -> Front -> gateway -> Back -> PostgreSQL

`Front` sees the client's queries one by one. One that the gateway refuses is put to the server by `Back` past the gateway, on the
same session, so that the next statements find what they expect. `Back` also asks the server questions of the observer's own.
"""

import os
import queue
import socket
import threading
import traceback

import wire

# What the gateway sends to make an open transaction fail with what it refused.
POISON = wire.query(b"operation refused by the gateway")
# The gateway's own prepared statement.
QUESTION = b"_gateway_resolve\0"
# The longest wait for an answer, in seconds.
PATIENCE = 120
# Settings that change how text is read are not changed past the gateway: it would read everything after them wrongly.
LEXICAL = (b"standard_conforming_strings", b"client_encoding", b"backslash_quote", b"encoding", b"names")


class Back:
    """The gateway's connection to the server, once the two are talking."""

    def __init__(self, gateway, server):
        self.gateway, self.server = gateway, server
        self.status = b"I"
        self.pid = None
        self.diverted = None
        self.ready = threading.Event()
        # Whether the server writes trees into its log, and whether messages were sent that no Sync has ended.
        self.trees = True
        self.open = False

    def run(self):
        self.server.send(self.gateway.startup())
        threading.Thread(target=self.downwards, daemon=True).start()
        try:
            while True:
                frame = self.gateway.frame()
                if frame == POISON:
                    # The refused statement runs after all, so there is nothing to make fail.
                    self.gateway.send(wire.frame(b"Z", self.status))
                else:
                    self.watch(frame)
                    self.server.send(frame)
        except wire.Closed:
            self.server.close()

    def watch(self, frame):
        """Trees are wanted of the client's statements, not of the gateway's long question."""
        if frame[:1] in (b"Q", b"P") and not self.open:
            self.show_trees(not frame[5:].startswith(QUESTION))
        self.open = frame[:1] not in (b"Q", b"S", b"X")

    def show_trees(self, show):
        self.trees = show
        if self.status != b"E":
            value = "on" if show else "off"
            self.ask(f"SET debug_print_parse = {value}; SET debug_print_plan = {value}")

    def downwards(self):
        try:
            while True:
                frame = self.server.frame()
                if frame[:1] == b"Z":
                    self.status = frame[5:6]
                if frame[:1] == b"K":
                    self.pid = int.from_bytes(frame[5:9], "big")
                diverted = self.diverted
                if diverted is not None:
                    if frame[:1] == b"Z":
                        self.diverted = None
                    diverted.put(frame)
                else:
                    self.gateway.send(frame)
                    if frame[:1] == b"Z":
                        self.ready.set()
        except wire.Closed:
            if self.diverted is not None:
                self.diverted.put(None)
            self.gateway.close()

    def past_the_gateway(self, frame):
        """Sends a query to the server itself; its answer's frames come one by one, up to ReadyForQuery."""
        answers = queue.Queue()
        self.diverted = answers
        self.server.send(frame)
        while True:
            answer = answers.get(timeout=PATIENCE)
            if answer is None:
                raise wire.Closed
            yield answer
            if answer[:1] == b"Z":
                return

    def ask(self, text):
        """Rows of a question of the observer's own; `None` if the server cannot answer now."""
        frames = list(self.past_the_gateway(wire.query(text.encode())))
        return None if any(f[:1] == b"E" for f in frames) else [wire.row(f) for f in frames if f[:1] == b"D"]


class Asked:
    """A query of the client and what became of it."""

    def __init__(self, text):
        self.text = text
        self.denial = None
        self.error = None
        self.tags = []
        self.injected = False
        self.extended = False

    def take(self, frame):
        if frame[:1] == b"C":
            self.tags.append(frame[5:-1].decode())
        elif frame[:1] == b"E":
            self.error = wire.fields(frame)


class Front:
    """A client's connection."""

    def __init__(self, client, relay):
        self.client, self.relay = client, relay

    def run(self):
        try:
            packet = self.client.startup()
            while wire.code(packet) in (wire.SSL_REQUEST, wire.GSS_REQUEST):
                self.client.send(b"N")
                packet = self.client.startup()
            if wire.code(packet) == wire.CANCEL_REQUEST:
                return self.client.close()
            self.log_in(wire.parameters(packet))
            while True:
                self.serve(self.client.frame())
        except wire.Closed:
            self.client.close()
            if hasattr(self, "gateway"):
                self.gateway.close()
        except Exception:
            # Nothing that was not compared may look as if it had been.
            traceback.print_exc()
            os._exit(3)

    def log_in(self, wished):
        self.gateway = wire.Wire(socket.create_connection(("127.0.0.1", self.relay.gateway_port)))
        self.gateway.send(wire.startup({"user": "agent", "database": wished.get("database", wished["user"])}))
        while True:
            frame = self.gateway.frame()
            if frame[:1] == b"R" and frame[5:9] == b"\0\0\0\3":
                self.gateway.send(wire.frame(b"p", self.relay.token.encode() + b"\0"))
                continue
            self.client.send(frame)
            if frame[:1] == b"Z":
                break
        self.back = self.relay.backs.get(timeout=PATIENCE)
        # One that no client waited for any more was of an earlier one.
        while not self.relay.backs.empty():
            self.back = self.relay.backs.get()
        self.back.ready.wait(PATIENCE)
        # The gateway logs in as one role; the client asked for another, as it may where everybody is trusted.
        if wished["user"] != "postgres":
            self.back.ask(f'SET SESSION AUTHORIZATION "{wished["user"]}"')

    def serve(self, frame):
        if frame[:1] == b"Q":
            asked = Asked(frame[5:-1])
        elif frame[:1] == b"X":
            self.gateway.send(frame)
            raise wire.Closed
        else:
            asked = Asked(b"")
            asked.extended = True
            last = frame
            while last[:1] not in (b"S", b"F"):
                last = self.client.frame()
                frame += last
        self.relay.before(self)
        self.gateway.send(frame)
        self.answer(self.gateway.frame, self.gateway.send, asked)
        asked.operations = self.relay.judged()
        if asked.denial and self.may_inject(asked):
            asked.injected = True
            asked.error, asked.tags = None, []
            self.back.show_trees(True)
            answers = self.back.past_the_gateway(frame)
            self.answer(lambda: next(answers), self.back.server.send, asked)
            self.forget()
        elif asked.denial:
            self.client.send(asked.refusal)
            self.client.send(wire.frame(b"Z", self.back.status))
        self.relay.after(self, asked)

    def may_inject(self, asked):
        text = asked.text.lower()
        sets = b"set" in text or b"alter" in text
        return not (asked.extended and asked.denial["C"] != "0A000") and not (sets and any(name in text for name in LEXICAL))

    def answer(self, receive, send, asked):
        """Passes an answer on, but for a refusal."""
        while True:
            frame = receive()
            asked.take(frame)
            if frame[:1] == b"E" and asked.error["M"].startswith("gateway:") and not asked.injected:
                asked.denial, asked.refusal = asked.error, frame
            elif not (frame[:1] == b"Z" and asked.denial and not asked.injected):
                self.client.send(frame)
            if frame[:1] == b"Z":
                return
            if frame[:1] == b"G":
                self.copy_in(send)

    def copy_in(self, send):
        while True:
            frame = self.client.frame()
            send(frame)
            if frame[:1] in (b"c", b"f"):
                return

    def forget(self):
        """What ran past the gateway may have changed what names mean: it is made to ask again."""
        if self.back.status == b"E":
            return
        self.gateway.send(wire.query(b"DO $$BEGIN END$$ -- observer"))
        while self.gateway.frame()[:1] != b"Z":
            pass


class Relay:
    """Both listeners. `before(front)` and `after(front, asked)` are called around every query; `judged()` gives what it was judged as."""

    def __init__(self, before, judged, after):
        self.before, self.judged, self.after = before, judged, after
        self.backs = queue.Queue()
        self.clients = []
        self.front, self.back = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.front_port, self.back_port = (s.getsockname()[1] for s in (self.front, self.back))

    def start(self, server_port, gateway_port, token):
        self.server_port, self.gateway_port, self.token = server_port, gateway_port, token
        for accept in (self.accept_front, self.accept_back):
            threading.Thread(target=accept, daemon=True).start()

    def accept_front(self):
        while True:
            client, _ = self.front.accept()
            thread = threading.Thread(target=Front(wire.Wire(client), self).run, daemon=True)
            thread.start()
            self.clients.append(thread)

    def settle(self):
        """Waits until the clients that have gone are done with: their last statement may still be compared."""
        while self.clients:
            self.clients.pop().join(PATIENCE)

    def accept_back(self):
        while True:
            gateway, _ = self.back.accept()
            server = socket.create_connection(("127.0.0.1", self.server_port))
            back = Back(wire.Wire(gateway), wire.Wire(server))
            self.backs.put(back)
            threading.Thread(target=back.run, daemon=True).start()
