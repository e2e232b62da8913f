"""The synthetic CT keeps its promises: layout, geometry, quirks, and classes that show in appearance but not in volume."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_predict

from nnduet.datasets.phantom import PhantomSummary, write_phantom
from nnduet.datasets.phantom_drawing import SUBTYPES, PhantomVolume, simulate
from nnduet.errors import OutputExistsError, SettingsError

SIZE = (14, 36, 40)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> PhantomSummary:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    return write_phantom(folder, num_train=9, num_validation=3, num_test=6, seed=7, size=SIZE)


@pytest.fixture(scope="module")
def volumes() -> list[tuple[str, PhantomVolume]]:
    subtypes = [s for s in SUBTYPES for _ in range(16)]
    return [(s, simulate(s, rng=np.random.default_rng([3, i]))) for i, s in enumerate(subtypes)]


def _images(summary: PhantomSummary) -> list[Path]:
    return sorted(summary.folder.rglob("*_0000.nii.gz"))


def _mask_of(image: Path, summary: PhantomSummary) -> Path:
    name = image.name.replace("_0000", "")
    return summary.folder / "test_labels" / name if image.parent.name == "test" else image.parent / name


def _hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def _appearance(volume: PhantomVolume) -> list[float]:
    """Mean and std of HU in the lesion, rim minus core, and the share of its bounding box that it fills."""
    mask = volume.segmentation == 2
    values = volume.hounsfield[mask].astype(float)
    depth = ndimage.distance_transform_edt(mask, sampling=volume.spacing_mm)
    core, rim = volume.hounsfield[depth > 3.5], volume.hounsfield[mask & (depth <= 2.6)]
    box = mask[ndimage.find_objects(mask.astype(np.uint8))[0]]
    return [values.mean(), values.std(), rim.mean() - core.mean(), box.mean()]


def _macro_f1(features: list[list[float]], subtypes: list[str]) -> float:
    predicted = cross_val_predict(LinearDiscriminantAnalysis(), np.array(features), subtypes, cv=4)
    return float(f1_score(subtypes, predicted, average="macro"))


def test_layout_is_that_of_the_challenge(summary: PhantomSummary) -> None:
    assert {p.name for p in (summary.folder / "train").iterdir()} == {"subtype0", "subtype1", "subtype2"}
    assert len(list((summary.folder / "train").rglob("*_0000.nii.gz"))) == summary.count("train") == 9
    assert len(list((summary.folder / "validation").rglob("*_0000.nii.gz"))) == 3
    assert len(list((summary.folder / "test").iterdir())) == len(list((summary.folder / "test_labels").iterdir())) == 6


def test_subtypes_are_balanced_and_ids_do_not_tell_them(summary: PhantomSummary) -> None:
    train = [case.subtype for case in summary.cases if case.split == "train"]
    assert sorted(train) == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    assert train != sorted(train)
    assert [case.case_id for case in summary.cases] == [f"phantom_{i:03d}" for i in range(1, 19)]


def test_test_table_lists_the_test_cases_with_their_subtypes(summary: PhantomSummary) -> None:
    with (summary.folder / "test_cases.csv").open(newline="") as file:
        rows = {row["case_id"]: row["subtype"] for row in csv.DictReader(file)}
    assert rows == {case.case_id: case.subtype for case in summary.cases if case.split == "test"}


def test_summary_goes_to_json(summary: PhantomSummary) -> None:
    assert json.loads(json.dumps(summary.to_json()))["counts"] == {"train": 9, "validation": 3, "test": 6}


def test_image_and_mask_agree_in_geometry(summary: PhantomSummary) -> None:
    for path in _images(summary):
        image, mask = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(_mask_of(path, summary)))
        assert image.GetSize() == mask.GetSize()
        assert np.allclose(image.GetSpacing(), mask.GetSpacing())
        assert np.allclose(image.GetOrigin(), mask.GetOrigin())
        assert np.allclose(image.GetDirection(), mask.GetDirection())


def test_every_case_holds_organ_and_lesion(summary: PhantomSummary) -> None:
    for path in _images(summary):
        mask = np.rint(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(_mask_of(path, summary)))))
        assert set(np.unique(mask)) == {0, 1, 2}


def test_some_masks_store_one_as_in_the_challenge(summary: PhantomSummary) -> None:
    arrays = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(_mask_of(p, summary)))) for p in _images(summary)]
    quirky = [a for a in arrays if a.dtype == np.float64]
    assert 0 < len(quirky) < len(arrays)
    assert all(np.unique(a).tolist() == [0.0, 1.0000152587890625, 2.0] for a in quirky)


def test_orientations_vary_and_the_spine_always_lies_at_the_back(summary: PhantomSummary) -> None:
    assert len({case.orientation for case in summary.cases}) > 1
    for path, case in zip(sorted(_images(summary), key=lambda p: p.name), summary.cases, strict=True):
        image = SimpleITK.ReadImage(str(path))
        codes = SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
        assert codes == case.orientation
        bone = np.argwhere(SimpleITK.GetArrayFromImage(image) > 210).mean(axis=0)
        point = image.TransformContinuousIndexToPhysicalPoint(bone[::-1].tolist())
        assert point[1] > 5  # LPS: posterior


def test_spacings_vary_within_the_stated_ranges(summary: PhantomSummary) -> None:
    spacings = np.array([case.spacing_mm for case in summary.cases])
    assert len(np.unique(spacings[:, 0])) > 10
    assert spacings[:, 0].min() >= 2.0 and spacings[:, 0].max() <= 3.0
    assert spacings[:, 1:].min() >= 1.2 and spacings[:, 1:].max() <= 1.7


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / name, num_train=2, num_validation=1, seed=seed, size=SIZE)
    assert _hashes(tmp_path / "a") == _hashes(tmp_path / "b")
    assert _hashes(tmp_path / "a") != _hashes(tmp_path / "c")


def test_a_second_phantom_in_the_same_folder_is_refused(summary: PhantomSummary) -> None:
    with pytest.raises(OutputExistsError, match="train exists"):
        write_phantom(summary.folder, num_train=1, num_validation=0)


@pytest.mark.parametrize("arguments", [{"num_train": -1}, {"num_train": 1, "size": (4, 60, 60)}])
def test_impossible_settings_are_refused(tmp_path: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        write_phantom(tmp_path, num_validation=0, **arguments)  # type: ignore[arg-type]


def test_volume_alone_does_not_tell_the_subtype(volumes: list[tuple[str, PhantomVolume]]) -> None:
    assert _macro_f1([[v.lesion_volume_mm3] for _, v in volumes], [s for s, _ in volumes]) < 0.5


def test_appearance_in_the_true_mask_tells_the_subtype(volumes: list[tuple[str, PhantomVolume]]) -> None:
    assert _macro_f1([_appearance(v) for _, v in volumes], [s for s, _ in volumes]) > 0.9


def test_lesions_are_twelve_to_twenty_millimetres_across(volumes: list[tuple[str, PhantomVolume]]) -> None:
    diameters = [(v.lesion_volume_mm3 * 6 / np.pi) ** (1 / 3) for _, v in volumes]
    assert min(diameters) > 11.9 and max(diameters) < 20.1


def test_organ_stands_out_from_soft_tissue_by_60_to_80_hu(volumes: list[tuple[str, PhantomVolume]]) -> None:
    for _, volume in volumes[:8]:
        around = ndimage.binary_dilation(volume.segmentation > 0, iterations=4) & (volume.segmentation == 0)
        organ = ndimage.binary_erosion(volume.segmentation == 1)
        assert 50 < np.median(volume.hounsfield[organ]) - np.median(volume.hounsfield[around]) < 90
