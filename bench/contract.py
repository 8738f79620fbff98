"""What a plug-in sees: the types shared by the harness, `strategies/` and `datasets/`.

A plug-in imports from `bench` and libraries only; `bench` never imports a plug-in by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import optuna

    from bench.images import Images
    from bench.run import Run

Kind = Literal["binary", "multi-class", "multi-label", "ordinal"]
KINDS: tuple[Kind, ...] = ("binary", "multi-class", "multi-label", "ordinal")
SPLITS = ("train", "val", "test")

Hparams = dict[str, Any]
"""Hyperparameters of one trial: JSON values only."""

Predictor = Callable[[Tensor], Tensor]
"""Raw uint8 images [N, C, H, W] on the run's device -> logits float32 [N, K]. K is the number of classes for every kind
(two for binary): softmax gives probabilities, except for multi-label, where a sigmoid does. A `bench.prediction.
Prediction` says more: its features, and how images of either domain are predicted."""


@dataclass(frozen=True)
class Info:
    """What is known of a dataset before its images are read."""

    name: str
    kind: Kind
    classes: tuple[str, ...]
    """Class (or label) names in the order of the label values."""
    channels: int
    """1 (gray) or 3 (RGB)."""
    modality: str = "unknown"
    """histology | dermatoscopy | x-ray | ct | fundus | oct | ultrasound | microscopy | unknown: picks an augmentation
    policy."""
    licence: str = "unknown"
    noncommercial: bool = False
    citation: str = ""
    source: str = ""
    """Where the images come from: an URL, a path or "drawn by medtransfer"."""
    target: str = ""
    """Of a shift dataset (`source->target`): the domain that test is of. Train and val are the source's."""


@dataclass(frozen=True, eq=False)
class Split:
    """One split in MedMNIST's own layout; images may be a read-only memory map."""

    images: np.ndarray
    """uint8 [N, H, W] (gray) or [N, H, W, 3]."""
    labels: np.ndarray
    """int64 [N], or for multi-label uint8 [N, K] of 0 and 1."""
    ids: np.ndarray
    """str [N], unique in the dataset: predictions of different runs are joined on them."""

    def __len__(self) -> int:
        return len(self.images)


class Dataset(ABC):
    """A source of labelled images. A file in `datasets/` offers `names() -> list[str]` (fixed names, may be empty),
    `PREFIX` (such as "npz:" for names with a path after it, or "") and
    `open_dataset(name, root, seed, source_size) -> Dataset`."""

    info: Info
    notes: tuple[str, ...] = ()
    """What a user should know, such as how a split was made; printed and recorded."""
    source: Dataset | None = None
    """Of a shift dataset: the labelled domain, with the shift's labels. Its train and val are the shift's."""
    target: Dataset | None = None
    """Of a shift dataset: the domain to adapt to, with the shift's labels. Its test is the shift's; strategies see its
    train without labels."""

    @abstractmethod
    def load(self, split: str, size: int) -> Split:
        """The images of "train", "val" or "test", at `size` pixels where the source has them, else as it has them: the
        harness resizes on the device. The array is the harness's to compute on: of one that outlives the dataset give a
        copy, or set its `flags.writeable` to False. Raises DataError."""

    @abstractmethod
    def content_hash(self, size: int) -> str:
        """sha256 (hex) of all that determines what `load(.., size)` gives, the split included."""

    def count(self, split: str) -> int:
        """Images in a split, for the estimate of time. To be overridden where the source says so without being read."""
        return len(self.load(split, 28))

    def train_labels(self) -> np.ndarray | None:
        """The labels of train, where they are known before any image is read; else None."""
        return None

    def source_size(self, size: int) -> int:
        """The side in pixels of the images that `load(.., size)` gives (28 where 28-pixel images are to be
        enlarged)."""
        return size

    def stored_size(self) -> int | None:
        """The side in pixels of the images that the source has, the largest where it has several sizes and about the
        usual one where images differ; None where it has no size of its own. Raises DataError."""
        return None

    def notes_beside(self, other: Info) -> tuple[str, ...]:
        """What a user should know where this dataset and `other` are the two domains of a shift."""
        return ()


@dataclass(frozen=True, eq=False)
class Task:
    """A dataset at a size and a training fraction, as a strategy sees it. There is no test split here: what a strategy
    cannot reach it cannot leak."""

    info: Info
    size: int
    """Side in pixels at which networks see the images."""
    train: Images
    val: Images
    second: Images | None = None
    """Images of a second domain, for strategies that want one: in a shift task the target's training images, else
    natural images. Their labels are all 0: they are not known."""

    @property
    def shift(self) -> bool:
        """Whether the test images are of the second domain."""
        return bool(self.info.target)

    @property
    def outputs(self) -> int:
        """K, the width of the logits."""
        return len(self.info.classes)


@dataclass(frozen=True)
class Backbone:
    """A timm network and where its weights come from, as the matrix file gives it."""

    model: str
    """timm name, with a tag where the hub gives the weights (`resnet18.a1_in1k`); or `bundled:NAME`, the network that
    these weights are for."""
    weights: str = "hub"
    """"hub", "random", "file:PATH" or "bundled:NAME"."""
    cut: int | None = None
    """Keep stages 1..cut only (written `resnet18[:3]`)."""
    stem: str = ""
    """"" or "cifar": a 3x3 stride-1 first convolution and no max-pool, for small images (ResNets)."""
    kwargs: Mapping[str, Any] = field(
        default_factory=dict, hash=False
    )  # a dict has no hash; equality still compares it
    """Further arguments of `timm.create_model`."""
    mean: tuple[float, ...] | None = None
    """Normalisation where the network's own configuration is not the weights'."""
    std: tuple[float, ...] | None = None
    name: str = ""
    """Shown instead of the label below: tells two weights files of one model apart."""

    @property
    def label(self) -> str:
        """The name shown everywhere, unique for what it stands for: `resnet18[:3]`, `resnet18+cifar random`."""
        if self.name:
            return self.name
        model = self.weights if self.weights.startswith("bundled:") else self.model
        text = model + (f"[:{self.cut}]" if self.cut else "") + (f"+{self.stem}" if self.stem else "")
        return f"{text} random" if self.weights == "random" else text


@dataclass(frozen=True)
class Protocol:
    """The training recipe that every strategy of a matrix shares; part of each cell's fingerprint."""

    epochs: int = 10
    trials: int = 4
    """Sets of hyperparameters tried per cell; 1 means the strategy's defaults, untuned."""
    batch_size: int = 64
    optimizer: str = "adamw"
    """"adamw", "adam" or "sgd" (Nesterov momentum 0.9)."""
    schedule: str = "cosine"
    """"cosine" to 0, "step" (x0.1 at 50 % and 75 %, as MedMNIST) or "constant"."""
    weight_decay: float = 0.01
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises linearly from 0."""
    label_smoothing: float = 0.0
    clip: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    patience: int = 0
    """Epochs without a better val AUC before a fit stops; 0 never stops early."""
    tolerance: float = 1.0
    """Standard errors of the val AUC within which the lower val loss decides, among epochs and trials; 0: AUC alone."""
    prune: bool = True
    """End hopeless trials early."""
    resize: str = "bilinear"
    """"bilinear" or "nearest"."""
    selection: str = "source_val"
    """Of shift tasks: what the best trial is chosen by, a name of bench.selection.SELECTIONS."""
    views: int = 0
    """Views of each val and test image that every final fit predicts besides the image itself: test-time augmentation,
    to be fused."""


class Strategy(ABC):
    """A way to turn a backbone into a classifier for a task. Stateless: everything it knows comes in through the
    arguments.

    The class docstring states the paper, what differs from it, and the cost; its first line is shown by `medtransfer
    list`.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    """feature extraction | fine-tuning | partial freezing | augmentation | ensemble | domain adaptation | baseline |
    ..."""
    paper: ClassVar[str] = ""
    pretrained: ClassVar[bool] = True
    """False where the strategy starts from random weights whatever the backbone's are."""
    second_domain: ClassVar[bool] = False
    """True where the strategy uses `task.second`."""
    transductive: ClassVar[bool] = False
    """True where the predictor adapts to the unlabelled test images themselves, which others do not see: marked
    wherever its scores are shown."""
    frozen: ClassVar[bool] = False
    """True where the backbone never changes, so that one forward pass over the images is all that it costs."""

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        """None, or the reason why this cell is skipped. Asked when planning, before any image is read."""
        return None

    @abstractmethod
    def space(self, trial: optuna.Trial) -> Hparams:
        """Hyperparameters for one trial; for a strategy that descends by gradients a float `lr` among them (on a log
        scale, in the strategy's own range)."""

    @abstractmethod
    def defaults(self) -> Hparams:
        """The hyperparameters of the first trial: values that `space` could give."""

    def check_settings(self, settings: Mapping[str, Any]) -> None:  # noqa: B027 (a strategy need not refuse anything)
        """Raise UsageError where the matrix file gives a hyperparameter a value that it cannot have. Asked when
        planning; that names are hyperparameters and numbers are numbers is known by then."""

    @abstractmethod
    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        """Train on task.train, select on task.val, and return the predictor. Raises Diverged."""

    fit_many: ClassVar[Callable[..., Sequence[Predictor]] | None] = None
    """Optional: `fit_many(self, task, hparams: list, seeds: list, run) -> list[Predictor]`, for strategies whose
    trials and seeds can share the work; entry i is what `fit` would give for hparams[i] and seeds[i]."""


@dataclass(frozen=True, eq=False)
class Fused:
    """What a fusion learned of its members on val."""

    combine: Callable[[np.ndarray], np.ndarray]
    """The members' probabilities float64 [M, N, K] of any images -> the ensemble's, float64 [N, K]. An image's depend
    on that image alone."""
    weights: np.ndarray
    """float64 [M]: each member's share, at least 0; they sum to 1."""
    val: np.ndarray | None = None
    """The ensemble's probabilities of the val images [N, K] by parts of it that did not see their labels, where it has
    such; None: `combine` of the members' val probabilities."""


class Fusion(ABC):
    """A way to make one classifier of several networks' predictions: an ensemble, which trains no network. Stateless.
    Lives in `strategies/` and is named among the strategies of a matrix.

    The class docstring states the paper and what differs from it; its first line is shown by `medtransfer list`.
    """

    name: ClassVar[str]
    family: ClassVar[str] = "ensemble"
    paper: ClassVar[str] = ""
    uses_val: ClassVar[bool] = True
    """False where it looks at nothing but the members' predictions of the image in question, so that members without
    predictions of val will do."""

    def applies(self, labels: np.ndarray, kind: Kind) -> str | None:
        """None, or the reason why it cannot be fitted on val with these labels (int [N], multi-label 0/1 [N, K])."""
        return None

    @abstractmethod
    def fit(self, probs: np.ndarray, labels: np.ndarray, kind: Kind) -> Fused:
        """From the members' val probabilities float64 [M, N, K] (rows sum to 1; multi-label: each label's own) and the
        val labels int [N] (multi-label: 0/1 [N, K]). Without `uses_val` both may be empty (N = 0). The order of the
        members must not matter."""
