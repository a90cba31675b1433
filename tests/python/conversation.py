"""Runs `examples/conversation.py` as its reader would, and kills the server while it talks.

The example drops its own connection once; here the server gets SIGKILL in the middle of an answer as
well, and is started again on the same address. The conversation must come out as if nothing had
happened.
"""

import json
import os
import subprocess
import sys
import tempfile

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


main(sys.argv[1])
