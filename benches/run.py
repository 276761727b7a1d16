#!/usr/bin/env python3
"""blobserve beside the tools that do its job today, on this machine, in the same run.

    python3 benches/run.py                    everything, some ten minutes on two cores
    python3 benches/run.py --only cold        cold: against `curl | tar xz` and `skopeo copy` + tar
    python3 benches/run.py --only warm        warm: against nginx on the same files

How each figure is taken: BENCHMARKS.md. Everything listens on loopback and ends with the script.
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
import layers  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TOOLS = {"curl": "curl", "tar": "tar", "npm": "npm", "docker-registry": "docker-registry", "skopeo": "skopeo",
         "nginx": "nginx", "wrk": "wrk"}
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """A process that listens; ended with `stop`."""

    def __init__(self, arguments, port, log):
        self.port = port
        with open(log, "ab") as out:
            self.process = subprocess.Popen([str(one) for one in arguments], stdout=out, stderr=out)
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit(f"{arguments[0]} ended: see {log}")
                time.sleep(0.05)
        self.stop()
        raise SystemExit(f"{arguments[0]} does not listen on port {port}: see {log}")

    def tree(self):
        """Its process id and those of its children."""
        mine, ids = self.process.pid, [self.process.pid]
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == mine:
                        ids.append(int(entry.name))
                except OSError:
                    pass
        return ids

    def cpu(self):
        """Seconds of CPU so far, user and system, children included."""
        total = 0
        for one in self.tree():
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def memory(self):
        """KiB: (peak resident, anonymous now)."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        values = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
        return int(values["VmHWM"]), int(values["RssAnon"])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Sampler(threading.Thread):
    """Takes the highest anonymous memory of a server, every 2 ms."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.highest, self.ended = server, 0, threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.002):
            self.highest = max(self.highest, self.server.memory()[1])

    def stop(self):
        self.ended.set()
        self.join()
        return self.highest


def start_registry(run, directory):
    port = free_port()
    config = run / "registry.yml"
    config.write_text(f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
                      f"storage: {{filesystem: {{rootdirectory: {directory}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    return Server(["docker-registry", "serve", config], port, run / "registry.log")


def start_blobserve(run, registry, location, settings=None):
    """`settings`: further keys under `blobserve`."""
    port = free_port()
    host = f"127.0.0.1:{registry.port}"
    repos = {f"{host}/bench/{kind}": {} for kind in ("small", "large", "warm", "serving")}
    config = {"blobserve": {"address": f"127.0.0.1:{port}", "blobSpace": {"location": str(location)}, "drainDelay": "0s",
                            "repos": repos, "registries": {host: {"plainHttp": True}}, **(settings or {})}}
    path = run / f"blobserve-{port}.json"
    path.write_text(json.dumps(config))
    binary = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "release" / "blobserve"
    return Server([binary, "serve", "--config", path], port, run / "blobserve.log")


def start_nginx(run, root):
    port = free_port()
    config = run / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(f"""{user} worker_processes 2; daemon off; pid {run}/nginx.pid; error_log {run}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{ sendfile on; tcp_nopush on; access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;
 open_file_cache max=10000 inactive=300s; open_file_cache_valid 300s; open_file_cache_min_uses 1;
 client_body_temp_path {run}/nginx-body; proxy_temp_path {run}/nginx-proxy; fastcgi_temp_path {run}/nginx-fastcgi;
 uwsgi_temp_path {run}/nginx-uwsgi; scgi_temp_path {run}/nginx-scgi;
 server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }} }}
""")
    return Server(["nginx", "-c", config], port, run / "nginx.log")


def ask(port, path):
    """Seconds from before connecting to the last byte of a 200."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    seconds = time.perf_counter() - start
    if answer.status != 200:
        raise SystemExit(f"GET {path}: {answer.status} {body[:200]}")
    return seconds, len(body)


def ask_length(port, path, rate):
    """Bytes of a 200, head included, let go of by the system (MSG_TRUNC), at most `rate` bytes a second: a client that takes as
    little of this machine's processors as one on another machine would."""
    with socket.create_connection(("127.0.0.1", port), timeout=600) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        start, status = time.perf_counter(), connection.recv(16)
        if not status.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"GET {path}: {status}")
        length, piece = len(status), bytearray(1 << 17)
        while got := connection.recv_into(piece, len(piece), socket.MSG_TRUNC):
            length += got
            time.sleep(max(0, length / rate - (time.perf_counter() - start)))
    return length


def need(tools, install):
    """Ends the script when a tool is missing, or installs it."""
    missing = sorted({package for tool, package in tools.items() if shutil.which(tool) is None})
    if missing and install:
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *missing], check=True)
    elif missing:
        sys.exit(f"missing tools: run with --install, or: apt-get install {' '.join(missing)}")


def push(registry, image):
    target = f"docker://127.0.0.1:{registry.port}/bench/{image['kind']}:v1"
    subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{image['layout']}:v1", target], check=True)


def read(parser, tools, results):
    """The arguments, with those that every comparison has; `results` is the name of the file with the
    raw figures. Installs the tools and builds blobserve."""
    parser.add_argument("--work", type=pathlib.Path, default=REPOSITORY / "target" / "bench", help="where packages, images and runs lie")
    parser.add_argument("--json", type=pathlib.Path, help=f"where the raw figures go (default WORK/{results})")
    parser.add_argument("--install", action="store_true", help="install missing tools by apt-get (as root)")
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.json = arguments.json or arguments.work / results
    need(tools, arguments.install)
    subprocess.run(["cargo", "build", "--release", "--locked"], check=True, cwd=REPOSITORY)
    return arguments


@contextlib.contextmanager
def registry_with(images, work):
    """A directory for one run, and a registry that has the images; both end with the block."""
    run = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=work))
    registry = start_registry(run, work / "registry")
    try:
        for image in images:
            push(registry, image)
        yield run, registry
    finally:
        registry.stop()
        shutil.rmtree(run, ignore_errors=True)


def tell(arguments, results, report):
    """Writes the raw figures, prints the report."""
    arguments.json.write_text(json.dumps(results, indent=1))
    print(f"\n{report}\n\nraw figures: {arguments.json}")


def shell(command):
    start = time.perf_counter()
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)
    return time.perf_counter() - start


def cold(arguments, run, registry, kinds):
    """Interleaved rounds; each measurement in a directory that never was, and nothing is deleted before the end."""
    results = {}
    for facts in kinds:
        kind, layer = facts["kind"], facts["layer"]
        host = f"127.0.0.1:{registry.port}"
        path = f"/{host}/bench/{kind}:v1/{facts['ask']}"
        blob = f"http://{host}/v2/bench/{kind}/blobs/{layer}"

        def blobserve(place):
            server = start_blobserve(run, registry, place)
            sampler = Sampler(server)
            try:
                seconds, size = ask(server.port, path)
                anonymous, resident = sampler.stop(), server.memory()[0]
            finally:
                server.stop()
            if size != facts["ask_bytes"]:
                raise SystemExit(f"{path}: {size} bytes instead of {facts['ask_bytes']}")
            return {"seconds": seconds, "anonymous_kib": anonymous, "resident_kib": resident}

        def curl(place):
            return {"seconds": shell(f"curl -sf '{blob}' | tar xz -C '{place}'")}

        def skopeo(place):
            source, unpacked = f"docker://{host}/bench/{kind}:v1", place / "unpacked"
            unpacked.mkdir()
            copy = f"skopeo copy -q --src-tls-verify=false '{source}' 'oci:{place}/image:v1'"
            return {"seconds": shell(f"{copy} && tar xzf '{place}/image/blobs/sha256/{layer[7:]}' -C '{unpacked}'")}

        ways = [("blobserve", blobserve), ("curl | tar xz", curl), ("skopeo copy + tar", skopeo)]
        taken = {name: [] for name, _ in ways}
        for round_number in range(arguments.rounds):
            # Each way is first, second and last equally often.
            turn = round_number % len(ways)
            for name, way in ways[turn:] + ways[:turn]:
                place = pathlib.Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=run))
                os.sync()
                one = way(place)
                taken[name].append(one)
                print(f"  {kind} round {round_number + 1}: {name} {one['seconds']:.3f} s", flush=True)
        results[kind] = {"image": facts, "taken": taken}
    return results


def wrk(arguments, url, size):
    """(requests a second, requests, 99th percentile). A large file counts by its bytes, since a
    short run ends in the middle of many answers."""
    out = subprocess.run(["wrk", "-t2", f"-c{arguments.connections}", f"-d{arguments.duration}s", "--timeout", "20s", "--latency", url],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"{url} was not answered properly:\n{out}")
    value = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.split()[1:]}
    summary = next(line for line in out.splitlines() if " requests in " in line)
    requests, spent = int(summary.split()[0]), summary.split()[3].rstrip(",")
    seconds = float(spent[:-1]) * {"s": 1, "m": 60, "h": 3600}[spent[-1]]
    if size >= 1 << 20:
        amount = summary.split()[4]
        requests = float(amount[:-2]) * {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}[amount[-2:]] / size
    return requests / seconds, requests, value["99%"]


def warm(arguments, run, registry, work):
    """wrk on both servers in turn, file by file, round by round."""
    nginx = start_nginx(run, layers.write_files("warm", work))
    server = start_blobserve(run, registry, run / "warm-blobs")
    prefix = f"/127.0.0.1:{registry.port}/bench/warm:v1"
    taken = {name: {"nginx": [], "blobserve": []} for name in layers.WARM}
    try:
        for name in layers.WARM:
            for port, path in ((server.port, f"{prefix}/{name}"), (nginx.port, f"/{name}")):
                ask(port, path)
        for round_number in range(arguments.rounds):
            for name in layers.WARM:
                pair = [("nginx", nginx, f"/{name}"), ("blobserve", server, f"{prefix}/{name}")]
                for which, one, path in pair if round_number % 2 else reversed(pair):
                    before = one.cpu()
                    rate, requests, slow = wrk(arguments, f"http://127.0.0.1:{one.port}{path}", layers.WARM[name])
                    cpu = (one.cpu() - before) / requests * 1e6
                    taken[name][which].append({"rate": rate, "cpu_us": cpu, "p99": slow})
                    print(f"  {name} round {round_number + 1}: {which} {rate:.0f}/s, {cpu:.1f} us CPU, 99% {slow}", flush=True)
        memory = server.memory()
    finally:
        server.stop()
        nginx.stop()
    return {"taken": taken, "resident_kib": memory[0], "anonymous_kib": memory[1]}


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def ratio(ours, theirs, key):
    """Median of the rounds' own ratios."""
    return statistics.median(a[key] / b[key] for a, b in zip(ours, theirs))


def report(results):
    lines = []
    for kind, one in results.get("cold", {}).items():
        image, taken = one["image"], one["taken"]
        ours = taken["blobserve"]
        lines += [f"cold, {kind}: {image['files']} files, {image['compressed'] / 1e6:.0f} MB gzip, {image['uncompressed'] / 1e6:.0f} MB tar",
                  "", "| | seconds (median) | blobserve ÷ this |", "|---|---|---|"]
        for name, rows in taken.items():
            cell = name.replace("|", "\\|")
            lines.append(f"| {cell} | {median(rows, 'seconds'):.3f} | {ratio(ours, rows, 'seconds'):.3f} |")
        allowed = 100_000_000 + 160 * image["files"]
        peak = max(row["anonymous_kib"] for row in ours) * 1024
        lines += ["", f"peak anonymous memory {peak / 1e6:.1f} MB (aim: at most {allowed / 1e6:.1f} MB), "
                  f"peak resident {max(row['resident_kib'] for row in ours) * 1024 / 1e6:.1f} MB", ""]
    if "warm" in results:
        one = results["warm"]
        lines += ["warm, HTTP/1.1 keep-alive", "",
                  "| file | nginx requests/s | blobserve requests/s | ratio | CPU per request, ratio |", "|---|---|---|---|---|"]
        for name, rows in one["taken"].items():
            ours, theirs = rows["blobserve"], rows["nginx"]
            lines.append(f"| {name} | {median(theirs, 'rate'):.0f} | {median(ours, 'rate'):.0f} | "
                         f"{ratio(ours, theirs, 'rate'):.2f} | {ratio(ours, theirs, 'cpu_us'):.2f} |")
        lines += ["", f"blobserve after it: peak resident {one['resident_kib'] * 1024 / 1e6:.1f} MB, "
                  f"anonymous {one['anonymous_kib'] * 1024 / 1e6:.1f} MB", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    parser.add_argument("--duration", type=int, default=5, help="seconds of one wrk run (default 5)")
    parser.add_argument("--connections", type=int, default=64, help="connections of wrk (default 64)")
    parser.add_argument("--only", choices=["cold", "warm"], help="one half only")
    parser.add_argument("--kinds", default="small,large", help="layers of the cold half (default small,large)")
    arguments = read(parser, TOOLS, "results.json")

    work = arguments.work
    kinds = [] if arguments.only == "warm" else [layers.make(kind, work) for kind in arguments.kinds.split(",")]
    images = kinds + ([] if arguments.only == "cold" else [layers.make("warm", work)])
    results = {"machine": {"cpus": os.cpu_count(), "system": platform.platform()}, "rounds": arguments.rounds,
               "duration_seconds": arguments.duration, "connections": arguments.connections}
    with registry_with(images, work) as (run, registry):
        if kinds:
            results["cold"] = cold(arguments, run, registry, kinds)
        if arguments.only != "cold":
            results["warm"] = warm(arguments, run, registry, work)
    tell(arguments, results, report(results))


if __name__ == "__main__":
    main()
