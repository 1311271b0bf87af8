import pytest
import yaml

from pyg_avig import InputError, config_files
from pyg_avig.config_files import (
    config_file,
    configs_folder,
    describe,
    list_configs,
    named_configs,
    with_config_files,
)


def test_every_config_has_a_name_and_a_line(capsys):
    known = named_configs()
    assert {"digits/nano", "own_images", "own_graphs", "imagenet/s"} <= known.keys()
    list_configs()
    lines = capsys.readouterr().out.splitlines()
    for name, path in known.items():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert len(describe(path)) > 10
        assert line.endswith(describe(path))


def test_a_config_is_found_by_name_or_path(tmp_path, monkeypatch):
    there = str(configs_folder() / "digits" / "nano.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("seed_everything: 1")
    monkeypatch.chdir(tmp_path)  # Where there are no configs.
    for word in ("digits/nano", "digits/nano.yaml", "configs/digits/nano.yaml"):
        assert config_file(word) == there
    assert config_file("own.yaml") == "own.yaml"
    assert config_file("s3://bucket/a.yaml") == "s3://bucket/a.yaml"
    assert config_file("{seed_everything: 1}") == "{seed_everything: 1}"


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "nano").write_text("seed_everything: 1")
    monkeypatch.chdir(tmp_path)
    assert config_file("digits/nano") == "digits/nano"


def test_only_configs_are_looked_up():
    nano = str(named_configs()["digits/nano"])
    words = ["fit", "-c", "digits/nano", "--config=digits/nano", "--data.root", "digits/nano"]
    assert with_config_files(words) == [
        *("fit", "-c", nano, f"--config={nano}", "--data.root", "digits/nano"),
    ]


@pytest.mark.parametrize("word", ["digits/nan", "digits", "nothing.yaml"])
def test_what_is_not_there_is_named(word):
    with pytest.raises(InputError, match=word):
        config_file(word)


def test_a_named_config_is_printed(capsys):
    list_configs(["digits/nano"])
    content = yaml.safe_load(capsys.readouterr().out)
    assert content["model"]["name"] == "attentionvig_nano"


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    """As the wheel is laid out."""
    (tmp_path / "pyg_avig").mkdir(parents=True)
    (tmp_path / "pyg_avig" / "configs").mkdir()
    (tmp_path / "pyg_avig" / "configs" / "a.yaml").write_text("# A line.\n\nseed_everything: 1")
    monkeypatch.setattr(config_files, "__file__", str(tmp_path / "pyg_avig" / "config_files.py"))
    assert list(named_configs()) == ["a"]
    assert describe(named_configs()["a"]) == "A line"
