"""Own a stubborn server, print its state, wait to be killed. Usage: owner.py NAME [MODE [fork]]"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import httpx

from engineroom.kit import process

SERVER = str(Path(__file__).with_name("stubborn_server.py"))

if __name__ == "__main__":
    name, mode = sys.argv[1], (sys.argv[2:] or ["stubborn"])[0]
    server = process.start([sys.executable, SERVER, "{port}", mode], name=name, timeout=60)
    state = httpx.get(server.url, trust_env=False).json()
    while len(server._ledger.read_text().splitlines()) < 4:  # one line for each of its four files
        time.sleep(0.05)
    facts = {"port": server.port, "keeper": server._keeper.pid, "state": state}
    if "fork" in sys.argv:
        facts["fork"] = os.fork()
    if facts.get("fork") != 0:
        print(json.dumps(facts), flush=True)
    time.sleep(300)
