"""Where a training begins: at its first epoch, or at a checkpoint; and what may differ from how it began."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nnduet.errors import OutputExistsError, ResumeError, SettingsError
from nnduet.model_store.folder_files import load_checkpoint
from nnduet.network.network import PLANS_KEY, has_regions
from nnduet.nnunet_types import Configuration, DatasetJson, Plans
from nnduet.training.checkpoints import FINAL, LATEST, PREVIOUS, find_checkpoint
from nnduet.training.ingredients import changed_settings
from nnduet.training.plan_checks import check_configuration
from nnduet.training.settings import TrainingSettings

__all__ = ["Start", "find_start"]

_CHANGEABLE = ("num_epochs", "learning_rate", "head_learning_rate")
"""Settings that a resumed training may take up: the schedule follows from them and the epoch alone."""


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Attributes:
        settings: of the training, as JSON.
        checkpoint: what it goes on from; None begins at the first epoch.
        reopens: whether that is a finished training, which is given further epochs.
        notes: what the user should know, for the log and the summary.
    """

    settings: dict[str, object]
    checkpoint: Path | None = None
    reopens: bool = False
    notes: tuple[str, ...] = ()


def find_start(
    fold: Path,
    plans: Plans,
    configuration: str,
    dataset_json: DatasetJson,
    *,
    epochs: int | None,
    resume: bool,
) -> Start:
    """Find out where the training of a fold begins.

    With ``resume`` and without ``epochs``, the number that it began with stays. Another number is a new schedule: from the
    next epoch on, the learning rates and the weight of the class loss are those of a training of that many epochs.

    Raises:
        SettingsError: impossible settings.
        OutputExistsError: a training is there and ``resume`` is False.
        ResumeError: it began with other settings, plans or tasks, or has as many epochs behind it as are asked for.
        ModelError, CorruptFileError: its checkpoint is damaged.
    """
    given = dict(plans.get(PLANS_KEY, {}).get("training", {}))
    wanted = TrainingSettings.from_json(given if epochs is None else {**given, "num_epochs": epochs})
    if not resume:
        _check_unbegun(fold)
        return Start(wanted.to_json())
    path = find_checkpoint(fold)
    if path is None:
        return Start(wanted.to_json(), notes=(f"{fold}: nothing to resume is there; the training begins at its first epoch",))
    checkpoint = load_checkpoint(path)
    before = checkpoint["init_args"].get("plans") if isinstance(checkpoint["init_args"], dict) else None
    if not isinstance(before, dict):
        raise ResumeError(f"{path}: expected the plans that the training began with, found none; move {fold} away")
    _check_same_network(path, before, plans, configuration, dataset_json)
    return _resumed(path, _settings_of(before), wanted, int(checkpoint.get("current_epoch", 0)), keeps_epochs=epochs is None)


def _check_unbegun(fold: Path) -> None:
    for name in (FINAL, LATEST, PREVIOUS):
        if (fold / name).is_file():
            help_here = f"add --resume to go on, or move {fold} away"
            raise OutputExistsError(f"{fold / name}: a training is there already; add --resume", remedy=help_here)


def _settings_of(plans: Plans) -> TrainingSettings:
    """Settings in a checkpoint; those that did not exist then have their defaults."""
    return TrainingSettings.from_json(plans.get(PLANS_KEY, {}).get("training", {}))


def _check_same_network(path: Path, before: Plans, plans: Plans, configuration: str, dataset_json: DatasetJson) -> None:
    ours = before.get(PLANS_KEY, {})
    now = {"tasks": dataset_json.get("classification", {}), "overlapping": has_regions(dataset_json["labels"])}
    other = {name: ours[name] for name in now if name in ours}
    changes = {
        "configurations": changed_settings(_configuration(before, configuration), _configuration(plans, configuration)),
        "tasks": changed_settings(other, {name: now[name] for name in other}),
    }
    for key, changed in changes.items():
        if changed:
            raise ResumeError(
                f"{path}: was trained with other {key!r} in its plans: {'; '.join(changed)}; resume with the same, or "
                "move it away"
            )


def _configuration(plans: Plans, configuration: str) -> Configuration:
    try:
        return check_configuration(plans, configuration)
    except SettingsError:
        return {}


def _resumed(path: Path, before: TrainingSettings, wanted: TrainingSettings, done: int, *, keeps_epochs: bool) -> Start:
    notes = []
    if keeps_epochs and before.num_epochs != wanted.num_epochs:
        notes.append(
            f"the training goes on to the {before.num_epochs} epochs that it began with, not to the {wanted.num_epochs} "
            "of the plans; --epochs changes that"
        )
        wanted = replace(wanted, num_epochs=before.num_epochs)
    old, new = before.to_json(), wanted.to_json()
    changed = [name for name in new if new[name] != old[name]]
    fixed = [name for name in changed if name not in _CHANGEABLE]
    if fixed:
        named = "; ".join(changed_settings({n: old[n] for n in fixed}, {n: new[n] for n in fixed}))
        raise ResumeError(f"{path}: was trained with other settings: {named}; resume with the same, or move it away")
    reopens = path.name == FINAL and "num_epochs" in changed
    if "num_epochs" in changed:
        _check_epochs(path, before, wanted.num_epochs, done, reopens=reopens)
    for name in changed:
        notes.append(f"from epoch {done + 1} on, {changed_settings({name: old[name]}, {name: new[name]})[0]}")
    if "num_epochs" in changed:
        notes.append("learning rates and the weight of the class loss follow the schedule of the new number of epochs")
    return Start(new, path, reopens, tuple(notes))


def _check_epochs(path: Path, before: TrainingSettings, epochs: int, done: int, *, reopens: bool) -> None:
    if epochs <= done:
        raise ResumeError(f"{path}: {done} of {before.num_epochs} epochs are done; --epochs expected more, got {epochs}")
    if reopens and before.selection_share > 0:
        raise ResumeError(
            f"{path}: holds the weights of a chosen epoch (selection_share), from which the training cannot be extended to "
            f"{epochs} epochs; train anew with them"
        )
