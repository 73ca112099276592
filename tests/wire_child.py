"""A user's program without any knowledge of retold: it asks each of its arguments, and prints a line of JSON for each answer.

`exit=N` exits with that code, `stdin` prints the input, and `sleep` waits for a signal.
"""

import hashlib
import http.client
import json
import os
import signal
import sys
from urllib.parse import urlsplit

base = urlsplit(os.environ["ANTHROPIC_BASE_URL"])


def ask(prompt: str) -> None:
    connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=20)
    asked = {"model": "claude-sonnet-4-5", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    headers = {"x-api-key": os.environ.get("ANTHROPIC_API_KEY", ""), "Accept-Encoding": "gzip"}
    connection.request("POST", base.path + "/v1/messages", json.dumps(asked), headers)
    response = connection.getresponse()
    received, error = b"", None
    try:
        while piece := response.read1():
            received += piece
    except http.client.HTTPException as failure:
        error = type(failure).__name__
    print(json.dumps([response.status, response.reason, hashlib.sha256(received).hexdigest(), error]), flush=True)
    if response.status == 418:
        print(json.loads(received)["error"]["message"], flush=True)


for argument in sys.argv[1:]:
    if argument.startswith("exit="):
        sys.exit(int(argument[5:]))
    elif argument == "stdin":
        print(sys.stdin.read())
    elif argument == "sleep":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(17))
        signal.signal(signal.SIGINT, lambda *_: sys.exit(18))
        print("ready", flush=True)
        while True:
            signal.pause()
    else:
        ask(argument)
