#!/usr/bin/env python3
"""What an idle keep-alive connection costs in memory.

    cargo build --release && python3 benches/idle.py
    python3 benches/idle.py --binary target/debug/blobserve --connections 1000

Opens connections, one request each, and leaves them open: HTTP/1.1 in cleartext (9,900: the 10,000 that are allowed,
less some room), and fewer of
HTTP/1.1 over TLS and of HTTP/2. The figure is the growth of the process's anonymous memory
(`RssAnon` in /proc/PID/status) from before the first of them, divided by their number. Each kind gets a
process of its own, which has answered 64 requests before. Needs Python and, for TLS, `openssl`; all is
below a temporary directory. The client runs in a process of its own, so limits of open files hold twice.
"""
import argparse
import json
import pathlib
import resource
import socket
import ssl
import struct
import subprocess
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PATH = "/demo.localhost/site:v1/style.css"
# What the project promises, in bytes, for HTTP/1.1 in cleartext.
AIM = 16 << 10
WARM = 64


class Process:
    def __init__(self, binary, home):
        config = {"blobserve": {
            "address": "127.0.0.1:0", "drainDelay": "0s",
            "blobSpace": {"location": str(home / "cache")},
            "registries": {"demo.localhost": {"layout": str(REPOSITORY / "demo/layout")}},
            "repos": {"demo.localhost/site": {"workdir": "/srv/site", "prePull": ["v1"]}},
            "tls": {"cert": str(home / "cert.pem"), "key": str(home / "key.pem"),
                    "address": "127.0.0.1:0"},
        }}
        (home / "config.json").write_text(json.dumps(config))
        self.process = subprocess.Popen([binary, "serve", "--config", home / "config.json"],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        addresses = [word for word in line.split() if "://" in word][:2]
        if len(addresses) < 2:
            raise SystemExit(f"{binary} does not start: {line!r}")
        self.clear, self.tls = [("127.0.0.1", int(word.rsplit(":", 1)[1])) for word in addresses]

    def anonymous(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.split("RssAnon:")[1].split()[0])

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()


def http1(stream):
    stream.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += received(stream)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = int(next(line for line in head.lower().split(b"\r\n")
                      if line.startswith(b"content-length:")).split(b":")[1])
    while len(body) < length:
        body += received(stream)


def http2(stream):
    def frame(kind, flags, number, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + payload

    # GET, http and :path and :authority as literals, by HPACK's static table (RFC 7541 appendix A).
    head = b"\x82\x86\x04" + bytes([len(PATH)]) + PATH.encode() + b"\x01\x09localhost"
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 5, 1, head))
    data = b""
    while True:
        while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
            data += received(stream)
        length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
        if kind == 4 and not flags & 1:
            stream.sendall(frame(4, 1, 0))
        if kind == 0 and flags & 1:
            return
        data = data[9 + length:]


def received(stream):
    data = stream.recv(1 << 16)
    if not data:
        raise SystemExit("the server closed a connection: too many, or too few open files?")
    return data


def measure(binary, home, secure, alpn, ask, count):
    process = Process(binary, home)
    context = ssl.create_default_context(cafile=home / "cert.pem")
    context.set_alpn_protocols([alpn])

    def connection():
        stream = socket.create_connection(process.tls if secure else process.clear)
        if secure:
            stream = context.wrap_socket(stream, server_hostname="localhost")
        ask(stream)
        return stream

    try:
        for _ in range(WARM):
            connection().close()
        time.sleep(1)
        before = process.anonymous()
        streams = [connection() for _ in range(count)]
        time.sleep(2)
        grown = process.anonymous() - before
        for stream in streams:
            stream.close()
        return grown / count
    finally:
        process.stop()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=REPOSITORY / "target/release/blobserve", type=pathlib.Path)
    arguments.add_argument("--connections", default=9_900, type=int,
                           help="of HTTP/1.1 in cleartext; a tenth of the other kinds")
    given = arguments.parse_args()
    wanted = given.connections + 100
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise SystemExit(f"{wanted} open files are needed, and {hard} allowed: raise the limit, or lower --connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(wanted, 65_536)), hard))
    missed = False
    for name, secure, alpn, ask, count in [
            ("HTTP/1.1", False, "http/1.1", http1, given.connections),
            ("HTTP/1.1, TLS", True, "http/1.1", http1, max(1, given.connections // 10)),
            ("HTTP/2", False, "h2", http2, max(1, given.connections // 10)),
            ("HTTP/2, TLS", True, "h2", http2, max(1, given.connections // 10))]:
        with tempfile.TemporaryDirectory() as home:
            home = pathlib.Path(home)
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                            "-keyout", home / "key.pem", "-out", home / "cert.pem"],
                           check=True, stderr=subprocess.DEVNULL)
            each = measure(given.binary, home, secure, alpn, ask, count)
        aim = f"  (aim {AIM / 1024:.0f} KiB)" if name == "HTTP/1.1" else ""
        print(f"{name:14} {count:6} idle connections: {each / 1024:6.1f} KiB of anonymous memory each{aim}", flush=True)
        missed |= bool(aim) and each > AIM
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
