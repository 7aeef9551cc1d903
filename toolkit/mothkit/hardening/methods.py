"""Every hardening method by its name: what it is, what it costs, what it needs, where it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mothkit.errors import ConfigError
from mothkit.hardening.anp import AnpConfig, prune_adversarially
from mothkit.hardening.base import Defence
from mothkit.hardening.fine_pruning import FinePruningConfig, prune_and_tune
from mothkit.hardening.finetune import FinetuneConfig, finetune
from mothkit.hardening.ft_sam import FtSamConfig, tune_flat
from mothkit.hardening.ibau import IbauConfig, unlearn_implicitly
from mothkit.hardening.moth import Moth
from mothkit.hardening.nad import NadConfig, distil_attention
from mothkit.hardening.nc import NcConfig, unlearn
from mothkit.hardening.pairwise import Pairwise
from mothkit.hardening.pgd import AdversarialConfig, tune_adversarially
from mothkit.hardening.profiles import DEFAULT
from mothkit.hardening.sau import SauConfig, unlearn_shared
from mothkit.hardening.tuning import Method
from mothkit.hardening.uap import UapConfig, tune_universally
from mothkit.hardening.universal import Universal
from mothkit.settings import known_settings, with_settings


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A method that can be asked for by name.

    Attributes:
        config: its config with published numbers.
        make: the method for a config.
        does: what it does, in a line.
        costs: passes through the network, forward and back, for each image and epoch or step.
        needs: what the model must have, beside images of each class.
        reference: where it comes from.
        profiles: whether MOTH's profiles are its own, and not only the config here.
        resumes: whether it keeps a checkpoint from which an interrupted run goes on.
    """

    config: Any
    make: Callable[[Any], Defence]
    does: str
    costs: str
    needs: str
    reference: str
    profiles: bool = False
    resumes: bool = False


METHODS: Mapping[str, Entry] = {
    "moth": Entry(
        DEFAULT,
        Moth,
        "hardens pairs of classes against the smallest triggers between them",
        "an inversion of 20 steps for every 5 training steps",
        "nothing more",
        "Tao et al., Model Orthogonalization, IEEE S&P 2022",
        profiles=True,
        resumes=True,
    ),
    "pairwise": Entry(
        DEFAULT,
        Pairwise,
        "as moth, but every round takes all pairs",
        "an inversion of 20 steps of every pair for every 5 training steps",
        "memory for all pairs of classes at once",
        "Tao et al., Model Orthogonalization, IEEE S&P 2022",
        profiles=True,
        resumes=True,
    ),
    "universal": Entry(
        DEFAULT,
        Universal,
        "as moth, but with one trigger a class, on images of all others",
        "an inversion of 20 steps a class for every 5 training steps",
        "nothing more",
        "Tao et al., Model Orthogonalization, IEEE S&P 2022",
        profiles=True,
        resumes=True,
    ),
    "finetune": Entry(
        FinetuneConfig(),
        lambda config: Method(config, finetune),
        "trains on with true labels",
        "1 pass",
        "nothing more",
        "BackdoorBench, ft",
        resumes=True,
    ),
    "nc": Entry(
        NcConfig(),
        lambda config: Method(config, unlearn),
        "finds the class with an outlier for a trigger, and unlearns that trigger; else changes nothing",
        "80 passes a class for the triggers, then 1",
        "three classes at least, better ten",
        "Wang et al., Neural Cleanse, IEEE S&P 2019",
        resumes=True,
    ),
    "nad": Entry(
        NadConfig(),
        lambda config: Method(config, distil_attention),
        "learns where its own fine-tuned copy looks",
        "1 pass for the teacher, then 1 and the teacher's forward",
        "maps of features",
        "Li et al., Neural Attention Distillation, ICLR 2021",
        resumes=True,
    ),
    "fine-pruning": Entry(
        FinePruningConfig(),
        lambda config: Method(config, prune_and_tune),
        "takes out the last features that clean images use least, then trains on",
        "1 pass",
        "a last layer with a matrix",
        "Liu et al., Fine-Pruning, RAID 2018",
        resumes=True,
    ),
    "anp": Entry(
        AnpConfig(),
        lambda config: Method(config, prune_adversarially),
        "takes out channels that small changes of their weights turn against the labels",
        "3 passes for each of 2000 batches",
        "convolutions or batch normalisation",
        "Wu and Wang, Adversarial Neuron Pruning, NeurIPS 2021",
    ),
    "ft-sam": Entry(
        FtSamConfig(),
        lambda config: Method(config, tune_flat),
        "trains on to weights whose whole surroundings do well",
        "2 passes",
        "nothing more",
        "Zhu et al., FT-SAM, ICCV 2023",
        resumes=True,
    ),
    "ibau": Entry(
        IbauConfig(),
        lambda config: Method(config, unlearn_implicitly),
        "trains against one perturbation that turns many images, and against where it would move",
        "about 10 passes, for 5 epochs",
        "second derivatives of its operators",
        "Zeng et al., I-BAU, ICLR 2022",
    ),
    "uap": Entry(
        UapConfig(),
        lambda config: Method(config, tune_universally),
        "trains against one small perturbation of all images",
        "1 pass",
        "nothing more",
        "Shafahi et al., Universal Adversarial Training, AAAI 2020",
    ),
    "pgd": Entry(
        AdversarialConfig(),
        lambda config: Method(config, tune_adversarially),
        "trains on images attacked within a small bound",
        "8 passes",
        "nothing more",
        "Madry et al., adversarial training, ICLR 2018",
        resumes=True,
    ),
    "sau": Entry(
        SauConfig(),
        lambda config: Method(config, unlearn_shared),
        "trains away from what fools the model and its original alike",
        "13 passes",
        "nothing more",
        "Wei et al., Shared Adversarial Unlearning, NeurIPS 2023",
        resumes=True,
    ),
}


def entry_of(name: str) -> Entry:
    """Return the method called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        raise ConfigError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def configured(name: str, settings: Mapping[str, str], base: object | None = None) -> Any:  # noqa: ANN401 - its own
    """Return the config of the method called ``name``, its fields replaced by the texts in ``settings``.

    Args:
        name: the method's.
        settings: texts by field, as for ``with_settings``.
        base: a config to start from; the published one unless given.

    Raises:
        ConfigError: there is no such method or field, or a value is out of its range.
    """
    return with_settings(base or entry_of(name).config, settings)


def described(entry: Entry) -> dict[str, Any]:
    """Return what is known of a method, as plain JSON types."""
    told = {name: getattr(entry, name) for name in ("does", "costs", "needs", "reference", "resumes")}
    return told | {"settings": dict(known_settings(entry.config))}
