#!/usr/bin/env python3
"""Draws the ratios of the last runs of run.py and serving.py as one picture for BENCHMARKS.md.

    python3 benches/plot.py        reads target/bench/{results,serving}.json, writes benches/ratios.svg

No library: a bar a ratio, on a scale where twice and half are equally far from one.
"""
import argparse
import html
import json
import math
import pathlib
import sys

sys.dont_write_bytecode = True
import run as bench  # noqa: E402

LEFT, WIDTH, BAR, GAP = 260, 460, 16, 10
LOW, HIGH = 0.1, 10.0
SECTIONS = {
    "rate": ("Requests per second ÷ nginx's (more is better)", "#2a7ab8"),
    "cpu": ("Server CPU per request ÷ nginx's (less is better)", "#c2702c"),
    "cold": ("Cold, seconds ÷ the other way's (less is better)", "#4b8b4b"),
}


def ratios(work):
    """Section → [(label, ratio)]."""
    found = {name: [] for name in SECTIONS}
    results, serving = (work / name for name in ("results.json", "serving.json"))
    if results.exists():
        taken = json.loads(results.read_text())
        for name, rows in taken.get("warm", {}).get("taken", {}).items():
            ours, theirs = rows["blobserve"], rows["nginx"]
            found["rate"].append((name, bench.ratio(ours, theirs, "rate")))
            found["cpu"].append((name, bench.ratio(ours, theirs, "cpu_us")))
        for kind, one in taken.get("cold", {}).items():
            rows = one["taken"]
            for way in rows:
                if way != "blobserve":
                    found["cold"].append((f"{kind}: {way}", bench.ratio(rows["blobserve"], rows[way], "seconds")))
    if serving.exists():
        for one in json.loads(serving.read_text()).values():
            if isinstance(one, dict) and "title" in one:
                ours, theirs = one["rows"]["blobserve"], one["rows"]["nginx"]
                found["rate"].append((one["title"], bench.ratio(ours, theirs, "rate")))
                found["cpu"].append((one["title"], bench.ratio(ours, theirs, "cpu_us")))
    return {name: rows for name, rows in found.items() if rows}


def at(ratio):
    share = math.log(min(max(ratio, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
    return LEFT + WIDTH * share


def draw(found):
    parts, y = [], 10
    for name, rows in found.items():
        title, colour = SECTIONS[name]
        y += 24
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{html.escape(title)}</text>')
        top = y + GAP
        y = top
        for label, ratio in rows:
            start, end = sorted((at(1.0), at(ratio)))
            parts.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{html.escape(label)}</text>')
            parts.append(f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{BAR}" fill="{colour}"/>')
            parts.append(f'<text x="{end + 6:.1f}" y="{y + 13}">{ratio:.2f}</text>')
            y += BAR + GAP
        parts.append(f'<line x1="{at(1.0):.1f}" y1="{top - 4}" x2="{at(1.0):.1f}" y2="{y - 4}" stroke="#222"/>')
    size = f'width="{LEFT + WIDTH + 80}" height="{y + 10}"'
    style = 'font-family="sans-serif" font-size="13"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=bench.REPOSITORY / "target" / "bench", help="where the raw figures lie")
    parser.add_argument("--out", type=pathlib.Path, default=bench.REPOSITORY / "benches" / "ratios.svg")
    arguments = parser.parse_args()
    found = ratios(arguments.work)
    if not found:
        sys.exit(f"no figures in {arguments.work}: run benches/run.py first")
    arguments.out.write_text(draw(found))
    print(arguments.out)


if __name__ == "__main__":
    main()
