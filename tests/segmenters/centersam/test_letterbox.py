"""Images of any shape in a square input, and boxes back."""

import pytest
import torch

from gigaseg.segmenters.centersam.letterbox import Letterbox


def test_the_known_corners():
    box = Letterbox(400, 200, 128)
    assert box.forward(torch.tensor([[0.0, 0.0], [400.0, 200.0]])).tolist() == [[0, 32], [128, 96]]
    assert Letterbox(200, 400, 128).forward(torch.tensor([0.0, 0.0])).tolist() == [32, 0]


@pytest.mark.parametrize(("width", "height"), [(400, 200), (333, 333), (17, 1023)])
def test_points_and_boxes_come_back(width, height):
    box = Letterbox(width, height, 128)
    points = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([width, height])
    there = box.forward(points)
    assert bool(((there >= -1e-3) & (there <= 128 + 1e-3)).all())
    torch.testing.assert_close(box.inverse(there), points, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        box.boxes(torch.cat([there, there + 1], 1)),
        torch.cat([points, points + 1 / box.scale], 1),
        atol=2e-4,
        rtol=1e-5,
    )


def test_boxes_of_the_grid_go_back_by_the_grids_side():
    image_box = torch.tensor([100.0, 40.0, 300.0, 120.0])
    in_input = Letterbox(400, 200, 512).forward(image_box.view(2, 2)).view(4)
    assert Letterbox(400, 200, 128).boxes(in_input / 4).tolist() == pytest.approx(image_box.tolist())


def test_the_image_lands_where_its_points_do_and_its_surroundings_are_zero():
    image = torch.zeros(1, 3, 20, 40)
    image[:, :, 4:8, 10:20] = 200
    found = Letterbox(40, 20, 80).apply(image)
    assert found.shape == (1, 3, 80, 80)
    expected = Letterbox(40, 20, 80).forward(torch.tensor([[10.0, 4.0], [20.0, 8.0]])).flatten().tolist()
    assert expected == [20, 28, 40, 36]
    rows, columns = torch.nonzero(found[0, 0] > 100, as_tuple=True)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == expected
    assert float(Letterbox(40, 20, 80).apply(torch.full((1, 3, 20, 40), 9.0))[0, :, :19].abs().max()) == 0


def test_an_image_of_the_inputs_shape_stays_as_it_is():
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(Letterbox(32, 32, 32).apply(image), image, atol=1e-5, rtol=1e-5)
