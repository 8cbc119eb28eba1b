"""Draw accuracy over size from files that `sweep.py` wrote, as an SVG.

    python plot_front.py --out front.svg --title "ResNet20" "mixed=OUT1/sweep.resnet20.json" \
        "one width=OUT2/sweep.resnet20.json"

Each argument is a name and a file; files of one name make one curve, its points by
size. `--only` takes the settings that match a regular expression as a whole. The float
model's accuracy is a dashed line. No packages are needed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 48
COLORS = ["#0b6e99", "#c4541c", "#4d7c0f", "#7c3aed"]


def points(path: Path, only: str) -> list[tuple[float, float]]:
    """Size in KB and accuracy in percent of every matching setting that gave a file."""
    settings = json.loads(path.read_text())["settings"].items()
    taken = (result for flags, result in settings if re.fullmatch(only, flags) and "error" not in result)
    return [(result["size_kb"], 100 * result["accuracy"]) for result in taken]


def ticks(low: float, high: float) -> list[float]:
    """About six round numbers between two."""
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 5000) if (high - low) / s <= 7)
    first = int(low / step) * step
    return [first + i * step for i in range(9) if low <= first + i * step <= high]


def draw(title: str, curves: dict[str, list[tuple[float, float]]], reference: float) -> str:
    """The picture."""
    xs = [x for curve in curves.values() for x, _ in curve]
    ys = [y for curve in curves.values() for _, y in curve] + [reference]
    low_x, high_x = 0.95 * min(xs), 1.03 * max(xs)
    low_y, high_y = min(ys) - 0.5, max(ys) + 0.5

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{title}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" fill="#222">{title}</text>',
    ]
    for x in ticks(low_x, high_x):
        at, _ = place(x, low_y)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" fill="#444">{x:g}</text>')
    for y in ticks(low_y, high_y):
        _, at = place(low_x, y)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#444">{y:g}</text>')
    _, at = place(low_x, reference)
    parts.append(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#666" stroke-dasharray="5 4"/>'
        f'<text x="{WIDTH - RIGHT}" y="{at - 5:.1f}" text-anchor="end" fill="#666">float {reference:.2f}</text>'
    )
    for color, (name, curve) in zip(COLORS, curves.items()):
        placed = [place(x, y) for x, y in curve]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in placed]
    for row, (color, name) in enumerate(zip(COLORS, curves)):
        y = HEIGHT - BOTTOM - 14 - 18 * row
        parts.append(f'<circle cx="{WIDTH - 150}" cy="{y}" r="4" fill="{color}"/>')
        parts.append(f'<text x="{WIDTH - 140}" y="{y + 4}" fill="#222">{name}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle" fill="#222">size of the file, KB</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 4}" fill="#222">accuracy, %</text></svg>')
    return "\n".join(parts) + "\n"


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title", default="Accuracy over size")
    parser.add_argument("--only", default=".*", help="settings to draw, a regular expression")
    parser.add_argument("curves", nargs="+", metavar="NAME=FILE")
    args = parser.parse_args()
    named = [curve.split("=", 1) for curve in args.curves]
    reference = 100 * json.loads(Path(named[0][1]).read_text())["float"]["accuracy"]
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, path in named:
        curves[name] = sorted(curves.get(name, []) + points(Path(path), args.only))
    args.out.write_text(draw(args.title, curves, reference))


if __name__ == "__main__":
    main()
