"""What is held between blocks is what can still grow, and no more."""

from collections import Counter

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from gigaseg.stitch.blocks import cut_into_blocks, find_pairs, scan
from gigaseg.stitch.frontier import Frontier, gather
from gigaseg.stitch.merge import plan
from gigaseg.testing.labels import label_image
from stitching import full_grid, mistaken_scenes, oracle, steady, write_shards


def layout_of(parts, grid, folder):
    return scan(write_shards(folder, parts, grid, 1), grid, "grid.parquet")[0]


def drawn(labels, tile, overlap):
    """What an oracle draws in the tiles, and the grid."""
    grid = full_grid(labels.shape, tile, overlap)
    return oracle(labels, grid), grid


def walk(layout, block):
    """What comes out of the frontier block by block, and how many nodes it holds after each."""
    frontier, final, held, parts = Frontier(), [], [], []
    for first, last in cut_into_blocks(layout, block):
        found = find_pairs(layout, (first, last, 0.5))
        parts.append((found.nodes, found.links))
        final.append(frontier.add(found.nodes, found.links, int(layout.row_start[last])))
        held.append(sum(len(nodes.row) for nodes, _ in frontier.held))
    return final, held, parts


def test_objects_are_decided_block_by_block_as_they_would_be_together(tmp_path_factory):
    total = Counter()

    @steady(80)
    @given(mistaken_scenes(), st.integers(1, 100))
    def check(scene, block):
        assume(any(len(part) for part in scene[0]))
        layout = layout_of(*scene, tmp_path_factory.mktemp("slide"))
        final, held, parts = walk(layout, block)
        together = plan(*gather(parts), 0.5)
        apart = [plan(*one, 0.5) for one in final]
        assert held[-1] == 0
        for name in ("gone", "lead", "united"):
            rows = np.concatenate([getattr(one, name) for one in apart])
            assert np.array_equal(np.sort(rows), getattr(together, name))
        for name in ("skipped", "conflicts", "dropped"):
            assert sum(getattr(one, name) for one in apart) == getattr(together, name)
            total[name] += getattr(together, name)

    check()
    assert total["skipped"] > 0
    assert total["conflicts"] > total["dropped"] > 0


def test_what_is_held_does_not_grow_with_the_slide(tmp_path):
    most, nodes = [], []
    for height in (400, 1600):
        folder = tmp_path / f"{height}"
        folder.mkdir()
        layout = layout_of(*drawn(label_image("nuclei", (height, 200), 1), 64, 16), folder)
        final, held, _ = walk(layout, 1)
        assert len(held) == layout.grid.tiling.rows
        most.append(max(held))
        nodes.append(sum(len(part.row) for part, _ in final))
    assert nodes[1] > 3.5 * nodes[0]
    assert 0 < most[1] < 2 * most[0]


def test_an_object_as_long_as_the_slide_is_held_to_its_end_and_nothing_else(tmp_path):
    labels = np.zeros((600, 100), np.int32)
    labels[5:595, 20:26] = 1
    labels[20:600:48, 60:70] = 2 + np.arange(13)[:, None]
    layout = layout_of(*drawn(labels, 64, 16), tmp_path)
    final, held, _ = walk(layout, 1)
    assert held == [*range(2, len(held) + 1), 0]
    assert len(final[-1][0].row) >= len(held)
