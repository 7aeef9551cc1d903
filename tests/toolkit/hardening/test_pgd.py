import torch

from mothkit.classifier import Classifier
from mothkit.pgd import PgdConfig, pgd_examples
from tests.backdoored import accuracy
from tests.tiny import tiny_images
from tests.tuned import harden

ATTACK = PgdConfig(eps=0.05, steps=5)


def withstands(classifier: Classifier) -> float:
    images = tiny_images(40, seed=11)
    x = images.pixels(torch.arange(len(images)))
    generator = torch.Generator().manual_seed(0)
    worst = pgd_examples(
        classifier, x, images.labels, ATTACK, generator=generator, device=torch.device("cpu")
    )
    with torch.no_grad():
        return float((classifier(worst).argmax(1) == images.labels).float().mean())


def test_training_on_attacked_images_withstands_the_attack_where_fine_tuning_does_not(
    backdoored: Classifier,
) -> None:
    settings = {"learning_rate": 0.05, "epochs": 8}
    attacked = harden("pgd", backdoored, attack=ATTACK, **settings).classifier
    tuned = harden("finetune", backdoored, **settings).classifier
    assert attacked is not None and tuned is not None
    assert withstands(attacked) > withstands(tuned) + 0.1
    assert accuracy(attacked) > 0.9
