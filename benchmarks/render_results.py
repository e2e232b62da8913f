"""Turn ``docs/results/*.json`` into the tables of ``docs/results/README.md`` and the few lines of the README's results section.

python benchmarks/render_results.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnduet.evaluation.stored_metrics import Metrics
from nnduet.evaluation.summary import format_summary
from nnduet.io.files import write_text_atomically
from nnduet.records import convert_json

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "docs" / "results"
BEGIN, END = "<!-- results: written by benchmarks/render_results.py -->", "<!-- end of results -->"
HEADLINES = {"road-lidc": "LIDC nodules, chest CT", "road-acdc": "ACDC, cardiac MRI", "road-busi": "BUSI, breast ultrasound"}
HEADLINES |= {"road-busbra": "BUS-BRA, breast ultrasound"}
HEAD = """# Results

Written by `python benchmarks/render_results.py` from the JSON files beside this page.

Real cases with the `cpu` preset and one seed, every case by the fold that had not seen it: [LIDC](accuracy-lidc.md),
[BUS-BRA](accuracy-busbra.md) and [ACDC](accuracy-acdc.md) in all five folds, with ablations;
[what limits them](../explanation-accuracy.md). BUSI is one fold of an earlier version, with an earlier 2d network.

Numbers of epochs were chosen for time, after validation curves and results of shorter runs had been seen; the 2d network was
chosen on training cases of BUS-BRA's fold 0, which other folds validate on; averaging the case head's best models, after
held-out folds had been looked at. Development looked at seeds 0 and 1 of the demo, not at those shown. On the processor of the
tables nnDuet computes in bfloat16 unless it is told otherwise.
"""


def cell(entry: Mapping[str, Any], sign: str = "") -> str:
    """``0.812 (0.790 to 0.834)``; with ``sign="+"`` each number bears its sign."""
    if entry["value"] is None:
        return f"undefined ({entry['reason']})" if "reason" in entry else "undefined"
    value, *bounds = (f"{number:{sign}.3f}" for number in (entry["value"], *(entry["ci95"] or ())))
    return f"{value} ({' to '.join(bounds)})" if bounds else value


def headline_rows(road: dict[str, Any]) -> list[str]:
    """One row per region and task: Dice, or macro-F1 beside what a constant answer would get."""
    title, metrics = HEADLINES[f"road-{road['set']}"], road["metrics"]
    rows = [f"| {title} | {region} Dice | {cell(entry['dsc'])} | |" for region, entry in metrics["segmentation"].items()]
    for task, entry in metrics["tasks"].items():
        baseline = entry["majority_baseline"]["macro_f1"]
        rows.append(f"| {title} | {task} macro-F1 | {cell(entry['metrics']['macro_f1'])} | {baseline:.3f} |")
        rows.append(f"| {title} | {task} accuracy | {cell(entry['metrics']['accuracy'])} | |")
        rows.append(f"| {title} | {task} AUROC | {cell(entry['metrics']['auroc'])} | 0.500 |")
    return rows


def out_of_fold_rows(accuracy: dict[str, Any]) -> list[str]:
    """The same of a cross-validation, with calibration, coverage and targets."""
    title = f"{HEADLINES['road-' + accuracy['set']]}, {len(accuracy['folds'])} of {accuracy['of_folds']} folds"
    targets = {row["what"]: f"{row['target']}: {met(row['met'])}" for row in accuracy["targets"]}
    found = [(f"{region} Dice", entry, "") for region, entry in accuracy["segmentation"].items()]
    for task, entry in accuracy["tasks"].items():
        metrics, constant = entry["metrics"], f"{entry['majority_baseline']['macro_f1']:.3f}"
        found += [(f"{task} macro-F1", metrics["macro_f1"], constant), (f"{task} accuracy", metrics["accuracy"], "")]
        found += [(f"{task} AUROC", metrics["auroc"], "0.500"), (f"{task} ECE", metrics["ece"], "")]
        found += [(f"{task} sets that hold the truth", entry["coverage"]["covered"], "")]
    return [f"| {title} | {what} | {cell(e)} | {constant} | {targets.get(what, '')} |" for what, e, constant in found]


def render_brief(accuracies: list[dict[str, Any]], speed: list[dict[str, Any]]) -> str:
    """The README's lines: a row per set that was cross-validated, then how much faster than stock nnU-Net a loaded model is."""
    head = ["data, every case out of fold", "outlines, Dice (95 % interval)", "classes, AUROC (95 % interval)", "targets met"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *map(_brief_row, accuracies)]
    for result in speed:
        ratio, (low, high) = result["ratios"]["nnDuet"]["times_faster"], result["ratios"]["nnDuet"]["ci95"]
        lines += [
            "",
            f"ResEnc-M in {_precision(result)}, model loaded, {result['machine']['torch_threads']} threads: {ratio:.2f} times "
            f"({low:.2f} to {high:.2f}) as fast as stock nnU-Net, with the same weights, tiles and mirroring.",
        ]
    return "\n".join(lines)


def _brief_row(accuracy: dict[str, Any]) -> str:
    """The Dice that has a target, the AUROC of every task, and how many of the set's targets are met."""
    aims = {row["what"] for row in accuracy["targets"]}
    dice = [f"{name} {cell(entry)}" for name, entry in accuracy["segmentation"].items() if f"{name} Dice" in aims]
    auroc = [f"{task} {cell(entry['metrics']['auroc'])}" for task, entry in accuracy["tasks"].items()]
    reached = f"{sum(row['met'] for row in accuracy['targets'])} of {len(accuracy['targets'])}"
    return f"| {HEADLINES['road-' + accuracy['set']]} | {', '.join(dice)} | {', '.join(auroc)} | {reached} |"


def render_headlines(accuracies: list[dict[str, Any]], roads: list[dict[str, Any]], demo: dict[str, Any] | None) -> str:
    """The first tables of the page: sets that were cross-validated, the others' fold 0, the demo."""
    head = ["data, out of fold", "measure", "value (95 % interval)", "constant answer", "target"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for accuracy in accuracies:
        lines += out_of_fold_rows(accuracy)
    lines += [
        "",
        "| data, fold 0 | measure on validation cases | value (95 % interval) | constant answer |",
        "|---|---|---|---|",
    ]
    for road in roads:
        if road["set"] not in {accuracy["set"] for accuracy in accuracies}:
            lines += headline_rows(road)
    if demo:
        lines += ["", "| demo, unseen cases | " + " | ".join(f"seed {s}" for s in demo["seeds"]) + " |"]
        lines += ["|---" * (len(demo["seeds"]) + 1) + "|"]
        first = next(iter(demo["seeds"].values()))
        for name, floor in first["floors"].items():
            values = " | ".join(f"{entry['measured'][name]:.3f}" for entry in demo["seeds"].values())
            lines.append(f"| {name} (floor {floor:.2f}) | {values} |")
        minutes = " | ".join(f"{sum(entry['seconds'].values()) / 60:.1f}" for entry in demo["seeds"].values())
        lines.append(f"| minutes, {demo['machine']['torch_threads']} thread(s) | {minutes} |")
    return "\n".join(lines)


def render_speed(speed: list[dict[str, Any]], training: list[dict[str, Any]]) -> str:
    """Speed beside its targets, missed ones included, with the processor of every result."""
    lines = ["| speed against stock nnU-Net, same weights, tiles and mirroring | target | measured | |", "|---|---|---|---|"]
    for result in speed:
        for row in result["targets"]:
            lines.append(f"| ResEnc-M, {_precision(result)}: {row['what']} | {row['target']:g} | {_measured(row)} |")
    for result in training:
        target = result["target"]
        what = f"training, {result['configuration']}, cpu preset: times faster, an iteration"
        row = {"measured": result["times_faster"], "met": target["met"]}
        lines.append(f"| {what} | {target['times_faster']:g} | {_measured(row)} |")
    machines = [f"ResEnc-M, {_precision(result)}: {_machine(result)} {_limits(result['network'])}" for result in speed]
    machines += [f"Training, {result['configuration']}: {_machine(result)}" for result in training]
    return "\n".join(["", *lines, "", "Without a GPU.", *(f"- {line}" for line in machines)])


def _precision(result: dict[str, Any]) -> str:
    return str(result["arms"]["nnDuet"]["computed_by"].split()[-1])


def _measured(row: dict[str, Any]) -> str:
    return "not measured | " if row["measured"] is None else f"{row['measured']:.4g} | {met(row['met'])}"


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['cpu']}, {machine['torch_threads']} thread(s)."


def _limits(network: dict[str, Any]) -> str:
    torch, most = network["gigaflop_per_second"], network["gigaflop_per_second_of_a_matrix_product"]
    return (
        f"A pass is {network['gigaflop_of_a_pass']:.0f} Gflop; torch alone computes it in float32 at {torch:.0f} Gflop/s, a "
        f"product of two matrices at {most:.0f}."
    )


def render_large_ct(result: dict[str, Any]) -> str:
    """What a large image took, beside what it may take."""
    shape = " x ".join(map(str, result["shape"]))
    most, allowed = result["peak_bytes"] / 2**30, result["target_bytes"] / 2**30
    return (
        f"ResEnc-M on a CT of {shape} voxels without mirroring: {most:.1f} GiB at most (target {allowed:.0f}: "
        f"{met(result['met'])}), {result['seconds']:.0f} s with {result['computed_by']}."
    )


def met(reached: bool) -> str:
    """A word for a target."""
    return "met" if reached else "**missed**"


def render_road(road: dict[str, Any]) -> str:
    """All metrics of one set, and how they were made."""
    title = HEADLINES["road-" + road["set"]]
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in road["seconds"].items())
    metrics = convert_json(road["metrics"], Metrics, f"{title}: metrics")
    rows = [f"| {r.name} | {r.value} | {r.interval} | {r.num_cases} |" for r in format_summary(metrics)]
    return "\n".join(
        [
            f"## {title}",
            "",
            f"`{road['command']}` at commit {road['commit']}: {road['configuration']}, {road['epochs']} epochs on fold 0,",
            f"{road['machine']['cpu']} with {road['machine']['torch_threads']} thread(s). {seconds}.",
            *(
                [f"The epochs of the interrupted and resumed training took {road['epoch_seconds']:.0f} s."]
                if road["resumed"]
                else []
            ),
            f"Peak memory {road['peak_memory_mib']} MiB.",
            "",
            "| metric | value | 95 % interval | n |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def pages() -> dict[Path, str]:
    """The text of the page of results and of the README, by their paths."""
    roads = [json.loads(path.read_text()) for name in HEADLINES if (path := RESULTS / f"{name}.json").is_file()]
    demo = json.loads((RESULTS / "demo.json").read_text()) if (RESULTS / "demo.json").is_file() else None
    accuracies, speed, training = (
        [json.loads(path.read_text()) for path in sorted(RESULTS.glob(pattern))]
        for pattern in ("accuracy-*.json", "speed-*.json", "training-speed-*.json")
    )
    headlines = render_headlines(accuracies, roads, demo)
    if speed or training:
        headlines += "\n" + render_speed(speed, training)
    if (large := RESULTS / "large-ct.json").is_file():
        headlines += "\n\n" + render_large_ct(json.loads(large.read_text()))
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    return {
        RESULTS / "README.md": "\n".join([HEAD, headlines, "", *map(render_road, roads)]),
        REPOSITORY / "README.md": f"{before}{BEGIN}\n{render_brief(accuracies, speed)}\n{END}{after}",
    }


def main() -> None:
    """Write both."""
    for path, text in pages().items():
        write_text_atomically(path, text)


if __name__ == "__main__":
    main()
