import csv

import pytest
import torch
from data.trees import imagenet_tree

from pyg_avig.data import OwnImages
from pyg_avig.train.cli import CLI, main
from pyg_avig.train.image_summary import predicted_of


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder a class, without a split."""
    return imagenet_tree(tmp_path_factory.mktemp("own"), train=8, val=0, side=48) / "train"


def own(root, folder, *more):
    return [
        "--config=own_images",
        f"--data.root={root}",
        "--data.image_size=32",
        f"--trainer.logger.init_args.save_dir={folder}",
        "--model.model_args={channels: [8, 8, 8, 8], head_hidden_size: 16}",
        *more,
    ]


def test_own_images_from_a_folder_to_pictures(root, tmp_path, capsys):
    """One command: a split, a training, a summary, and what to type next, which works."""
    assert main(["fit", *own(root, tmp_path, "--trainer.max_epochs=2")]) == 0
    printed = capsys.readouterr().out
    (run,) = tmp_path.rglob("version_0")
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")
    for said in ("on cpu in precision 32-true", "2 epochs", "best checkpoint on validation: "):
        assert said in printed
    assert printed.rindex("Epoch 1/1") < printed.index("best checkpoint on validation: ")
    assert str(run / "confusion.png") in printed
    assert (str(run / "mistakes.png") in printed) == (run / "mistakes.png").exists()
    with (run / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert f"split: {run}/split.csv" in (run / "config.yaml").read_text()
    command = printed.partition("next: pyg-avig ")[2].splitlines()[0].split()
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main(command) == 0
    tested = sum(row["split"] == "test" for row in rows)
    assert tested == 3
    assert "test_acc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "epochs"),
    [([], 100), (["--trainer.max_epochs=3"], 3), (["--trainer.max_steps=5"], None)],
)
def test_epochs_follow_the_images_unless_they_are_given(given, epochs, root, tmp_path):
    cli = CLI(own(root, tmp_path, *given), run=False)
    assert cli.trainer.max_epochs == epochs
    assert cli.config.trainer.max_epochs == epochs  # For config.yaml.


def test_the_surest_mistakes_come_first(root):
    data = OwnImages(str(root), image_size=32)
    data.setup("validate")

    class FirstClass(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, batch):
            sure = torch.linspace(1, 3, batch.num_graphs)
            return torch.stack([sure, torch.zeros_like(sure), torch.zeros_like(sure)], 1)

    found = predicted_of(FirstClass(), data.val_dataloader())
    assert found.predicted.tolist() == [0, 0, 0]
    assert sorted(found.label.tolist()) == [0, 1, 2]
    assert len(found.mistakes) == 2
    assert all(of != taken == 0 for _, of, taken, _ in found.mistakes)
    shares = [share for *_, share in found.mistakes]
    assert shares == sorted(shares, reverse=True)
