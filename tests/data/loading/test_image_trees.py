from PIL import Image

from pyg_avig.data.loading.image_trees import images_among


def test_words_stand_for_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / ".hidden").mkdir(parents=True)
    (tmp_path / "in" / "deep").mkdir()
    names = ["in/10.png", "in/2.PNG", "in/deep/1.jpg", "in/.a.png", "in/.hidden/b.png", "[x].png"]
    for name in [*names, "in/notes.txt"]:
        Image.new("L", (2, 2)).save(name, "png")
    within = ["in/2.PNG", "in/10.png", "in/deep/1.jpg"]
    assert images_among(["in"]) == (within, [])
    assert images_among(["in/**/*.jpg", "[x].png", "gone.png"]) == (
        ["in/deep/1.jpg", "[x].png", "gone.png"],  # Whoever reads it says that it is gone.
        [],
    )
    assert images_among(["i*"]) == (within, [])
    assert images_among(["in/notes.txt"]) == (["in/notes.txt"], [])
    (tmp_path / "none").mkdir()
    found, errors = images_among(["none", "*.gif", "in/10.png"])
    assert found == ["in/10.png"]
    assert [error.split(":")[0] for error in errors] == ["none", "*.gif"]
