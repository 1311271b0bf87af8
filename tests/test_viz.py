import pytest
import timm
import torch
from matplotlib.patches import Rectangle

from pyg_avig import AxialGraph, InputError, attention_weights
from pyg_avig.viz import confusion_matrix, labelled_images, learning_curve, neighbor_weights


@pytest.fixture
def model():
    return timm.create_model("attentionvig_nano", num_classes=10, in_chans=1)


def squares(panel):
    """Node by (row, column), and its colour."""
    found = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
    return {
        (
            round((s.get_y() + 0.5) / s.get_height()),
            round((s.get_x() + 0.5) / s.get_width()),
        ): s
        for s in found
    }


def test_draws_the_svga_neighbours_of_each_stage(model, tmp_path):
    image = torch.randn(1, 32, 32)
    path = tmp_path / "picture.png"
    figure = neighbor_weights(model, image, (17, 9), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    panels = figure.axes[:4]
    for panel, side, length, stride in zip(
        panels, (2, 4, 8, 16), (16, 8, 4, 2), (4, 2, 1, 1), strict=True
    ):
        node = (17 // side) * length + 9 // side
        edge_index = AxialGraph((length, length), stride).edge_index
        neighbors = {divmod(j, length) for j in edge_index[0][edge_index[1] == node].tolist()}
        assert set(squares(panel)) == neighbors | {divmod(node, length)}


def test_colours_are_the_weights(model):
    images = torch.randn(2, 1, 32, 32)
    figure = neighbor_weights(model, images, (0, 0))
    assert len(figure.axes) == 2 * 4 + 1
    weights = attention_weights(model.eval(), images)["stages.3.blocks.1.grapher.conv"]
    edges = weights.edge_index[1] == 4  # The first node of the second image.
    drawn = squares(figure.axes[7])
    colours = figure.axes[-1].collections[-1].get_cmap()
    for j, weight in zip(
        weights.edge_index[0][edges].tolist(), weights.alpha[edges, 0].tolist(), strict=True
    ):
        assert drawn[divmod(j - 4, 2)].get_facecolor() == pytest.approx(colours(weight))


def test_leaves_the_model_in_its_mode(model):
    model.train()
    model.stages[0].eval()
    before = {name: b.clone() for name, b in model.named_buffers()}
    neighbor_weights(model, torch.randn(1, 32, 32), (0, 0))
    assert model.training
    assert not model.stages[0].training
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())


def test_a_pixel_outside_is_refused(model):
    with pytest.raises(InputError, match=r"32 x 32 \(got \(32, 0\)\)"):
        neighbor_weights(model, torch.randn(1, 32, 32), (32, 0))


def test_the_learning_curve_shows_what_the_table_says(tmp_path):
    table = tmp_path / "metrics.csv"
    table.write_text("epoch,step,train_loss,val_acc\n0,9,2.5,\n0,10,,0.5\n1,19,1.5,\n1,20,,0.75\n")
    figure = learning_curve(table, tmp_path / "curve.png")
    losses, scores = figure.axes
    assert losses.lines[0].get_xydata().tolist() == [[9, 2.5], [19, 1.5]]
    assert scores.lines[0].get_xydata().tolist() == [[10, 0.5], [20, 0.75]]
    assert (tmp_path / "curve.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ("a,b\n1,2\n", "another")]
)
def test_other_files_have_no_learning_curve(content, message, tmp_path):
    table = tmp_path / "metrics.csv"
    if content is not None:
        table.write_text(content)
    with pytest.raises(InputError, match=message):
        learning_curve(table)


def test_a_confusion_matrix_counts_pairs(tmp_path):
    label, predicted = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 1, 1, 0])
    path = tmp_path / "confusion.png"
    (panel,) = confusion_matrix(label, predicted, ["a", "b", "c"], path).axes
    assert path.read_bytes().startswith(b"\x89PNG")
    numbers = {text.get_position(): text.get_text() for text in panel.texts}
    assert numbers == {(0, 0): "2", (1, 0): "1", (1, 1): "1", (0, 2): "1"}  # (column, row)
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("label", "predicted", "message"),
    [([0, 1], [0], "as many predictions"), ([0, 3], [0, 0], "indices in 0 to 1 .got 0 to 3")],
)
def test_a_confusion_matrix_of_anything_else_is_refused(label, predicted, message):
    with pytest.raises(InputError, match=message):
        confusion_matrix(torch.tensor(label), torch.tensor(predicted), ["a", "b"])


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_under_their_titles(channels, tmp_path):
    images = [torch.full((channels, 4, 6), n / 5) for n in range(5)]
    path = tmp_path / "images.png"
    figure = labelled_images(images, list("abcde"), path, mean=[0.2], std=[0.5])
    assert path.read_bytes().startswith(b"\x89PNG")
    shown = [panel for panel in figure.axes if panel.images]
    assert [panel.get_title() for panel in shown] == list("abcde")
    for n, panel in enumerate(shown):
        pixels = panel.images[0].get_array()
        assert pixels.shape[:2] == (4, 6)
        assert pixels.max() == pytest.approx(0.2 + 0.5 * n / 5)


def test_images_without_titles_are_refused():
    with pytest.raises(InputError, match="a title for each .got 1 and 0"):
        labelled_images([torch.zeros(1, 2, 2)], [])
