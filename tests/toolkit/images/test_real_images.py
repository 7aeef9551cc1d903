"""Published data sets, where they lie beside the repository: nothing is downloaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mothkit.images import load_images

DATA = Path(__file__).parents[4] / "shared" / "data"


def published(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} does not lie in ../shared/data")
    return path


def test_cifar10_npz_is_what_numpy_reads() -> None:
    path = published("cifar10_lossless.npz")
    train, test = load_images(f"{path}:train"), load_images(f"{path}:test")
    assert len(test) == 846
    assert test.shape == (3, 32, 32)
    with np.load(path) as arrays:
        expected = torch.from_numpy(arrays["x_test"].transpose(0, 3, 1, 2).copy())
    assert torch.equal(test.read(range(846)), expected)
    assert train.overlap(test) == 0
    assert train.per_class(250, seed=0).class_counts == (250,) * 10


def test_cifar10_zip_has_a_chosen_folder_of_ten_classes() -> None:
    zipped = load_images(f"{published('cifar10_jpeg.zip')}:test")
    assert zipped.class_names[0] == "airplane"
    assert zipped.class_counts == (500,) * 10
    assert zipped.per_class(2, seed=0).pixels(range(20)).shape == (20, 3, 32, 32)


def test_gtsrb_has_its_43_classes() -> None:
    assert len(load_images(f"{published('gtsrb32.npz')}:test").class_names) == 43


def test_mnist_is_gzipped_idx() -> None:
    digits = load_images(published("mnist"), gray=True)
    assert digits.shape == (1, 28, 28)
    assert digits.labels[:5].tolist() == [7, 2, 1, 0, 4]
    resized = load_images(published("mnist"), gray=True, size=(32, 32), resize="stretch")
    picture = Image.fromarray(digits.read([0])[0, 0].numpy()).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(resized.read([0])[0, 0].numpy(), np.asarray(picture))
