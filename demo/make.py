#!/usr/bin/env python3
"""Makes demo/layout, an OCI image layout, from the files in demo/site.

    python3 demo/make.py            writes demo/layout (and site/images/icon.png)
    python3 demo/make.py --check    fails if demo/layout is not what demo/site makes

Only the standard library; equal sources give equal bytes on every machine: entries are sorted,
times and owners are fixed, and the gzip is stored by our own writer, because what zlib makes of
the same bytes differs between its versions.
"""
import hashlib
import io
import json
import pathlib
import struct
import sys
import tarfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent
SITE, LAYOUT = HERE / "site", HERE / "layout"
WORKDIR = "srv/site"  # where the files lie in the image: `workdir` in the configuration
TAG = "v1"
TIME = 1_780_000_000  # 2026-05-28, the mtime of every entry
TYPE = "application/vnd.oci.image."


def stored_gzip(data):
    """A gzip member of stored blocks (RFC 1951, 3.2.4): the same bytes with every zlib."""
    out = io.BytesIO()
    out.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    pieces = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)] or [b""]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        out.write(struct.pack("<BHH", last, len(piece), len(piece) ^ 0xFFFF) + piece)
    out.write(struct.pack("<II", zlib.crc32(data), len(data)))
    return out.getvalue()


def icon():
    """A PNG of 64 x 64: three slabs, the lowest one lit. Stored, not compressed, for the same reason."""
    palette = [(20, 18, 27), (58, 52, 73), (169, 162, 186), (242, 163, 58)]
    rows = bytearray()
    for y in range(64):
        rows.append(0)
        for x in range(64):
            colour = 0
            for slab, (middle, ink) in enumerate([(42, 3), (32, 1), (22, 2)]):
                if abs(x - 31.5) / 2 + abs(y - middle) < 13:
                    colour = ink
            rows.append(colour)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 3, 0, 0, 0)),
        (b"PLTE", b"".join(bytes(colour) for colour in palette)),
        (b"IDAT", b"\x78\x01" + stored_gzip(bytes(rows))[10:-8] + struct.pack(">I", zlib.adler32(bytes(rows)))),
        (b"IEND", b""),
    ]
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return out


def layer(files):
    """The tar: every directory before what is in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        directories = set()
        for name, content in sorted(files.items()):
            path = pathlib.PurePosixPath(WORKDIR) / name
            for parent in reversed(path.parents[:-1]):
                if parent not in directories:
                    directories.add(parent)
                    tar.addfile(entry(str(parent), tarfile.DIRTYPE, 0o755))
            info = entry(str(path), tarfile.REGTYPE, 0o644)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def entry(name, kind, mode):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, TIME
    return info


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def document(value):
    return (json.dumps(value, indent=2) + "\n").encode()


def make():
    """All files of the layout, by path."""
    files = {str(path.relative_to(SITE).as_posix()): path.read_bytes() for path in SITE.rglob("*") if path.is_file()}
    files["images/icon.png"] = icon()
    tar = layer(files)
    blobs = {}

    def blob(kind, data):
        blobs["blobs/" + digest(data).replace(":", "/")] = data
        return {"mediaType": TYPE + kind, "digest": digest(data), "size": len(data)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"WorkingDir": "/" + WORKDIR, "Labels": {"org.opencontainers.image.title": "blobserve demonstration"}},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": TYPE + "manifest.v1+json",
        "config": blob("config.v1+json", document(config)),
        "layers": [blob("layer.v1.tar+gzip", stored_gzip(tar))],
    }
    named = blob("manifest.v1+json", document(manifest))
    named["annotations"] = {"org.opencontainers.image.ref.name": TAG}
    index = {"schemaVersion": 2, "mediaType": TYPE + "index.v1+json", "manifests": [named]}
    return {"oci-layout": document({"imageLayoutVersion": "1.0.0"}), "index.json": document(index), **blobs}


def main():
    wanted = make()
    there = {path.relative_to(LAYOUT).as_posix(): path.read_bytes() for path in LAYOUT.rglob("*") if path.is_file()}
    if "--check" in sys.argv[1:]:
        if there != wanted:
            sys.exit("demo/layout is not what demo/site makes: run python3 demo/make.py")
        return
    (SITE / "images" / "icon.png").write_bytes(icon())
    for name in there.keys() - wanted.keys():
        (LAYOUT / name).unlink()
    for name, data in wanted.items():
        path = LAYOUT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    print(f"{LAYOUT}: {len(wanted)} files, {sum(map(len, wanted.values()))} bytes")


if __name__ == "__main__":
    main()
