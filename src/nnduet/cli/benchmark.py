"""The command that times stock nnU-Net against nnDuet: ``benchmark``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nnduet.cli.options import (
    FoldsOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    RuntimeOption,
    parse_folds,
    quiet_environment,
)
from nnduet.console import progress_bar, reporting, say, show_table

if TYPE_CHECKING:
    from nnduet.benchmark.comparison import SpeedComparison

__all__ = ["BenchmarkOptions", "benchmark"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What ``benchmark`` takes."""

    images: ImagesOption
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the comparison and what every arm wrote.")]
    model: ModelOption
    folds: FoldsOption = None
    rounds: Annotated[int, typer.Option(min=2, help="Times that every arm runs, in ABBA order.")] = 3
    cold: Annotated[bool, typer.Option("--cold/--no-cold", help="Also time whole commands with one case.")] = True
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the networks compute.")] = "cpu"
    runtime: RuntimeOption = "auto"
    precision: PrecisionOption = "auto"
    as_json: JsonOption = False


def benchmark(options: BenchmarkOptions) -> None:
    """Time stock nnU-Net against nnDuet: same weights, same tiles, same mirroring, and compare what they say.

    Exits with 1 where nnDuet's ratio may not be called a speed-up.
    """
    folds = parse_folds(options.folds)
    with reporting(options.as_json) as report:
        quiet_environment()
        from nnduet.benchmark.cold_start import OWN
        from nnduet.benchmark.speed import compare_speed
        from nnduet.model_store.shipped_models import find_model

        with progress_bar("benchmark") as progress:
            found = compare_speed(
                find_model(options.model),
                options.images,
                options.output,
                rounds=options.rounds,
                runtime=options.runtime,
                precision=options.precision,
                device=options.device,
                folds=[str(fold) for fold in folds or ()],
                cold=options.cold,
                progress=progress,
            )
        report(found.to_json(), lambda: _show_speed(found))
    if not found.ratios[OWN].is_speed_up:
        raise typer.Exit(1)


def _show_speed(found: SpeedComparison) -> None:
    rows = []
    for name, arm in found.arms.items():
        ratio, alike = found.ratios.get(name), found.agreement.get(name)
        between = f"{ratio.ci95[0]:.2f} to {ratio.ci95[1]:.2f}" if ratio and ratio.ci95 else ""
        dice = f"{min(alike.dice.values(), default=1.0):.4f}" if alike else ""
        rows.append(
            (
                name,
                arm.computed_by,
                f"{arm.median_seconds:.2f}",
                f"{arm.peak_bytes / 2**20:.0f}",
                f"{ratio.times_faster:.2f}" if ratio else "",
                between,
                dice,
                "; ".join(ratio.why_not) if ratio else "",
            )
        )
    titles = ("arm", "computed by", "s a case", "peak MiB", "times faster", "95 % interval", "least Dice", "why no speed-up")
    show_table(titles, rows)
    if found.cold and found.cold.times_faster is not None:
        say(f"whole command with one case: {found.cold.times_faster:.2f} times faster")
    elif found.cold:
        say(f"whole command with one case: not measured, {found.cold.reason}")
