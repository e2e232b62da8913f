"""Training settings: refused where impossible, kept through JSON, and the ramp of the class loss by hand."""

from __future__ import annotations

import json

import pytest

from nnduet.errors import SettingsError
from nnduet.training.settings import CPU_SETTINGS, TrainingSettings


@pytest.mark.parametrize("settings", [TrainingSettings(), CPU_SETTINGS, TrainingSettings(stages=[0, -1])])
def test_settings_survive_json(settings: TrainingSettings) -> None:
    assert TrainingSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_absent_fields_keep_their_defaults() -> None:
    assert TrainingSettings.from_json({"num_epochs": 3}) == TrainingSettings(num_epochs=3)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(SettingsError, match="learning_rat"):
        TrainingSettings.from_json({"learning_rat": 0.1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "lion"),
        ("num_epochs", 0),
        ("iterations_per_epoch", 0),
        ("save_every", -1),
        ("warmup_fraction", 0.6),
        ("oversample_foreground", 1.5),
        ("class_gradient", -0.1),
        ("selection_share", 0.6),
        ("selection_every", 0),
        ("pooling", "max"),
        ("head_optimizer", "sgd"),
        ("stages", []),
        ("stages", [1, 1]),
        ("stages", [True]),
        ("stages", [0.5]),
        ("stages", "all"),
    ],
)
def test_an_impossible_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name):
        TrainingSettings.from_json({name: value})


def test_the_class_weight_waits_then_ramps_then_stays() -> None:
    settings = TrainingSettings(num_epochs=100, warmup_fraction=0.1, class_loss_weight=0.2)
    weights = [settings.class_weight_at(epoch) for epoch in (0, 10, 15, 20, 99)]
    assert weights == pytest.approx([0, 0, 0.1, 0.2, 0.2])


def test_without_a_warm_up_the_class_weight_is_full_from_the_start() -> None:
    assert TrainingSettings(warmup_fraction=0, class_loss_weight=0.2).class_weight_at(0) == 0.2
