"""Train the small classifier of one image set and keep it, with its accuracy on held-out images, as a checkpoint.

    python scripts/train_classifier.py --data digits

It is written, whole or not at all, to results/classifiers/NAME.safetensors.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from scoremachines.classifier import Classifier, train
from scoremachines.data import Images, load

ROOT = Path(__file__).parents[1]
EPOCHS = {"digits": 40, "mnist": 4, "fashion": 8, "cifar10": 12}
SEED = 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=EPOCHS, required=True)
    parser.add_argument("--out", type=Path, help="the checkpoint (default: results/classifiers/NAME.safetensors)")
    found = parser.parse_args(argv)
    found.out = found.out or ROOT / "results" / "classifiers" / f"{found.data}.safetensors"
    return found


def held_out(trained: Classifier, test: Images) -> dict:
    """The accuracy on images it has not seen, and what rounding to float16 changes."""
    kept = trained.rounded()
    exact, rounded = (classifier.features(test.x0) for classifier in (trained, kept))
    return {
        "held_out": {"split": test.split, "count": test.count, "sha256": test.sha256},
        "accuracy": kept.accuracy(test.x0, test.labels),
        "accuracy_before_rounding": trained.accuracy(test.x0, test.labels),
        "relative_change_of_features_by_rounding": ((rounded - exact).norm() / exact.norm()).item(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    chosen = arguments(argv)
    seen, test = load(chosen.data), load(chosen.data, "test")
    settings = {"epochs": EPOCHS[chosen.data], "batch": 128, "rate": 1e-3}
    trained = train(seen.x0, seen.labels, torch.Generator().manual_seed(SEED), **settings)
    facts = held_out(trained, test)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    trained.save(chosen.out, **seen.provenance, settings=settings | {"seed": SEED}, **facts)
    size = chosen.out.stat().st_size / 1e3
    print(
        f"{chosen.data}: held-out accuracy {facts['accuracy']:.4f} ({test.count} images), {size:.0f} kB, {chosen.out}"
    )


if __name__ == "__main__":
    main()
