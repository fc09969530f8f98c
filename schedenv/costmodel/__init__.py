"""Cost models: how fast a point is, predicted from measurements of others."""

from schedenv.costmodel.data import TaskData, TrainingData
from schedenv.costmodel.metrics import Quality, judge, judge_scores, mean_quality
from schedenv.costmodel.model import CostModel, ModelInfo
from schedenv.costmodel.saved import KINDS, load_model, make_model
from schedenv.costmodel.token_model import TokenModel
from schedenv.costmodel.trees import TreeModel

__all__ = [
    "KINDS",
    "CostModel",
    "ModelInfo",
    "Quality",
    "TaskData",
    "TokenModel",
    "TrainingData",
    "TreeModel",
    "judge",
    "judge_scores",
    "load_model",
    "make_model",
    "mean_quality",
]
