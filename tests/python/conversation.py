"""Runs `examples/conversation.py` as its reader would, and kills the server while it talks.

The example drops its own connection once; here the server gets SIGKILL in the middle of an answer as
well, and is started again on the same address. The conversation must come out as if nothing had
happened. So must one whose agent says nothing for longer than a lost server is waited for.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLE = os.path.join(ROOT, "examples", "conversation.py")
CEILING = 120.0

SAID = [
    "> Remember that the colour is blue.",
    "< I will remember that the colour is blue.",
    "> Count to 8.",
    *[f"< {number}" for number in range(1, 9)],
    "> What is the colour?",
    "< The colour is blue.",
]


def start(binary, data_dir, listen, log):
    command = [binary, "serve", "--listen", listen, "--data-dir", data_dir]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    line = process.stdout.readline()
    assert line, "the server ended before it was ready"
    return process, json.loads(line)


def main(binary):
    with tempfile.TemporaryDirectory() as home:
        log = open(os.path.join(home, "stderr"), "ab")
        data_dir = os.path.join(home, "data")
        server, ready = start(binary, data_dir, "127.0.0.1:0", log)
        with open(ready["token_file"], encoding="ascii") as file:
            token = file.read().strip()
        command = [sys.executable, "-u", EXAMPLE, f"ws://{ready['listen']}/ws", token]
        talk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines = []
        for line in talk.stdout:
            lines.append(line.rstrip("\n"))
            if lines[-1] == "< 5":
                server.kill()
                server.wait()
                server, _ = start(binary, data_dir, ready["listen"], log)
        code = talk.wait(CEILING)
        server.terminate()
        assert server.wait(CEILING) == 0, "a planned stop failed"
        *conversation, verdict = [line for line in lines if not line.startswith("  (")]
        lost = lines.count("  (the connection is lost)")
        assert conversation == SAID, "\n".join(lines)
        assert code == 0 and "every one of them seen once" in verdict, verdict
        assert lost == 2, f"{lost} lost connections instead of 2"
    print("conversation: every line once, through a lost connection and a killed server")


def after_silence(binary):
    """Loses the server after a silence that is longer than the patience with a lost server."""
    spec = importlib.util.spec_from_file_location("conversation", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    # The server is back after less than this.
    example.PATIENCE_S = 5.0
    with tempfile.TemporaryDirectory() as home:
        log = open(os.path.join(home, "stderr"), "ab")
        data_dir, gate = os.path.join(home, "data"), os.path.join(home, "gate")
        servers = [start(binary, data_dir, "127.0.0.1:0", log)]
        ready = servers[0][1]
        with open(ready["token_file"], encoding="ascii") as file:
            token = file.read().strip()
        line = f"while [ ! -e {gate} ]; do sleep 0.05; done; echo '{{\"type\":\"said\"}}'"
        talk = example.Conversation(f"ws://{ready['listen']}/ws", token, ["sh", "-c", line])

        def lose():
            time.sleep(example.PATIENCE_S + 1)
            servers[0][0].kill()
            servers[0][0].wait()
            servers.append(start(binary, data_dir, ready["listen"], log))
            open(gate, "wb").close()

        losing = threading.Thread(target=lose)
        losing.start()
        said = [message["type"] for message in talk.messages()]
        losing.join()
        talk.close()
        servers[-1][0].terminate()
        assert servers[-1][0].wait(CEILING) == 0, "a planned stop failed"
        assert said == ["said"], said
        assert talk.end["state"] == "succeeded", talk.end
    print("conversation: a server that is lost after a long silence is waited for")


main(sys.argv[1])
after_silence(sys.argv[1])
