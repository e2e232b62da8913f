"""What plans.json and dataset.json of a model may say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import CONFIGURATIONS, tiny_dataset_json, tiny_plans

import nnduet
from nnduet.errors import ModelError
from nnduet.model_store.plans import check_configuration, check_dataset, check_plans

Edit = Callable[[dict[str, Any]], Any]


def refused(change: Edit, dim: int = 3) -> str:
    """The message for changed plans, or a dataset.json that is changed in the same way."""
    plans, dataset_json = tiny_plans(dim), tiny_dataset_json(dim)
    change({"plans": plans, "data": dataset_json, "own": plans["nnduet"], **parts_of(plans, dim)})
    with pytest.raises(ModelError) as caught:
        check_dataset(dataset_json, "dataset.json")
        check_plans(plans, 1, "plans.json")
        check_configuration(plans["configurations"][CONFIGURATIONS[dim]], 1, "plans.json: 3d_fullres")
    return str(caught.value)


def parts_of(plans: dict[str, Any], dim: int) -> dict[str, Any]:
    configuration = plans["configurations"][CONFIGURATIONS[dim]]
    return {"configuration": configuration, "network": configuration["architecture"]["arch_kwargs"]}


def test_what_nnunet_writes_passes_as_it_is() -> None:
    for dim in (2, 3):
        plans, dataset_json = tiny_plans(dim), tiny_dataset_json(dim)
        before = copy.deepcopy((plans, dataset_json))
        assert (check_plans(plans, 1, "p"), check_dataset(dataset_json, "d")) == before
        check_configuration(plans["configurations"][CONFIGURATIONS[dim]], 1, "p")


def test_the_model_that_comes_with_nnduet_passes() -> None:
    folder = Path(nnduet.__file__).parent / "models" / "lidc-nodule"
    plans, dataset_json = (json.loads((folder / name).read_text()) for name in ("plans.json", "dataset.json"))
    assert check_plans(plans, 1, "p") == plans and check_dataset(dataset_json, "d") == dataset_json
    for configuration in plans["configurations"].values():
        check_configuration(configuration, 1, "p")


def test_regions_an_ignore_label_and_several_values_pass() -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    assert check_dataset(tiny_dataset_json(3) | {"labels": labels, "regions_class_order": [1, 2]}, "d")["labels"] == labels


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m["configuration"].update(patch_size=[0, 8, 8]), "patch_size[0]"),
        (lambda m: m["configuration"].update(patch_size=[-8, 8, 8]), "patch_size[0]"),
        (lambda m: m["configuration"].update(patch_size=[8.5, 8, 8]), "patch_size[0]"),
        (lambda m: m["configuration"].update(patch_size=[True, 8, 8]), "patch_size[0]"),
        (lambda m: m["configuration"].update(patch_size=[8]), "patch_size"),
        (lambda m: m["configuration"].update(patch_size=[7, 8, 8]), "expected a multiple of 4, the strides, on axis 0"),
        (lambda m: m["configuration"].update(patch_size=[4000] * 3), "patch_size expected at most"),
        (lambda m: m["configuration"].update(spacing=[0, 1, 1]), "spacing[0]"),
        (lambda m: m["configuration"].update(spacing=[-2, 1, 1]), "spacing[0]"),
        (lambda m: m["configuration"].update(spacing=[1e9, 1, 1]), "spacing[0]"),
        (lambda m: m["configuration"].update(spacing=[1, 1]), "spacing expected 3 numbers"),
        (lambda m: m["configuration"].update(normalization_schemes=["os.system"]), "normalization_schemes[0]"),
        (lambda m: m["configuration"].update(normalization_schemes=[]), "normalization_schemes expected one entry per channel"),
        (lambda m: m["configuration"].update(use_mask_for_norm="yes"), "use_mask_for_norm"),
        (lambda m: m["configuration"].update(resampling_fn_data="eval"), "resampling_fn_data"),
        (lambda m: m["configuration"].update(resampling_fn_data_kwargs={"order": 10**9}), "resampling_fn_data_kwargs.order"),
        (lambda m: m["configuration"].update(resampling_fn_data_kwargs={"x": 1}), "unknown entries ['x']"),
        (lambda m: m["configuration"].update(preprocessor_name="os.system"), "preprocessor_name"),
        (lambda m: m["configuration"].update(previous_stage="3d_lowres"), "second stage of a cascade"),
        (lambda m: m["configuration"].pop("architecture"), "architecture"),
        (lambda m: m["network"].update(n_stages=10**6), "n_stages"),
        (lambda m: m["network"].update(features_per_stage=[10**9] * 3), "features_per_stage"),
        (lambda m: m["network"].update(features_per_stage=[4, 8]), "features_per_stage expected 3 entries"),
        (lambda m: m["network"].update(n_blocks_per_stage=[10**7, 1, 1]), "n_blocks_per_stage"),
        (lambda m: m["network"].update(n_conv_per_stage_decoder=[1] * 9), "n_conv_per_stage_decoder expected 2 entries"),
        (lambda m: m["network"].update(kernel_sizes=[[10**4] * 3] * 3), "kernel_sizes"),
        (lambda m: m["network"].update(strides=[[1, 1], [2, 2], [2, 2]]), "strides expected 3 numbers per stage"),
        (lambda m: m["network"].update(conv_op="torch.nn.modules.conv.Conv2d"), "conv_op expected"),
        (lambda m: m["network"].update(norm_op="torch.nn.GroupNorm"), "norm_op expected"),
        (lambda m: m["plans"].update(label_manager="os.system"), "label_manager"),
        (lambda m: m["plans"].update(transpose_forward=[0, 0, 0]), "an order of the axes"),
        (lambda m: m["plans"].update(transpose_forward=[1, 2, 0]), "an order of the axes"),
        (lambda m: m["plans"].update(configurations=[]), "configurations"),
        (lambda m: m["plans"]["foreground_intensity_properties_per_channel"]["0"].update(std="x"), "std"),
        (lambda m: m["plans"].pop("foreground_intensity_properties_per_channel"), "expected channels 0 to 0, got []"),
        (lambda m: m["own"].update(overlapping=1), "nnduet.overlapping"),
        (lambda m: m["own"].update(head=None), "nnduet.head"),
        (lambda m: m["data"].update(labels=None), "labels"),
        (lambda m: m["data"].update(labels={"background": 0, "a": 1, "b": 300}), "without gaps"),
        (lambda m: m["data"].update(labels={"background": 0, "a": 10**9}), "labels[...]"),
        (lambda m: m["data"].update(labels={"background": 0, "a": "1"}), "labels[...]"),
        (lambda m: m["data"].update(labels={"a": 0, "b": 1}), '"background": 0'),
        (lambda m: m["data"].update(labels={"background": 0, "a": [1, 2], "b": [2]}), "one value for each of a, b"),
        (lambda m: m["data"].update(labels={"background": 0, "a": 1, "ignore": 1}), '"ignore": 2, got 1'),
        (lambda m: m["data"].update(channel_names=["CT"]), "channel_names"),
        (lambda m: m["data"].update(channel_names={"1": "CT"}), "channel_names expected keys from 0 on"),
        (lambda m: m["data"].update(file_ending="/../../x.nii.gz"), "file_ending"),
        (lambda m: m["data"].update(file_ending=""), "file_ending"),
        (lambda m: m["data"].update(masks={"../../a": {"x": 1}, "b": {"x": 1}}), "mask"),
        (lambda m: m["data"].update(classification=[1]), "classification"),
        (lambda m: m["data"].update(classification={"grade": {"type": "binary", "classes": None}}), "classification"),
        (lambda m: m["data"].update(covariates={"age": 1}), "covariates"),
    ],
)
def test_row_139_an_impossible_entry_is_refused_by_its_name(change: Edit, named: str) -> None:
    message = refused(change)
    assert named in message and message.startswith(("plans.json: ", "dataset.json: "))
