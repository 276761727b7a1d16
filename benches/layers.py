"""The images of the benchmark: made from npm packages, stored as OCI image layouts.

small  at least 50,000 small files: icons and libraries
large  a few large files: compilers and runtimes
warm   files of 1 KB, 10 KB, 100 KB and 10 MB for the warm comparison

Packages are fetched once by the ordinary npm client (`npm pack`) at fixed versions, and kept.
"""
import gzip
import hashlib
import io
import json
import pathlib
import random
import subprocess
import tarfile

PACKAGES = {
    "small": ["@mui/icons-material@5.16.7", "@tabler/icons@3.19.0", "@fluentui/svg-icons@1.1.343",
              "aws-sdk@2.1691.0", "date-fns@4.1.0", "core-js@3.38.1"],
    "large": ["@next/swc-linux-x64-gnu@14.2.15", "@swc/core-linux-x64-gnu@1.7.36", "onnxruntime-web@1.19.2",
              "typescript@5.6.3", "@esbuild/linux-x64@0.24.0"],
}
WARM = {"1k.bin": 1 << 10, "10k.bin": 10 << 10, "100k.bin": 100 << 10, "10m.bin": 10 << 20}
# Files of the `serving` image beside those of `warm`: a directory to be listed, and one file that is cold.
LISTED, HUGE = 1_000, 1 << 30
TIME = 1_700_000_000
OCI = "application/vnd.oci.image."


def packed(package, cache):
    """The package's tarball, from the cache or from npm."""
    name = package.replace("@", "").replace("/", "-") + ".tgz"
    path = cache / name
    if not path.exists():
        out = subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(cache), package],
                             check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
        (cache / pathlib.Path(out).name).rename(path)
    return path


def members(kind, cache):
    """(path, content) of every file of the image."""
    if kind in ("warm", "serving"):
        for name, size in WARM.items():
            yield name, random.Random(size).randbytes(size)
        if kind == "serving":
            for number in range(LISTED):
                yield f"listed/file-{number:04}.js", b"let n = %d;\n" % number
            noise = random.Random(HUGE)
            # Compressible, so that the image is made in seconds.
            yield "huge.bin", b"".join(noise.randbytes(4096) * 16 for _ in range(HUGE // 65536))
        return
    for package in PACKAGES[kind]:
        directory = package[: package.rindex("@")]
        with tarfile.open(packed(package, cache)) as tar:
            for member in tar:
                if member.isfile():
                    # npm puts everything below `package/`.
                    yield directory + "/" + member.name.partition("/")[2], tar.extractfile(member).read()


class Counting(io.RawIOBase):
    """Passes bytes on to a file and hashes them."""

    def __init__(self, inner):
        self.inner, self.hash, self.size = inner, hashlib.sha256(), 0

    def writable(self):
        return True

    def write(self, data):
        self.hash.update(data)
        self.size += len(data)
        self.inner.write(data)
        return len(data)

    def digest(self):
        return "sha256:" + self.hash.hexdigest()


def make(kind, work):
    """Writes the image as an OCI layout, once; returns its facts."""
    layout, facts = work / "images" / kind, work / "images" / f"{kind}.json"
    if facts.exists():
        return json.loads(facts.read_text())
    cache = work / "npm"
    blobs = layout / "blobs" / "sha256"
    for directory in (cache, blobs):
        directory.mkdir(parents=True, exist_ok=True)
    temporary = blobs / "layer"
    files, first, names = 0, None, set()
    with open(temporary, "wb") as out:
        compressed = Counting(out)
        with gzip.GzipFile(filename="", mode="wb", fileobj=compressed, compresslevel=6, mtime=0) as zipped:
            plain = Counting(zipped)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for name, content in members(kind, cache):
                    if name in names:
                        continue
                    names.add(name)
                    info = tarfile.TarInfo(name)
                    info.size, info.mtime, info.mode = len(content), TIME, 0o644
                    tar.addfile(info, io.BytesIO(content))
                    files += 1
                    # Neither the first nor the last entry of the tar, and of an ordinary size.
                    if first is None or (files == 100 and kind == "small"):
                        first = (name, len(content))
    layer = compressed.digest()
    temporary.rename(blobs / layer[7:])

    def blob(media, value):
        data = json.dumps(value).encode()
        hexadecimal = hashlib.sha256(data).hexdigest()
        (blobs / hexadecimal).write_bytes(data)
        return {"mediaType": OCI + media, "digest": "sha256:" + hexadecimal, "size": len(data)}

    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [plain.digest()]}}
    manifest = blob("manifest.v1+json", {
        "schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": blob("config.v1+json", config),
        "layers": [{"mediaType": OCI + "layer.v1.tar+gzip", "digest": layer, "size": compressed.size}]})
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    result = {"kind": kind, "layout": str(layout), "layer": layer, "files": files, "compressed": compressed.size,
              "uncompressed": plain.size, "ask": first[0], "ask_bytes": first[1]}
    if kind == "small" and files < 50_000:
        raise SystemExit(f"the layer of small files has only {files} files, 50,000 are needed: add a package")
    facts.write_text(json.dumps(result, indent=1))
    return result


def write_files(kind, work):
    """The files of the image in a directory, for nginx."""
    root = work / "files" / kind
    for name, content in members(kind, work / "npm"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
    return root
