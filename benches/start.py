#!/usr/bin/env python3
"""How long a start takes with 1,000 packs in the blobspace, beside one with a single pack.

    cargo build --release && python3 benches/start.py
    python3 benches/start.py --binary target/debug/blobserve --packs 10000

One pack is made by serving the demonstration's image; the others are copies of it under the names of
other layers. Each round starts the binary on both blobspaces, the order turning from round to round,
and takes the time from before exec to the line that names the address. The figure is the ratio of the
medians. Needs nothing but Python; all is below a temporary directory beside the binary.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
IMAGE = "demo.localhost/site:v1"
OWN = "cache/blobserve-v1"
# What the project promises.
AIM = 1.5


class Process:
    """The binary; `seconds` is the time until it named its address."""

    def __init__(self, binary, home):
        began = time.perf_counter()
        self.process = subprocess.Popen([binary, "serve", "--config", home / "config.json"],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        self.seconds = time.perf_counter() - began
        if "http://" not in line:
            self.stop()
            raise SystemExit(f"{binary} does not start: {line!r}")
        self.address = line[line.index("http://"):].split()[0].rstrip("/")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()


def get(process):
    with urllib.request.urlopen(f"{process.address}/{IMAGE}/") as answer:
        assert answer.status == 200, answer.status
        answer.read()


def make_home(home):
    home.mkdir()
    config = {"blobserve": {
        "address": "127.0.0.1:0", "drainDelay": "0s", "repos": {"demo.localhost/site": {"workdir": "/srv/site"}},
        "blobSpace": {"location": str(home / "cache")},
        "registries": {"demo.localhost": {"layout": str(REPOSITORY / "demo/layout")}},
    }}
    (home / "config.json").write_text(json.dumps(config))


def multiply(packs, count):
    """Copies the one pack until there are `count`."""
    first, = packs.iterdir()
    digest = first.name.split("-")[1]
    for number in range(1, count):
        name = first.name.replace(digest, hashlib.sha256(str(number).encode()).hexdigest())
        # The mode says that it is durable: the background does not sync a thousand files during the rounds.
        shutil.copy2(first, packs / name)


def durable(packs):
    for _ in range(500):
        found = list(packs.iterdir())
        if found and all(path.stat().st_mode & 0o777 == 0o400 for path in found):
            return
        time.sleep(0.02)
    raise SystemExit("the pack is not made durable")


def main():
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--binary", type=pathlib.Path, default=REPOSITORY / "target/release/blobserve")
    asked.add_argument("--packs", type=int, default=1000)
    asked.add_argument("--rounds", type=int, default=11)
    asked = asked.parse_args()
    binary = asked.binary.resolve()
    if not binary.exists():
        raise SystemExit(f"{binary} is not there: cargo build --release, or --binary")
    with tempfile.TemporaryDirectory(dir=binary.parent) as directory:
        homes = {}
        for count in (1, asked.packs):
            home = homes[count] = pathlib.Path(directory) / str(count)
            make_home(home)
            process = Process(binary, home)
            get(process)
            durable(home / OWN / "packs")
            process.stop()
            multiply(home / OWN / "packs", count)
        os.sync()
        times = {count: [] for count in homes}
        for turn in range(asked.rounds + 1):
            for count in sorted(homes, reverse=turn % 2 == 1):
                process = Process(binary, homes[count])
                get(process)
                process.stop()
                # The first round warms the page cache.
                if turn:
                    times[count].append(process.seconds)
        for count, home in homes.items():
            left = len(list((home / OWN / "packs").iterdir()))
            assert left == count, f"{left} of {count} packs are left"
    medians = {count: statistics.median(taken) for count, taken in times.items()}
    for count, taken in times.items():
        print(f"{count:6} packs: {medians[count] * 1000:7.2f} ms median of {len(taken)} "
              f"({min(taken) * 1000:.2f} to {max(taken) * 1000:.2f})")
    ratio = medians[asked.packs] / medians[1]
    print(f"ratio: {ratio:.2f} (aim: at most {AIM})")
    return 0 if ratio <= AIM or asked.packs > 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
