"""How well the demo's model learns with more time.

    python benchmarks/learning.py                    # steps meant for 20 minutes on two cores
    python benchmarks/learning.py --minutes 60

The same as `make demo`, with more videos and more steps. The baseline is the same model without vision and audio: all
features zeroed; the report also shows its scores. Prints the grounding mIoU of both, the ratio, the time of each part
and the peak memory. A stopped run is resumable.
"""

import argparse
import resource
from pathlib import Path

from longvale.demo.run import DemoSettings, run_demo
from longvale.io import load_json

#: Meant for [`FULL_MINUTES`] on two cores; machines differ.
FULL = {"look_up_steps": 1500, "stage_steps": (400, 120), "tower_epochs": (24, 6, 12)}
FULL_MINUTES = 20


def settings(minutes: float) -> DemoSettings:
    """Scale the numbers of steps with the time."""
    share = minutes / FULL_MINUTES

    def scaled(value):
        return tuple(map(scaled, value)) if isinstance(value, tuple) else max(1, round(share * value))

    return DemoSettings(train_videos=240, **{name: scaled(value) for name, value in FULL.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/learning"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=FULL_MINUTES, help="steps meant for so long (default: %(default)s)"
    )
    arguments = parser.parse_args()
    run_demo(arguments.output, settings=settings(arguments.minutes))

    scores = load_json(arguments.output / "ablation.json")["mIoU"]["all"]
    seen, blind = scores["all"], scores["none"]
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20
    seconds = load_json(arguments.output / "demo.json")["seconds"]
    print(", ".join(f"{part} {value:.0f} s" for part, value in seconds.items()))
    print(f"in all {sum(seconds.values()):.0f} s, peak {peak:.1f} GiB")
    print(f"grounding mIoU {seen:.3f}; with all features zeroed {blind:.3f}; ratio {seen / blind:.2f}")


if __name__ == "__main__":
    main()
