from pathlib import Path

import numpy as np
import pytest
from explore.pages import content
from PIL import Image

from pyg_avig.train.cli import main


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    array = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
    Image.fromarray(array).save(path)
    return str(path)


def test_writes_a_page_of_the_images(checkpoint, picture, tmp_path, capsys):
    out = tmp_path / "folder" / "page.html"
    assert main(["explore", checkpoint, picture, picture, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = content(out)
    assert page["title"] == "attentionvig_nano"
    assert [item["name"] for item in page["items"]] == ["a.png", "a.png"]
    assert {name for name, _ in page["items"][0]["top"]} < set("0123456789")


def test_unreadable_files_are_named_and_the_others_shown(checkpoint, picture, tmp_path, capsys):
    out, missing = tmp_path / "page.html", str(tmp_path / "missing.png")
    assert main(["explore", checkpoint, missing, picture, "--out", str(out)]) == 1
    assert missing in capsys.readouterr().err
    assert len(content(out)["items"]) == 1


def test_what_cannot_be_is_said_in_a_line(checkpoint, picture, tmp_path, capsys):
    page, file = str(tmp_path / "page.html"), tmp_path / "file"
    file.write_text("")
    for args, message in [
        ([checkpoint, "missing.png", "--out", page], "got none"),
        ([checkpoint, picture, "--out", "page.png"], "*.html"),
        ([picture, picture, "--out", page], "expected a checkpoint"),
        ([checkpoint, picture, "--out", f"{file}/page.html"], f"{file}/page.html: "),
    ]:
        assert main(["explore", *args]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path(page).exists()
