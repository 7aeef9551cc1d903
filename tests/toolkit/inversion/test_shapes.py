import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mothkit.inversion.shapes import draw_shifts, in_cells, shifted


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(cell=st.integers(1, 9), height=st.integers(1, 9), width=st.integers(1, 9))
def test_every_square_has_its_mean_and_keeps_it(cell: int, height: int, width: int) -> None:
    values = torch.rand((2, 4, height, width), generator=seeded(cell))
    squares = in_cells(values, cell)
    for top in range(0, height, cell):
        for left in range(0, width, cell):
            part = (..., slice(top, top + cell), slice(left, left + cell))
            mean = values[part].mean((-2, -1), keepdim=True)
            assert torch.allclose(squares[part], mean.expand_as(squares[part]), atol=1e-6)
    assert torch.allclose(in_cells(squares, cell), squares, atol=1e-6)
    assert torch.allclose(squares.sum((-2, -1)), values.sum((-2, -1)), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(down=st.integers(-12, 12), right=st.integers(-12, 12), seed=st.integers(0, 99))
def test_a_shift_is_that_of_torchs_roll(down: int, right: int, seed: int) -> None:
    values = torch.rand((3, 4, 5, 7), generator=seeded(seed))
    shifts = torch.tensor([[[down, right], [0, 0]]]).expand(3, 2, 2)
    moved = shifted(values, shifts)
    assert torch.equal(moved[:, 0], values.roll((down, right), (-2, -1)))
    assert torch.equal(moved[:, 1], values)


def test_every_row_and_every_copy_has_a_shift_of_its_own() -> None:
    values = torch.rand((2, 2, 4, 4), generator=seeded())
    shifts = torch.tensor([[[0, 1], [1, 0]], [[2, 0], [0, 3]]])
    moved = shifted(values, shifts)
    for k in range(2):
        for b in range(2):
            assert torch.equal(moved[k, b], values[k].roll(tuple(shifts[k, b].tolist()), (-2, -1)))


def test_the_gradient_of_a_shifted_value_comes_back_to_its_place() -> None:
    values = torch.zeros((1, 1, 3, 3), requires_grad=True)
    moved = shifted(values, torch.tensor([[[1, 2], [0, 0]]]))
    (gradient,) = torch.autograd.grad(moved[0, 0, 0, 1, 2] + 2 * moved[0, 1, 0, 0, 0], values)
    expected = torch.zeros(3, 3)
    expected[0, 0] = 3.0
    assert torch.equal(gradient[0, 0], expected)


@pytest.mark.parametrize("roam", [0, 1, 6])
def test_shifts_go_as_far_as_asked_and_no_further(roam: int) -> None:
    shifts = draw_shifts((50, 40), roam, seeded())
    assert shifts.shape == (50, 40, 2)
    for axis in (0, 1):
        assert sorted(set(shifts[..., axis].flatten().tolist())) == list(range(-roam, roam + 1))
