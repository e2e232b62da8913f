"""Synthetic abdominal CT in the layout of the pancreas challenge, for the demo and the tests.

A body with fat, spine and aorta holds one long curved organ (label 1, "pancreas") and one lesion in it (label 2). The case
carries one of three subtypes, which shows in the lesion's appearance only; its volume is drawn before the subtype is looked at:

    0  homogeneous and dark            1  bright rim, dark core            2  lobulated, mottled, with calcified spots

    <folder>/train/subtype0/phantom_007_0000.nii.gz, phantom_007.nii.gz      images and masks; validation/ likewise
    <folder>/test/phantom_012_0000.nii.gz                                    images only
    <folder>/test_labels/phantom_012.nii.gz, <folder>/test_cases.csv         the answers (case_id,subtype)

Spacing and orientation vary from case to case; every fourth mask is stored as float64 with 1.0000152587890625 where 1 is meant,
as in the challenge. The same seed gives the same bytes.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage
from scipy.spatial import cKDTree

from nnduet.errors import OutputExistsError, SettingsError
from nnduet.io.case_names import channel_name, mask_name
from nnduet.io.csv_text import csv_text
from nnduet.io.nifti import NIFTI

__all__ = ["SUBTYPES", "PhantomCase", "PhantomSummary", "PhantomVolume", "simulate", "write_phantom"]

SUBTYPES = ("0", "1", "2")

_AIR, _FAT, _SOFT, _BONE, _BLOOD, _ORGAN = -1000.0, -95.0, 35.0, 260.0, 165.0, 105.0
_FLUID, _RIM, _MOTTLED = -5.0, 190.0, 40.0
_ORIENTATIONS = ("LPS", "LPS", "LPS", "RAS", "LAS", "PLS")  # in-plane transposed in one of six; slices stay slices
_ONE_AS_STORED = 1.0000152587890625  # 1 + 2**-16, found in 214 of the 288 challenge masks
_SPLITS = ("train", "validation", "test")

_Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PhantomVolume:
    """One LPS case: ``hounsfield`` (Z, Y, X) int16, ``segmentation`` (Z, Y, X) uint8 in {0, 1, 2}, ``spacing_mm`` (Z, Y, X)."""

    hounsfield: _Array
    segmentation: _Array
    spacing_mm: tuple[float, float, float]

    @property
    def lesion_volume_mm3(self) -> float:
        """Volume of label 2."""
        return float((self.segmentation == 2).sum() * np.prod(self.spacing_mm))


@dataclass(frozen=True)
class PhantomCase:
    """What was written for one case; ``spacing_mm`` is (Z, Y, X) before the axes were turned to ``orientation``."""

    case_id: str
    split: str
    subtype: str
    orientation: str
    spacing_mm: tuple[float, float, float]
    lesion_volume_mm3: float


@dataclass(frozen=True)
class PhantomSummary:
    """The folder and its cases, in the order of their ids."""

    folder: Path
    cases: tuple[PhantomCase, ...]

    def count(self, split: str) -> int:
        """Number of cases of ``train``, ``validation`` or ``test``."""
        return sum(case.split == split for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """JSON form: folder, number of cases per split, cases."""
        counts = {split: self.count(split) for split in _SPLITS}
        return {"folder": str(self.folder), "counts": counts, "cases": [asdict(case) for case in self.cases]}


@dataclass(frozen=True)
class _Grid:
    """Voxel centres in mm from the volume's centre; x to the left, y to the back, z to the head."""

    z: _Array
    y: _Array
    x: _Array
    spacing_mm: tuple[float, float, float]

    @classmethod
    def make(cls, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> _Grid:
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
        z, y, x = np.meshgrid(*axes, indexing="ij")
        return cls(z, y, x, spacing_mm)

    @property
    def half_extent_mm(self) -> tuple[float, float, float]:
        return float(self.z.max()), float(self.y.max()), float(self.x.max())

    def points(self) -> _Array:
        return np.stack([self.z, self.y, self.x], axis=-1).reshape(-1, 3)


def write_phantom(
    folder: Path,
    *,
    num_train: int,
    num_validation: int,
    num_test: int = 0,
    seed: int = 0,
    size: tuple[int, int, int] = (26, 60, 68),
) -> PhantomSummary:
    """Write the data set below ``folder``; the subtypes are balanced within each split and independent of the ids.

    Args:
        folder: made if missing.
        num_train, num_validation, num_test: numbers of cases.
        seed: the same seed gives the same files.
        size: mean number of voxels (Z, Y, X); each case differs from it by at most (2, 4, 4).

    Raises:
        OutputExistsError: ``folder`` already holds a train, validation or test folder.
        SettingsError: a negative number of cases, or a size too small to hold a lesion.
    """
    _check(folder, (num_train, num_validation, num_test), size)
    rng = np.random.default_rng(seed)
    wanted = [
        (split, subtype)
        for split, count in zip(_SPLITS, (num_train, num_validation, num_test), strict=True)
        for subtype in _balanced_subtypes(count, rng)
    ]
    numbers = rng.permutation(len(wanted)) + 1
    cases = []
    for number, (split, subtype) in sorted(zip(numbers.tolist(), wanted, strict=True)):
        case_rng = np.random.default_rng([seed, number])
        volume = simulate(subtype, rng=case_rng, size=size)
        orientation = str(case_rng.choice(_ORIENTATIONS))
        case_id = f"phantom_{number:03d}"
        case = PhantomCase(case_id, split, subtype, orientation, volume.spacing_mm, volume.lesion_volume_mm3)
        _write_case(folder, case, volume, as_float=number % 4 == 0)
        cases.append(case)
    if num_test:
        _write_test_table(folder / "test_cases.csv", cases)
    return PhantomSummary(folder, tuple(cases))


def simulate(subtype: str, *, rng: np.random.Generator, size: tuple[int, int, int] = (26, 60, 68)) -> PhantomVolume:
    """Draw one case; everything except the lesion's shape and appearance is drawn before ``subtype`` is looked at."""
    shape = tuple(int(n + rng.integers(-d, d + 1)) for n, d in zip(size, (2, 4, 4), strict=True))
    in_plane = round(float(rng.uniform(1.2, 1.7)), 3)
    grid = _Grid.make(shape, (round(float(rng.uniform(2.0, 3.0)), 3), in_plane, in_plane))
    hounsfield = _draw_body(grid, rng)
    curve, radii = _organ_course(grid, rng)
    organ = _tube(grid, curve, radii)
    hounsfield[organ] = _ORGAN + rng.normal(0, 6)
    volume_mm3 = float(np.pi / 6 * rng.uniform(12.0, 20.0) ** 3)
    centre = curve[rng.integers(len(curve) // 6, len(curve) * 5 // 6)] + rng.normal(0, 2.0, 3)
    noise = _noise(grid.x.shape, rng)

    distance = _lobulated_distance(grid, centre, rng) if subtype == "2" else _ellipsoid_distance(grid, centre, rng)
    lesion = _nearest_volume(distance, volume_mm3, grid.spacing_mm)
    hounsfield[lesion] = _LESIONS[subtype](lesion, grid.spacing_mm, rng)[lesion]

    hounsfield = ndimage.gaussian_filter(hounsfield, 0.4) + noise  # 0.4 voxel: the edges' partial volume
    segmentation = np.where(lesion, 2, organ).astype(np.uint8)
    return PhantomVolume(np.rint(hounsfield).clip(-1024, 3071).astype(np.int16), segmentation, grid.spacing_mm)


def _check(folder: Path, counts: tuple[int, ...], size: tuple[int, int, int]) -> None:
    if min(counts) < 0:
        raise SettingsError(f"phantom: numbers of cases expected >= 0, got {counts}")
    if min(size[0] - 12, size[1] - 32, size[2] - 32) < 0:
        raise SettingsError(f"phantom: size expected at least (12, 32, 32) voxels, got {size}")
    for split in _SPLITS:
        if (folder / split).exists():
            raise OutputExistsError(f"{folder / split} exists; write the phantom to a new folder")


def _balanced_subtypes(count: int, rng: np.random.Generator) -> list[str]:
    subtypes = [SUBTYPES[i % len(SUBTYPES)] for i in range(count)]
    return [subtypes[i] for i in rng.permutation(count)]


def _draw_body(grid: _Grid, rng: np.random.Generator) -> _Array:
    """Noise-free HU (Z, Y, X) of an ellipsoid with a ring of fat, soft tissue, one vertebral column and the aorta before it."""
    half_z, half_y, half_x = grid.half_extent_mm
    radius_y, radius_x = half_y * rng.uniform(0.88, 0.96), half_x * rng.uniform(0.88, 0.96)

    def inside(margin_mm: float) -> _Array:
        terms = (grid.y / (radius_y - margin_mm)) ** 2 + (grid.x / (radius_x - margin_mm)) ** 2 + (grid.z / (half_z * 2.2)) ** 2
        return np.asarray(terms < 1)

    spine_y, spine_radius = radius_y * 0.60, radius_y * 0.20
    hounsfield = np.full(grid.x.shape, _AIR)
    hounsfield[inside(0)] = _FAT
    inner = inside(rng.uniform(4, 7))
    texture = ndimage.gaussian_filter(rng.normal(size=grid.x.shape), 2.5)
    hounsfield[inner] = (_SOFT + 6 * texture / texture.std())[inner]
    hounsfield[_disc(grid, spine_y, 0.0) < spine_radius] = _BONE
    hounsfield[_disc(grid, spine_y, 0.0) < spine_radius * 0.65] = _BONE - 90
    hounsfield[_disc(grid, spine_y - spine_radius - 5, 4.0) < 4.5] = _BLOOD
    return hounsfield


def _disc(grid: _Grid, y: float, x: float) -> _Array:
    return np.asarray(np.hypot(grid.y - y, grid.x - x))


def _organ_course(grid: _Grid, rng: np.random.Generator) -> tuple[_Array, _Array]:
    """Centre line (N, 3) in mm as (z, y, x), from the head on the patient's right to the tail on the left; radii (N,)."""
    half_z, half_y, half_x = grid.half_extent_mm
    t = np.linspace(0, 1, 80)
    length = rng.uniform(0.52, 0.60) * half_x
    arch, rise, wave = rng.uniform(0.28, 0.38) * half_y, rng.uniform(0.25, 0.45) * half_z, rng.uniform(-2.0, 2.0)
    x = (2 * t - 1) * length
    y = 0.12 * half_y - arch * np.sin(np.pi * (0.15 + 0.8 * t))
    z = rise * (2 * t - 1) + wave * np.sin(2 * np.pi * t)
    radii = rng.uniform(0.95, 1.1) * (9.0 - 3.0 * t + 0.6 * np.sin(6 * np.pi * t + rng.uniform(0, 6)))
    return np.stack([z, y, x], axis=1), radii


def _tube(grid: _Grid, curve: _Array, radii: _Array) -> _Array:
    distance, nearest = cKDTree(curve).query(grid.points())
    return np.asarray((distance < radii[nearest]).reshape(grid.x.shape))


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> _Array:
    """Gaussian noise of 10 to 15 HU, correlated over about one voxel as after a smooth reconstruction kernel."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 0.5)
    return np.asarray(noise * (rng.uniform(10, 15) / noise.std()))


def _ellipsoid_distance(grid: _Grid, centre: _Array, rng: np.random.Generator) -> _Array:
    axes = rng.uniform(0.88, 1.12, 3)
    offsets = (grid.points() - centre) / axes
    return np.asarray(np.linalg.norm(offsets, axis=1).reshape(grid.x.shape))


def _lobulated_distance(grid: _Grid, centre: _Array, rng: np.random.Generator) -> _Array:
    """Distance shrunk along a few random directions, so that its level sets bulge into lobules there."""
    offsets = grid.points() - centre
    distance = np.linalg.norm(offsets, axis=1)
    lobules = rng.normal(size=(6, 3))
    lobules /= np.linalg.norm(lobules, axis=1, keepdims=True)
    cosine = offsets @ lobules.T / np.maximum(distance, 1e-6)[:, None]
    bulge = np.exp(8.0 * (cosine - 1)).max(axis=1)
    return np.asarray((distance / (0.8 + 0.7 * bulge)).reshape(grid.x.shape))


def _nearest_volume(distance: _Array, volume_mm3: float, spacing_mm: tuple[float, float, float]) -> _Array:
    """The mask of the nearest voxels that together fill ``volume_mm3``: every shape gets exactly the volume drawn for it."""
    count = round(volume_mm3 / float(np.prod(spacing_mm)))
    mask = np.zeros(distance.size, dtype=bool)
    mask[np.argsort(distance, axis=None, kind="stable")[:count]] = True
    return mask.reshape(distance.shape)


def _homogeneous(lesion: _Array, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> _Array:
    return np.full(lesion.shape, _FLUID + rng.normal(0, 5))


def _rimmed(lesion: _Array, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> _Array:
    depth_mm = ndimage.distance_transform_edt(lesion, sampling=spacing_mm)
    return np.where(depth_mm <= 2.6, _RIM + rng.normal(0, 10), _FLUID + rng.normal(0, 5))


def _mottled(lesion: _Array, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> _Array:
    mottle = ndimage.gaussian_filter(rng.normal(size=lesion.shape), [2.2 / s for s in spacing_mm])
    hounsfield = np.asarray(_MOTTLED + rng.normal(0, 5) + 70 * mottle / mottle.std())
    spots = rng.choice(np.flatnonzero(lesion), size=rng.integers(5, 9), replace=False)
    hounsfield.flat[spots] += 450
    return hounsfield


_LESIONS = {"0": _homogeneous, "1": _rimmed, "2": _mottled}


def _write_case(folder: Path, case: PhantomCase, volume: PhantomVolume, *, as_float: bool) -> None:
    is_test = case.split == "test"
    image_folder = folder / case.split if is_test else folder / case.split / f"subtype{case.subtype}"
    mask_folder = folder / "test_labels" if is_test else image_folder
    segmentation = volume.segmentation
    if as_float:
        segmentation = np.where(segmentation == 1, _ONE_AS_STORED, segmentation.astype(np.float64))
    write = functools.partial(_write_image, spacing_mm=case.spacing_mm, orientation=case.orientation)
    write(image_folder / channel_name(case.case_id, 0, NIFTI.dataset_ending), volume.hounsfield)
    write(mask_folder / mask_name(case.case_id, NIFTI.dataset_ending), segmentation)


def _write_image(path: Path, array: _Array, *, spacing_mm: tuple[float, float, float], orientation: str) -> None:
    """Write an LPS array (Z, Y, X) with its axes turned to ``orientation`` and a direction matrix that says so."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, orientation), str(path), useCompression=True)


def _write_test_table(path: Path, cases: list[PhantomCase]) -> None:
    rows = [[case.case_id, case.subtype] for case in cases if case.split == "test"]
    path.write_text(csv_text([["case_id", "subtype"], *rows]), encoding="utf-8")
