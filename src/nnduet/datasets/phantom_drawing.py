"""Draws one synthetic abdominal CT: a body with one long organ and one lesion, whose appearance is the case's subtype.

0  homogeneous and dark            1  bright rim, dark core            2  lobulated, mottled, with calcified spots
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

__all__ = ["SUBTYPES", "PhantomVolume", "simulate"]

SUBTYPES = ("0", "1", "2")

_AIR, _FAT, _SOFT, _BONE, _BLOOD, _ORGAN = -1000.0, -95.0, 35.0, 260.0, 165.0, 105.0
_FLUID, _RIM, _MOTTLED = -5.0, 190.0, 40.0

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
