"""Checks the manifests in this directory: valid for Kubernetes, and right for each other.

    python3 deploy/check.py target/debug/blobserve      needs kubernetes-validate (PyPI)

The binary judges the ConfigMap's configuration, as it would at start.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).resolve().parent
UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def load():
    """Every object that kustomization.yaml names, by kind; fails for one that is not valid."""
    names = yaml.safe_load((HERE / "kustomization.yaml").read_text())["resources"]
    lying = {path.name for path in HERE.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(names) == lying, f"kustomization.yaml names {sorted(names)}, here are {sorted(lying)}"
    objects = {}
    for name in names:
        for document in yaml.safe_load_all((HERE / name).read_text()):
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
            assert document["kind"] not in objects, f"two of kind {document['kind']}"
            objects[document["kind"]] = document
    return objects


def quantity(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]i)?", str(text)).groups()
    return int(number) * UNITS[unit or ""]


def duration(text):
    """Seconds of "5s" or "1m"."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def port(address):
    return int(address.rpartition(":")[2])


def in_flight():
    """Seconds that requests in flight may take once accepting has ended."""
    source = (HERE.parent / "src/service.rs").read_text()
    return int(re.search(r"const LAST_REQUESTS: Duration = Duration::from_secs\((\d+)\);", source)[1])


def check(binary):
    objects = load()
    text = objects["ConfigMap"]["data"]["config.json"]
    config = json.loads(text)
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "config.json"
        file.write_text(text)
        run = subprocess.run([binary, "check", "--config", file, "--mode", "run"], capture_output=True, text=True)
        assert run.returncode == 0, f"blobserve check: {run.stdout}{run.stderr}"
        # A note says what is not there on this machine: the mounts are not.
        noise = [line for line in run.stderr.splitlines() if not line.startswith("note: ")]
        assert not noise, "blobserve check warns: " + "\n".join(noise)

    pod = objects["Deployment"]["spec"]["template"]["spec"]
    container, = pod["containers"]
    ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    settings, space = config["blobserve"], config["blobserve"]["blobSpace"]

    assert container["args"] == ["run", "/mnt/config/config.json"], container["args"]
    assert set(volumes) == {mount["name"] for mount in mounts.values()}, "a volume without a mount, or the reverse"
    assert not any("subPath" in mount for mount in mounts.values()), "a subPath never sees an update"

    cache = next(mount for path, mount in mounts.items() if space["location"].startswith(path))
    limit = quantity(volumes[cache["name"]]["emptyDir"]["sizeLimit"])
    assert limit * 4 == space["maxSizeBytes"] * 5, f"sizeLimit {limit} is not maxSizeBytes {space['maxSizeBytes']} + 25%"

    assert any(config["dockerAuth"].startswith(path + "/") for path in mounts), config["dockerAuth"]
    for variable in container["env"]:
        if variable["name"] == "SSL_CERT_FILE":
            assert any(variable["value"].startswith(path + "/") for path in mounts), variable

    assert ports["http"] == settings["port"], ports
    assert ports["probes"] == port(config["readinessProbeAddr"]), ports
    assert ports["metrics"] == port(config["prometheusAddr"]), ports
    target, = objects["Service"]["spec"]["ports"]
    assert (target["port"], target["targetPort"]) == (4000, "http"), target
    for name, path in (("readinessProbe", "/ready"), ("livenessProbe", "/live")):
        assert container[name]["httpGet"] == {"path": path, "port": "probes"}, container[name]

    needed = duration(settings.get("drainDelay", "5s")) + in_flight()
    grace = pod["terminationGracePeriodSeconds"]
    assert grace > needed, f"terminationGracePeriodSeconds {grace}, drainDelay and requests in flight take {needed}"

    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for name, selector in (
        ("Deployment", objects["Deployment"]["spec"]["selector"]["matchLabels"]),
        ("Service", objects["Service"]["spec"]["selector"]),
        ("PodDisruptionBudget", objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]),
    ):
        assert selector.items() <= labels.items(), f"{name} selects {selector}, the pods have {labels}"
    print(f"{len(objects)} manifests are valid for Kubernetes {kubernetes_validate.latest_version()} and fit together")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    check(sys.argv[1])
