"""Exported asciicasts, read by the parser of the package `asciinema`, as its player reads them.

It runs jobs with the binary that it is given, exports each as an asciicast and as JSON, and compares:
the text must be that of the bytes, and every event must come when a piece of it was captured.
"""

import base64
import datetime
import json
import os
import subprocess
import sys
import tempfile

from asciinema.asciicast import open_from_url

# A prompt without a newline, both streams, a character that is cut in the middle, pauses.
TALKS = r"""printf 'name? '; sleep 0.1; printf 'err\n' >&2; sleep 0.1
printf 'gr\303'; sleep 0.1; printf '\274n \342\202\254\n'; sleep 0.1; printf 'done'"""
# Bytes that are no UTF-8, and colours.
RAW = r"""printf '\033[31mred\033[0m\n\377\376\000end\r\n'"""
# Much, of many pieces.
LONG = "i=0; while [ $i -lt 20000 ]; do echo \"line $i €\"; i=$((i+1)); done"


def call(binary, home, *words, check=True):
    command = [binary, words[0], "--data-dir", os.path.join(home, "data"), *words[1:]]
    return subprocess.run(command, capture_output=True, check=check, timeout=60)


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def data_of(chunk):
    if "data" in chunk:
        return chunk["data"].encode()
    return base64.b64decode(chunk["data_base64"])


def streams_as_text(chunks):
    """Each stream by itself, so that a character of one is not cut by bytes of the other."""
    streams = {}
    for chunk in chunks:
        streams.setdefault(chunk["stream"], bytearray()).extend(data_of(chunk))
    return sorted(bytes(data).decode(errors="replace") for data in streams.values())


def on_a_terminal(text):
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def check_cast(binary, home, shell):
    done = call(binary, home, "run", "--shell", shell, check=False)
    assert done.returncode == 0, done
    recording = json.loads(call(binary, home, "export", "last", "--format", "json").stdout)
    job, chunks = recording["job"], recording["chunks"]
    path = os.path.join(home, "job.cast")
    call(binary, home, "export", "last", "--format", "asciicast", "--force", "-o", path)

    with open_from_url(path) as cast:
        header = cast.v2_header
        events = list(cast.events())
        assert cast.version == 2 and header["version"] == 2, header
    assert header["width"] > 0 and header["height"] > 0, header
    began = moment(job["started_at"])
    assert header["timestamp"] == int(began.timestamp()), header
    assert all(event[1] == "o" for event in events), events
    text = "".join(event[2] for event in events)
    streams = streams_as_text(chunks)
    if len(streams) == 1:
        assert text == on_a_terminal(streams[0]), (text, streams)
    else:
        assert sorted(text) == sorted(on_a_terminal("".join(streams))), (text, streams)

    times = [event[0] for event in events]
    assert times == sorted(times), times
    captured = {round(max((moment(c["at"]) - began).total_seconds(), 0), 6) for c in chunks}
    for time in times:
        assert any(abs(time - at) < 1e-5 for at in captured), (time, sorted(captured)[:10])
    if len(times) > 1:
        span = max(captured) - min(captured)
        assert times[-1] - times[0] <= span + 1e-5, (times[0], times[-1], span)
    return text


def main():
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="cc-executor-casts-") as home:
        try:
            text = check_cast(binary, home, TALKS)
            assert text.replace("err\r\n", "") == "name? grün €\r\ndone", text
            text = check_cast(binary, home, RAW)
            assert text == "\x1b[31mred\x1b[0m\r\n\ufffd\ufffd\0end\r\n", text
            text = check_cast(binary, home, LONG)
            assert text.count("\r\n") == 20000 and "\ufffd" not in text
        finally:
            call(binary, home, "stop", check=False)
    print("casts: asciinema's parser reads what was recorded, with its times")


main()
