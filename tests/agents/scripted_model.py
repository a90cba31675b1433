"""A model that follows a script, on loopback, for every API in `apis`."""

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import apis
from script import CannotGoOn, Say, Text, position

# What requests get that list no tool of ours: for the title of a conversation, say, or before the
# agent has connected with our server.
SIDE_REPLY = "ok"


class ScriptedModel:
    """Serves one script to an agent in the directory `work`.

    `views` are the requests of the conversation, the newest last.
    """

    def __init__(self, steps, work, log_path):
        self.steps = steps
        self.work = str(work)
        self.views = []
        self.problems = []
        self.side_requests = 0
        self.is_finished = False
        self.may_reply = threading.Event()
        self.may_reply.set()
        self.nonce = secrets.token_hex(4)
        self.lock = threading.Lock()
        self.log = open(log_path, "a", encoding="utf-8")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.go_on()
        self.server.shutdown()
        self.server.server_close()
        self.log.close()

    @property
    def view(self):
        """The last request of the conversation: everything that the model was ever shown."""
        return self.views[-1]

    def record(self, method, path, body):
        with self.lock:
            self.log.write(json.dumps({"method": method, "path": path, "body": body}) + "\n")
            self.log.flush()

    def hold(self):
        """Gives no reply until `go_on()`: a model may think for as long as it likes."""
        self.may_reply.clear()

    def go_on(self):
        self.may_reply.set()

    def reply(self, view):
        """The reply to a request; also remembers the request if it is of the conversation."""
        if view.find("run") is None and not view.ours:
            self.side_requests += 1
            return Text(f"{self.nonce}_side", SIDE_REPLY)
        self.may_reply.wait()
        with self.lock:
            self.views.append(view)
            done = position(self.steps, view)
            reply_id = f"call_{self.nonce}_{done}"
            try:
                if done >= len(self.steps):
                    raise CannotGoOn("asked again after the last step")
                step = self.steps[done]
                self.is_finished = isinstance(step, Say) and done == len(self.steps) - 1
                return step.reply(view, reply_id, self.work)
            except CannotGoOn as problem:
                self.problems.append(f"step {done}: {problem}")
                return Text(reply_id, f"The script cannot go on: {problem}")


def handler_of(model):
    """The class of request handlers that serve this model."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Requests are in the model's log."""

        def do_GET(self):
            model.record("GET", self.path, None)
            self.send_json({"object": "list", "data": [], "models": []})

        def do_POST(self):
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            model.record("POST", self.path, body)
            path = self.path.partition("?")[0]
            for api in apis.ALL:
                if api.answers(path):
                    events = api.write(model.reply(api.read(body)), body)
                    return self.send_events(events)
            return self.send_json({"input_tokens": 1})

        def send_json(self, value):
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def send_events(self, events):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            for name, event in events:
                data = event if isinstance(event, str) else json.dumps(event)
                head = f"event: {name}\n" if name else ""
                self.wfile.write(f"{head}data: {data}\n\n".encode())

    return Handler
