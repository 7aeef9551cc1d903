"""Harden a file by the published procedure, to be measured as any other file is.

    python benchmarks/published_hardening.py MODEL.onnx DATA --preprocess NAME [--per-class 250] -o hardened.onnx

What is published is the PyTorch code's way, its faults included (``reference/hardening.py``); then
``mothkit evaluate`` and ``mothkit distance`` say what it did.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from pieces import timed
from reference.hardening import PUBLISHED, harden

from mothkit.opening import Settings, open_model
from mothkit_converters import write_back


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", help="clean images with labels")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--preprocess")
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=PUBLISHED.epochs)
    parser.add_argument("--learning-rate", type=float, default=PUBLISHED.learning_rate)
    options = parser.parse_args()
    settings = Settings(preprocess=options.preprocess, per_class=options.per_class, device=options.device)
    opened = open_model(options.model, settings)
    images = opened.images(options.data, per_class=True)
    classifier = opened.classifier(images.shape)
    with timed() as seconds:
        hardened = harden(
            classifier,
            images.pixels(torch.arange(len(images))).to(opened.device),
            images.labels,
            classes=classifier.classes,
            settings=replace(PUBLISHED, epochs=options.epochs, learning_rate=options.learning_rate),
            generator=torch.Generator().manual_seed(options.seed),
        )
    write_back(hardened.network, options.out)
    print(f"{options.out}: {seconds['cpu']:.0f} s CPU, {seconds['wall']:.0f} s")


if __name__ == "__main__":
    main()
