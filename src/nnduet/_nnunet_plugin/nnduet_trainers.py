"""The file that ``nnUNet_extTrainer`` points to: it only names the trainers for nnU-Net's look-up."""

from nnduet.training.trainer import nnUNetTrainer_multitask, nnUNetTrainerMultitask

__all__ = ["nnUNetTrainerMultitask", "nnUNetTrainer_multitask"]
