"""From checked plans to the network that they describe, never larger than the weights that are there for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnduet.case_head.feature_layout import FeatureLayout
from nnduet.errors import ModelError, NNDuetError
from nnduet.model_store.plans import check_configuration
from nnduet.network.heads import JointNetwork
from nnduet.network.network import build_joint_network
from nnduet.nnunet_types import ConfigurationManager, DatasetJson, LabelManager, Plans

__all__ = ["layout_of", "naming_the_model", "network_for", "read_configuration"]


def read_configuration(
    plans: Plans, name: str, dataset_json: DatasetJson, place: Path
) -> tuple[PlansManager, ConfigurationManager]:
    """nnU-Net's managers of checked plans and of one configuration in them, which is checked here.

    Raises:
        ModelError: there is no such configuration, or an entry of it is missing or impossible.
    """
    if name not in plans["configurations"]:
        raise ModelError(f"{place / 'plans.json'}: expected configuration {name!r} among {sorted(plans['configurations'])}")
    with naming_the_model(place):
        manager = PlansManager(plans)
        configuration = manager.get_configuration(name)
    where = f"{place / 'plans.json'}: configuration {name!r}"
    check_configuration(configuration.configuration, len(dataset_json["channel_names"]), where)
    return manager, configuration


def network_for(
    manager: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: DatasetJson,
    weights: Mapping[str, torch.Tensor],
    source: Path,
    *,
    optional: tuple[str, ...] = ("inner_heads.",),
) -> JointNetwork:
    """The network that the plans describe, for weights that are loaded next.

    It is first drawn up without memory and compared with the weights, so that plans cannot ask for more than these have.

    Args:
        source: what messages call the weights.
        optional: how the names of weights begin that may be absent.

    Raises:
        ModelError: the weights do not fit; and as :func:`build_joint_network`.
    """
    with torch.device("meta"):
        sketch = _build(manager, configuration, dataset_json).state_dict()
    missing = [name for name in sketch if name not in weights and not name.startswith(optional)]
    other = [name for name in sketch if name in weights and sketch[name].shape != weights[name].shape]
    if missing or other:
        found = f"missing weights: {missing[:5]}, other shapes: {other[:5]}; were plans.json or dataset.json edited?"
        raise ModelError(f"{source}: the weights do not fit the plans: {found}")
    return _build(manager, configuration, dataset_json)


def _build(manager: PlansManager, configuration: ConfigurationManager, dataset_json: DatasetJson) -> JointNetwork:
    network = build_joint_network(
        manager,
        configuration,
        determine_num_input_channels(manager, configuration, dataset_json),
        manager.get_label_manager(dataset_json).num_segmentation_heads,
        deep_supervision=False,
        initialize=False,
    )
    assert isinstance(network, JointNetwork)
    return network


def layout_of(network: JointNetwork, label_manager: LabelManager, dataset_json: DatasetJson) -> FeatureLayout:
    """Where the features of a case stand, from the network's blocks, the foreground regions and the covariates."""
    regions = label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels
    return FeatureLayout.of(
        network, [str(r) for r in regions], len(dataset_json["channel_names"]), dataset_json.get("covariates", [])
    )


@contextmanager
def naming_the_model(place: Path) -> Iterator[None]:
    """nnU-Net trusts plans and dataset.json; what it stumbles over in them is a fault of the model."""
    try:
        yield
    except NNDuetError:
        raise
    except Exception as error:
        raise ModelError(f"{place}: its plans.json and dataset.json describe no model: {error!r}") from error
