"""How many images should one forward and backward pass take on the CPU? CPU time an image, by batch.

python benchmarks/forward.py MODEL.onnx --preprocess unit --size 32 [--bfloat16]
"""

import argparse
import time
from pathlib import Path

import torch

from mothkit.inversion.engine import frozen
from mothkit.opening import Settings, open_model

BATCHES = (16, 32, 64, 128, 256, 512, 1024)
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--preprocess", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--bfloat16", action="store_true", help="products as in a search that uses it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(args.model, Settings(preprocess=args.preprocess, device="cpu"))
    channels = model.spec.channel_count or 3
    classifier = model.classifier((channels, args.size, args.size), allow_unbound=True)
    best: dict[int, float] = {}
    with frozen(classifier), torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
        for _ in range(REPEATS):  # in turn, so that a slow minute does not hit one batch size alone
            for batch in BATCHES:
                x = torch.rand(batch, *classifier.shape, requires_grad=True)
                passes, started = max(1, 512 // batch), time.process_time()
                for _ in range(passes):
                    torch.autograd.grad(classifier(x).sum(), x)
                spent = 1000 * (time.process_time() - started) / (passes * batch)
                best[batch] = min(spent, best.get(batch, spent))
    fastest = min(best.values())
    for batch, spent in best.items():
        print(f"{batch:5} images: {spent:.3f} ms an image, {spent / fastest:.2f} of the fastest")


if __name__ == "__main__":
    main()
