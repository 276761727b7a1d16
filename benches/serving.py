#!/usr/bin/env python3
"""blobserve beside nginx in all other ways of serving than plain HTTP/1.1: HTTP/2, TLS, 304, listings;
what the access log costs; and what small requests wait for while a large cold file is sent.

    python3 benches/serving.py                       everything, some five minutes on two cores
    python3 benches/serving.py --only h2c,304        some of it

How each figure is taken: BENCHMARKS.md. Everything listens on loopback and ends with the script.
"""
import argparse
import ctypes
import http.client
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
import layers  # noqa: E402
import run as bench  # noqa: E402

REPOSITORY = bench.REPOSITORY
TOOLS = {"docker-registry": "docker-registry", "skopeo": "skopeo", "nginx": "nginx", "wrk": "wrk",
         "h2load": "nghttp2-client", "openssl": "openssl"}
# Requests of one run of h2load, and streams at once of each of its connections.
H2_REQUESTS, H2_STREAMS = 60_000, 10
RATE, TAIL_SECONDS = 2_000, 8
# Bytes a second of whoever takes the large file: a client on a link of 1 Gbit/s. One without a limit keeps both
# processors busy, and measures the scheduler.
LINK = 125_000_000


def certificate(run):
    """A certificate of our own for localhost: (certificate, key), as both servers get them."""
    cert, key = run / "cert.pem", run / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return cert, key


def start_nginx(run, root, cert, key):
    """(server, port of h2c, port of TLS); its own port is that of HTTP/1.1."""
    plain, h2c, tls = (bench.free_port() for _ in range(3))
    config = run / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(f"""{user} worker_processes 2; daemon off; pid {run}/nginx.pid; error_log {run}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{ sendfile on; tcp_nopush on; access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;
 open_file_cache max=10000 inactive=300s; open_file_cache_valid 300s; open_file_cache_min_uses 1;
 client_body_temp_path {run}/nginx-body; proxy_temp_path {run}/nginx-proxy; fastcgi_temp_path {run}/nginx-fastcgi;
 uwsgi_temp_path {run}/nginx-uwsgi; scgi_temp_path {run}/nginx-scgi; root {root}; autoindex on;
 ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
 server {{ listen 127.0.0.1:{plain} backlog=4096; }}
 server {{ listen 127.0.0.1:{h2c} http2 backlog=4096; }}
 server {{ listen 127.0.0.1:{tls} ssl backlog=4096; }} }}
""")
    return bench.Server(["nginx", "-c", config], plain, run / "nginx.log"), h2c, tls


def wrk(seconds, url, *more):
    """(requests a second, requests)."""
    out = subprocess.run(["wrk", "-t2", "-c64", f"-d{seconds}s", "--timeout", "20s", *more, url], check=True, stdout=subprocess.PIPE, text=True).stdout
    if "Non-2xx" in out and "If-None-Match" not in " ".join(more) or "Socket errors" in out:
        raise SystemExit(f"{url} was not answered properly:\n{out}")
    requests = int(re.search(r"(\d+) requests in", out)[1])
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), requests


def h2load(url):
    out = subprocess.run(["h2load", "-t1", "-c64", f"-m{H2_STREAMS}", f"-n{H2_REQUESTS}", url], check=True, stdout=subprocess.PIPE, text=True).stdout
    if f"{H2_REQUESTS} 2xx" not in out:
        raise SystemExit(f"{url} was not answered properly:\n{out}")
    return float(re.search(r"([\d.]+) req/s", out)[1]), H2_REQUESTS


def etag(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.getheader("ETag")


def peers(arguments, ours, nginx, ports):
    """Name → (aim of the ratio, load on ours, load on nginx)."""
    seconds, prefix = arguments.duration, ports["prefix"]

    def both(scheme, our_port, their_port, path, load):
        return (lambda: load(f"{scheme}://127.0.0.1:{our_port}{prefix}{path}"),
                lambda: load(f"{scheme}://127.0.0.1:{their_port}{path}"))

    plain = lambda url: wrk(seconds, url)  # noqa: E731

    def conditional(port, path):
        tag = etag(port, path)
        return lambda: wrk(seconds, f"http://127.0.0.1:{port}{path}", "-H", f"If-None-Match: {tag}")

    return {
        "h2c": ("h2c, 1 KB", 1.2, *both("http", ours.port, ports["h2c"], "/1k.bin", h2load)),
        "https1k": ("HTTPS, 1 KB", 1.0, *both("https", ports["our_tls"], ports["tls"], "/1k.bin", plain)),
        "https100k": ("HTTPS, 100 KB", 1.0, *both("https", ports["our_tls"], ports["tls"], "/100k.bin", plain)),
        "304": ("304", 1.2, conditional(ours.port, f"{prefix}/1k.bin"), conditional(nginx.port, "/1k.bin")),
        "listing": (f"listing of {layers.LISTED:,} entries", 1.0, *both("http", ours.port, nginx.port, "/listed/", plain)),
    }


def compare(arguments, results, run, registry, work, wanted):
    cert, key = certificate(run)
    nginx, h2c, tls = start_nginx(run, layers.write_files("serving", work), cert, key)
    our_tls = bench.free_port()
    settings = {"listing": True, "tls": {"cert": str(cert), "key": str(key), "address": f"127.0.0.1:{our_tls}"}}
    ours = bench.start_blobserve(run, registry, run / "blobs", settings)
    prefix = f"/127.0.0.1:{registry.port}/bench/serving:v1"
    ports = {"h2c": h2c, "tls": tls, "our_tls": our_tls, "prefix": prefix}
    try:
        bench.ask(ours.port, f"{prefix}/1k.bin")
        for name, (title, aim, on_ours, on_nginx) in peers(arguments, ours, nginx, ports).items():
            if name not in wanted:
                continue
            rows = {"blobserve": [], "nginx": []}
            for number in range(arguments.rounds):
                pair = [("blobserve", ours, on_ours), ("nginx", nginx, on_nginx)]
                for which, server, load in pair if number % 2 else reversed(pair):
                    before = server.cpu()
                    rate, requests = load()
                    rows[which].append({"rate": rate, "cpu_us": (server.cpu() - before) / requests * 1e6})
            results[name] = {"title": title, "aim": aim, "rows": rows}
            print(f"  {title}: {bench.ratio(rows['blobserve'], rows['nginx'], 'rate'):.2f}", flush=True)
    finally:
        ours.stop()
        nginx.stop()


def observed(arguments, results, run, registry):
    """Our own requests per second with an access log, over those without."""
    prefix = f"/127.0.0.1:{registry.port}/bench/serving:v1"
    log = {"accessLog": {"format": "combined", "file": str(run / "access.log")}}
    servers = {"logged": bench.start_blobserve(run, registry, run / "blobs-logged", log),
               "quiet": bench.start_blobserve(run, registry, run / "blobs-quiet")}
    rows = {"logged": [], "quiet": []}
    try:
        for server in servers.values():
            bench.ask(server.port, f"{prefix}/1k.bin")
        for number in range(arguments.rounds):
            for which in ("logged", "quiet") if number % 2 else ("quiet", "logged"):
                rate, _ = wrk(arguments.duration, f"http://127.0.0.1:{servers[which].port}{prefix}/1k.bin")
                rows[which].append({"rate": rate})
    finally:
        for server in servers.values():
            server.stop()
    results["observed"] = rows


def forget(files):
    """Takes files out of the page cache (POSIX_FADV_DONTNEED)."""
    os.sync()
    libc = ctypes.CDLL(None, use_errno=True)
    for file in files:
        with open(file, "rb") as one:
            libc.posix_fadvise(one.fileno(), ctypes.c_long(0), ctypes.c_long(0), 4)


def tail(arguments, results, run, registry, work):
    """99th percentile of small requests at a fixed rate: quiet, and while a cold file of 1 GiB is sent."""
    out = subprocess.run(["cargo", "bench", "--no-run", "--bench", "rate"], check=True, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True).stderr
    binary = REPOSITORY / re.search(r"\((.*?rate-[0-9a-f]+)\)", out)[1]
    root, place = layers.write_files("serving", work), run / "blobs-tail"
    # New processes each time, so that nothing of the file is mapped or in memory but what was asked for.
    peers = {
        "blobserve": (lambda: bench.start_blobserve(run, registry, place), f"/127.0.0.1:{registry.port}/bench/serving:v1",
                      lambda: pathlib.Path(place).rglob("*.pack")),
        "nginx": (lambda: bench.start_nginx(run, root), "", lambda: [pathlib.Path(root) / "huge.bin"]),
    }
    rows = {name: [] for name in peers}
    for _ in range(arguments.rounds):
        for name, (start, prefix, files) in peers.items():
            server = start()
            try:
                rows[name].append(beside_cold(server.port, prefix, files, binary))
            finally:
                server.stop()
            print("  {}: p99 quiet {quiet} us, while {sent} x 1 GiB is sent {busy} us".format(name, **rows[name][-1]), flush=True)
    results["tail"] = rows


def beside_cold(port, prefix, files, binary):
    bench.ask(port, f"{prefix}/1k.bin")
    # What the push and the fetch wrote is on its way to the disk for seconds, and no part of this.
    forget(files())
    bench.ask(port, f"{prefix}/1k.bin")
    load = [binary, f"127.0.0.1:{port}", f"{prefix}/1k.bin", str(RATE), str(TAIL_SECONDS)]
    quiet = json.loads(subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True).stdout)
    ended, sent = threading.Event(), []

    def send():
        while not ended.is_set():
            forget(files())
            sent.append(bench.ask_length(port, f"{prefix}/huge.bin", LINK))

    sending = threading.Thread(target=send)
    sending.start()
    busy = json.loads(subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True).stdout)
    ended.set()
    sending.join()
    return {"quiet": quiet["p99"], "busy": busy["p99"], "sent": len(sent)}


def report(results):
    lines = ["| what | requests/s ÷ nginx's | aim | CPU per request ÷ nginx's |", "|---|---|---|---|"]
    for one in results.values():
        if isinstance(one, dict) and "title" in one:
            ours, theirs = one["rows"]["blobserve"], one["rows"]["nginx"]
            lines.append(f"| {one['title']} | {bench.ratio(ours, theirs, 'rate'):.2f} | {one['aim']} | {bench.ratio(ours, theirs, 'cpu_us'):.2f} |")
    if "observed" in results:
        rows = results["observed"]
        lines += ["", f"with metrics and an access log: {bench.ratio(rows['logged'], rows['quiet'], 'rate'):.3f} of the requests/s without the log"]
    if "tail" in results:
        ratios = {name: statistics.median(row["busy"] / row["quiet"] for row in rows) for name, rows in results["tail"].items()}
        lines += ["", f"p99 of 1 KB at {RATE}/s while a cold 1 GiB file is sent: {ratios['blobserve']:.2f} x its quiet value (nginx {ratios['nginx']:.2f} x)"]
    return "\n".join(lines)


def main():
    every = ["h2c", "https1k", "https100k", "304", "listing", "observed", "tail"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    parser.add_argument("--duration", type=int, default=3, help="seconds of one wrk run (default 3)")

    def some(text):
        if unknown := set(text.split(",")) - set(every):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        return text.split(",")

    parser.add_argument("--only", type=some, default=every, help=f"some of: {','.join(every)}")
    arguments = bench.read(parser, TOOLS, "serving.json")
    wanted = arguments.only
    image = layers.make("serving", arguments.work)
    results = {}
    with bench.registry_with([image], arguments.work) as (run, registry):
        compare(arguments, results, run, registry, arguments.work, wanted)
        if "observed" in wanted:
            observed(arguments, results, run, registry)
        if "tail" in wanted:
            tail(arguments, results, run, registry, arguments.work)
    bench.tell(arguments, results, report(results))


if __name__ == "__main__":
    main()
