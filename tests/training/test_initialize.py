"""Random initialization, and class heads for other classes."""

import pytest
import torch

from detrcli.models.detr import Detr, DetrConfig
from detrcli.training.initialize import class_heads, initialize, with_classes

from .small import small_detr, small_lwdetr


@pytest.mark.parametrize("make", [small_detr, small_lwdetr])
def test_classes_of_the_same_name_keep_their_weights(make: type) -> None:
    old, new = ("a", "b", "c"), ("x", "C", " a ", "y")
    network = make(old).network
    result = with_classes(network, old, new)
    assert result.config.num_classes == 4
    for before, after in zip(class_heads(network), class_heads(result), strict=True):
        assert torch.equal(after.weight[1], before.weight[2])
        assert torch.equal(after.weight[2], before.weight[0])
        if isinstance(network, Detr):
            assert torch.equal(after.weight[4], before.weight[3])  # no-object
        else:
            assert len(after.weight) == 4
            assert after.bias[[0, 3]].sigmoid().tolist() == pytest.approx([0.01, 0.01])
    same = {name for name in network.state_dict() if "class_head" not in name}
    assert all(torch.equal(network.state_dict()[name], result.state_dict()[name]) for name in same)


def test_initial_scores_are_low() -> None:
    network = small_lwdetr().network.eval()
    with torch.inference_mode():
        predictions = network(torch.randn(1, 3, 128, 128))
    assert predictions.logits.sigmoid().mean().item() < 0.1
    assert torch.isfinite(predictions.boxes).all()


@pytest.mark.parametrize(
    "depths", [(3, 4, 6, 3), (3, 4, 23, 3)], ids=lambda value: getattr(value, "__name__", str(value))
)
def test_initial_resnet_features_have_a_moderate_scale(depths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = Detr(DetrConfig(3, depths=depths, encoder_layers=1, decoder_layers=1))
    initialize(network)
    with torch.inference_mode():
        features = network.backbone(torch.randn(2, 3, 64, 64))
    assert 0.3 < features.std() < 3
