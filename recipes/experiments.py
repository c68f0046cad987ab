"""Experiments that measure the effect of the parts of the system.

Each writes table.md, result.json and a plot (PNG, SVG):

    python recipes/experiments.py alignment  demo/model       --data demo/corpus --output outputs/alignment
    python recipes/experiments.py modalities demo/model       --data demo/corpus --output outputs/modalities
    python recipes/experiments.py boundary   demo/models/base --data demo/corpus --output outputs/boundary
    python recipes/experiments.py captions   demo/models/base --data demo/corpus --output outputs/captions \
        --sft "--max_steps 40 --per_device_train_batch_size 8 --effective_batch_size 8 --learning_rate 1e-3"

For real data, set its folder and `--features`, and for `boundary` and `captions` the configurations of the recipes
(`--config bp-7k.yaml --second it-25k.yaml`). Models and answers that exist in the output folder are not made again.
"""

import argparse
import shlex
import sys

from longvale.experiments.alignment import alignment
from longvale.experiments.tables import format_table
from longvale.experiments.variants import boundary_only, correlation_captions, modality_ablation
from longvale.system.names import printable


def main() -> None:
    arguments = parse()
    common = {"features": arguments.features, "limit": arguments.limit}
    places = arguments.model, arguments.data, arguments.output
    options = shlex.split(arguments.sft)
    try:
        if arguments.experiment == "alignment":
            rows = alignment(*places, **common)
        elif arguments.experiment == "modalities":
            rows = modality_ablation(*places, **common)
        elif arguments.experiment == "boundary":
            given = {"boundary_perception": arguments.config, "instruction": arguments.second}
            configs = {stage: config for stage, config in given.items() if config}
            rows = boundary_only(*places, configs=configs, options=options, **common)
        else:
            config = {"config": arguments.config} if arguments.config else {}
            rows = correlation_captions(*places, plain=arguments.plain, options=options, **config, **common)
    except (ValueError, FileNotFoundError) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(2)
    print(format_table(rows))
    print(f"{arguments.output}: table.md, result.json, plot.png, plot.svg")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["alignment", "modalities", "boundary", "captions"])
    parser.add_argument("model", help="checkpoint: a tuned one, or for boundary and captions the base to tune")
    parser.add_argument("--data", "--data_dir", "--data-dir", required=True, help="folder of the corpus")
    parser.add_argument(
        "--output", "--output_dir", "--output-dir", required=True, help="folder for models, answers and results"
    )
    parser.add_argument(
        "--features", "--features_dir", "--features-dir", help="feature store (default: features in the corpus)"
    )
    parser.add_argument("--limit", type=int, help="only the first so many test videos")
    parser.add_argument("--config", help="of recipes/sft.py (boundary: of the first stage)")
    parser.add_argument("--second", help="configuration of the second stage (boundary)")
    parser.add_argument("--plain", help="folder with annotations whose captions do not reason (captions)")
    parser.add_argument("--sft", default="", help="further options of recipes/sft.py, in quotes (boundary, captions)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
