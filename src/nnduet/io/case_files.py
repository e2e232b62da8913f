"""Which files of a folder are images, to which case and channel they belong, and why the others are not used.

The one listing of ``convert``, ``predict`` and ``evaluate``: what none of them uses is named, so that no case is left out
without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnduet.errors import AmbiguousFileError, DatasetError, NNDuetError, listed
from nnduet.io.case_names import FIRST_CHANNEL, channel_name, split_channel
from nnduet.io.formats import is_image_name, listed_endings, readers_named, split_ending
from nnduet.io.readers import Reader
from nnduet.names import printable

__all__ = ["FoundCases", "find_cases", "find_masks", "list_images"]

_MAX_NAMES = 5
_OWN_PREFIX = ".nnduet-"
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"})
_FOLDER = "folders, which are not searched: images lie directly in the folder that is named"
_SYSTEM = "hidden files or files of the operating system"
_OTHER = "no images"
_SAME_CHANNELS = "give every case as many channel files as are expected, and no others; then run the same command again"
_DICOM = "DICOM, which is not read: `dcm2niix -z y -o IMAGES FOLDER` (pip install dcm2niix) writes a .nii.gz of each series"
_BY_SIMPLEITK = (
    "a format that is not read: python -c \"import SimpleITK as s; s.WriteImage(s.ReadImage('OLD'), 'NEW.nii.gz')\" converts it"
)
_BY_NIBABEL = "a format that is not read: python -c \"import nibabel as n; n.save(n.load('OLD'), 'NEW.nii.gz')\" converts it"
_BY_PILLOW = (
    "pictures of a format that is not read: python -c \"from PIL.Image import open; open('OLD').convert('L').save('NEW.png')\""
    " makes a grey PNG"
)
_FORMATS = {
    **dict.fromkeys((".dcm", ".ima", ".dicom"), _DICOM),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".vtk"), _BY_SIMPLEITK),
    **dict.fromkeys((".hdr", ".img", ".mgz", ".mgh", ".mnc", ".hdr.gz", ".img.gz"), _BY_NIBABEL),
    **dict.fromkeys((".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"), _BY_PILLOW),
}


@dataclass(frozen=True)
class FoundCases:
    """Cases of a folder with their files, and every other entry with the reason why it is not used.

    ``cases`` is sorted by case id; a case's files are its channels in order, or its only mask.
    """

    place: Path
    cases: Mapping[str, tuple[Path, ...]]
    ignored: Mapping[Path, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each reason, with the number of files and the first names; empty where everything is used."""
        reasons: dict[str, list[str]] = {}
        for path, reason in self.ignored.items():
            reasons.setdefault(reason, []).append(path.name)
        return tuple(f"{self.place}: not used are {_listed(names)} ({reason})" for reason, names in reasons.items())


def list_images(place: Path, ending: str | None = None) -> FoundCases:
    """Images of a folder, or the one file that is named: all files of each name without its ending, in any order.

    What is named like an image is listed, whatever it is: a link to nothing or a pipe is a case that cannot be read.

    Args:
        ending: of the images that are wanted, e.g. ``".nii.gz"``: its format, with any of its endings; None takes all.

    Returns:
        No case for a folder without images.

    Raises:
        DatasetError: there is nothing of that name.
    """
    if not place.is_dir():
        if not place.exists():
            raise DatasetError(f"{place}: no such file or folder")
        entries = [place]
    else:
        entries = sorted(path for path in place.iterdir() if not path.name.startswith(_OWN_PREFIX))
    files: dict[str, list[Path]] = {}
    ignored: dict[Path, str] = {}
    for path in entries:
        reason = _reason_to_ignore(path, ending)
        if reason:
            ignored[path] = reason
        else:
            files.setdefault(split_ending(path.name)[0], []).append(path)
    return FoundCases(place, {stem: tuple(files[stem]) for stem in sorted(files)}, ignored)


def find_masks(place: Path, ending: str | None = None) -> FoundCases:
    """The mask of each case, from names like ``<case>.nii.gz``. Args as :func:`list_images`.

    Raises:
        DatasetError: nothing of that name, or no mask in it.
        AmbiguousFileError: two files for one case.
    """
    found = list_images(place, ending)
    _refuse_none(found, f"masks named <case>{listed_endings()}")
    _refuse_rivals(found)
    return found


def find_cases(
    place: Path, num_channels: int | None = None, *, ending: str | None = None, error: type[NNDuetError] = DatasetError
) -> FoundCases:
    """Channel files by case from names like ``<case>_0000.nii.gz``.

    Where there is one channel, ``<case>.nii.gz`` is a case as well. In a folder where no name ends in ``_0000``, digits at the
    end belong to the case.

    Args:
        place: a folder, or one file.
        num_channels: of every case; None takes what most cases have.
        ending: as in :func:`list_images`.
        error: what is raised for cases whose channels are not 0000, 0001, … up to that number.

    Raises:
        DatasetError: nothing of that name, or no image in it.
        AmbiguousFileError: two files for one channel of a case.
    """
    found = list_images(place, ending)
    _refuse_none(found, f"images named {channel_name('<case>', 0, listed_endings())}")
    _refuse_rivals(found)
    files = {stem: paths[0] for stem, paths in found.cases.items()}
    if num_channels in (None, 1) and not any(stem.endswith(FIRST_CHANNEL) for stem in files):
        return found
    channels, unnumbered = _grouped(files)
    expected = num_channels or _most_frequent([len(numbers) for numbers in channels.values()])
    ignored = dict(found.ignored)
    for stem, path in unnumbered.items():
        if expected > 1:
            ignored[path] = f"no channel {FIRST_CHANNEL} to {channel_name('', expected - 1)} at the end of the name"
        elif stem in channels:
            raise AmbiguousFileError(f"{place}: {path.name} and a file with a channel are both case {stem!r}; remove one")
        else:
            channels[stem] = {0: path}
    _check_channels(channels, expected, place, error)
    cases = {case_id: tuple(channels[case_id][i] for i in range(expected)) for case_id in sorted(channels)}
    complete = FoundCases(place, cases, ignored)
    _refuse_none(complete, f"images named {channel_name('<case>', 0)} to {channel_name('<case>', expected - 1)}")
    return complete


def _reason_to_ignore(path: Path, ending: str | None) -> str | None:
    name = path.name.lower()
    if name.startswith(".") or name in _SYSTEM_FILES:
        return _SYSTEM
    if is_image_name(name):
        wanted, got = readers_named(ending or name), readers_named(name)
        if set(wanted) & set(got):
            return None
        return f"{_formats(got)}, where {_formats(wanted)} is expected"
    if path.is_dir():
        return _FOLDER
    known = next((reason for other, reason in _FORMATS.items() if name.endswith(other)), None)
    return known or (_DICOM if _is_dicom(path) else _OTHER)


def _formats(readers: Sequence[Reader]) -> str:
    return " or ".join(reader.name for reader in readers)


def _is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's signature; scanners and archives leave out the ending.

    Source: DICOM PS3.10, section 7.1.
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _grouped(files: Mapping[str, Path]) -> tuple[dict[str, dict[int, Path]], dict[str, Path]]:
    """{case: {channel: file}} of numbered names, and the files of the others by name."""
    channels: dict[str, dict[int, Path]] = {}
    unnumbered: dict[str, Path] = {}
    for stem, path in files.items():
        case_id, channel = split_channel(stem)
        if channel is None:
            unnumbered[stem] = path
        else:
            channels.setdefault(case_id, {})[channel] = path
    return channels, unnumbered


def _most_frequent(numbers: list[int]) -> int:
    """The larger one where two are equally frequent: a file that is missing is likelier than one too many."""
    return max(Counter(numbers).items(), key=lambda item: (item[1], item[0]))[0]


def _check_channels(
    channels: Mapping[str, Mapping[int, Path]], num_channels: int, place: Path, error: type[NNDuetError]
) -> None:
    expected = list(range(num_channels))
    got = {case_id: sorted(files) for case_id, files in channels.items()}
    wrong = [
        f"{_shown(case_id)}: expected {num_channels} channel(s) {expected}, got {len(got[case_id])} {got[case_id]}"
        for case_id in sorted(got)
        if got[case_id] != expected
    ]
    if wrong:
        paths = [path for files in channels.values() for path in files.values()]
        pictures = (
            len(paths) == len(channels) and num_channels > 1 and all(path.name.lower().endswith(".png") for path in paths)
        )
        hint = " (a .png holds one: save red, green and blue as _0000, _0001 and _0002)" if pictures else ""
        message = f"{place}: {len(wrong)} of {len(got)} cases have other channels{hint}:{listed(wrong)}"
        raise error(message, remedy=_SAME_CHANNELS)


def _refuse_none(found: FoundCases, expected: str) -> None:
    if not found.cases:
        notes = [note.removeprefix(f"{found.place}: ") for note in found.notes]
        raise DatasetError(f"{found.place}: expected {expected}, found none{':' if notes else ''}{listed(notes)}")


def _refuse_rivals(found: FoundCases) -> None:
    rivals = {stem: [path.name for path in paths] for stem, paths in found.cases.items() if len(paths) > 1}
    if rivals:
        names = _listed([name for group in rivals.values() for name in group])
        stems = ", ".join(_shown(stem) for stem in list(rivals)[:_MAX_NAMES])
        raise AmbiguousFileError(f"{found.place}: more than one file for {stems} ({names}); keep one ending each")


def _shown(name: str) -> str:
    """A name on one line."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{len(names)} {'file' if len(names) == 1 else 'files'}: {', '.join(map(_shown, names[:_MAX_NAMES]))}{more}"
