"""Asks a server again and again how it is, in a process of its own: `watch.py ADDRESS`, until its stdin ends.

Then it prints how many seconds each answer took, as JSON. In the process of many clients it would measure these.
"""

import http.client
import json
import select
import sys
import time
from urllib.parse import urlsplit

PAUSE = 0.02  # seconds between two questions


def watch(address: str) -> list[float]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    delays = []
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        started = time.monotonic()
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        delays.append(time.monotonic() - started)
    return delays


if __name__ == "__main__":
    print(json.dumps(watch(sys.argv[1])))
