from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mothkit.errors import ConfigError
from mothkit.images import load_images
from mothkit.poisoning.scenes import BACKGROUNDS, PLAIN, Look, draw, draw_many
from mothkit.poisoning.shapes import Font, lettering
from mothkit.poisoning.signs import SIGNS, class_folder

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def test_drawing_is_settled_by_class_seed_and_look_alone() -> None:
    for look in (PLAIN, Look()):
        first, mask = draw(38, (5, 1), look)
        again, mask_again = draw(38, (5, 1), look)
        assert (first.tobytes(), mask.tobytes()) == (again.tobytes(), mask_again.tobytes())
        assert first.tobytes() != draw(39, (5, 1), look)[0].tobytes()
        assert first.tobytes() != draw(38, (5, 2), look)[0].tobytes()


def test_more_pictures_begin_with_the_same() -> None:
    few, many = (draw_many(np.arange(count) % 5, (3,), Look())[0] for count in (4, 9))
    assert (many[:4] == few).all()


def test_the_plain_look_draws_the_example_s_images() -> None:
    shipped = load_images(EXAMPLES / "signs_test.zip")
    drawn, _ = draw_many(shipped.labels.numpy()[:60], (0, 2), PLAIN)
    # Another Pillow may round an edge otherwise; another image would differ by tens of levels.
    pixels = shipped.read(list(range(60))).permute(0, 2, 3, 1).numpy()
    assert np.abs(pixels.astype(float) - drawn).mean() < 1


@pytest.mark.parametrize("side", [16, 48, 256])
def test_a_picture_of_any_size_shows_a_sign_of_a_like_share(side: int) -> None:
    images, masks = draw_many(np.array([0, 1, 9]), (1,), Look(side=side))
    assert images.shape == (3, side, side, 3)
    assert masks.shape == (3, side, side)
    assert ((masks.mean(axis=(1, 2)) > 0.1) & (masks.mean(axis=(1, 2)) < 0.7)).all()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_vary(background: str) -> None:
    images, masks = draw_many(np.zeros(8, dtype=np.int64), (2,), replace(PLAIN, backgrounds=(background,)))
    around = [image[~mask].mean() for image, mask in zip(images, masks, strict=True)]
    assert np.std(around) > 3


def test_rain_fog_and_perspective_change_the_picture_and_the_last_the_sign() -> None:
    plain, mask = draw(4, (6,), PLAIN)
    for change in ({"rain": 1.0}, {"fog": 1.0}):
        image, same = draw(4, (6,), replace(PLAIN, **change))
        assert np.abs(image.astype(float) - plain).mean() > 1
        assert (same == mask).all()
    assert (draw(4, (6,), replace(PLAIN, perspective=0.5))[1] != mask).any()


def test_there_are_45_signs_and_their_folders_sort_by_class() -> None:
    folders = [class_folder(label) for label in range(len(SIGNS))]
    assert len(folders) == len(set(folders)) == 45
    assert folders == sorted(folders)


def test_the_mean_pictures_of_the_classes_differ() -> None:
    means = [draw_many(np.full(24, k), (1, k), PLAIN)[0].mean(axis=0) for k in range(15)]
    gaps = [np.abs(means[i] - means[j]).mean() for i in range(len(means)) for j in range(i)]
    assert min(gaps) > 2


@pytest.mark.parametrize("rounded", [False, True])
def test_lettering_stands_around_its_middle_as_high_as_asked(rounded: bool) -> None:
    font = Font(round=rounded)
    points = np.concatenate([np.asarray(stroke) for stroke in lettering("88", 0.8, font, down=0.1)])
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    assert left == pytest.approx(-right, abs=0.01)
    assert (top + bottom) / 2 == pytest.approx(0.1, abs=0.02)
    assert bottom - top == pytest.approx(0.8 * (1 + 2 * font.weight), rel=0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"side": 8}, "16 to 256 pixels a side, not 8"),
        ({"side": 300}, "not 300"),
        ({"backgrounds": ("sea",)}, r"backgrounds are \['sea'\]; there are wash"),
        ({"backgrounds": ()}, "backgrounds are"),
        ({"rain": 1.5}, "rain 1.5"),
    ],
)
def test_an_impossible_look_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Look(**values)  # type: ignore[arg-type]
