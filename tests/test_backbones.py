"""Networks of seven families: loaded strictly, cut, divided into stages, and measured as the head sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import weights_origin
from bench.backbones import build_features, feature_width, flops_of, normalisation, stages
from bench.contract import Backbone
from bench.errors import UsageError, WeightsError

FAMILIES = {
    "resnet10t": (512, {}),
    "densenet121": (128, {"block_config": [2, 2, 2, 2]}),
    "vgg11_bn": (4096, {"mlp_ratio": 0.01}),
    "tf_efficientnet_lite0": (1280, {}),
    "mobilenetv2_035": (1280, {}),
    "mobilenetv3_small_050": (1024, {}),
    "regnetx_002": (368, {}),
    "convnext_atto": (320, {}),
}
"""Network -> width of its pooled features, and what makes the large ones small."""
SHARED_WEIGHTS = {
    "mobilenetv2_100": Backbone("mobilenetv2_100", "file:mobilenetv2_100.onnxzoo_in1k.safetensors"),
    "mobilenetv2_035": Backbone(
        "mobilenetv2_035", "file:mobilenetv2_035.keras_in1k.safetensors", kwargs={"pad_type": "same", "bn_eps": 1e-3}
    ),
    "resnet18[:3]": Backbone("resnet18", "file:resnet18_stages1-3.tv_in1k.safetensors", cut=3),
}


def random(model: str, cut: int | None = None, **kwargs: object) -> Backbone:
    return Backbone(model, "random", cut, kwargs=kwargs)


def parameters(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]


def images(size: int = 64, n: int = 2) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def embed(network: nn.Module, batch: Tensor) -> Tensor:
    return network.eval()(batch)


def same(a: nn.Module, b: nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.fixture
def saved(tmp_path: Path):
    """A state dict as a weights file of this test."""

    def save(state: dict[str, Tensor], name: str = "net.safetensors") -> str:
        if name.endswith(".safetensors"):
            save_file(state, tmp_path / name)
        else:
            torch.save(state, tmp_path / name)
        return f"file:{tmp_path / name}"

    return save


@pytest.fixture
def resnet() -> nn.Module:
    """A small network with its classifier, as it is published."""
    return timm.create_model("test_resnet")


@pytest.mark.parametrize("model", FAMILIES)
def test_stages_and_cuts_of_a_family(model: str) -> None:
    width, kwargs = FAMILIES[model]
    network = build_features(random(model, **kwargs), 0)
    features = embed(network, images())
    assert features.shape == (2, width)
    assert features.dtype == torch.float32
    assert feature_width(network) == width

    found = stages(network)
    assert len(found) == 5
    assert [name for stage in found for name in stage] == parameters(network), "each parameter once, in order"
    assert parameters(network)[0] in found[0]

    for cut in range(1, 5):
        part = build_features(random(model, cut, **kwargs), 0)
        assert parameters(part) == [name for stage in found[: cut + 1] for name in stage]
        assert stages(part) == found[: cut + 1]
        assert embed(part, images()).shape == (2, feature_width(part))
        if cut == 3:
            own = {name: value for name, value in network.state_dict().items() if name in part.state_dict()}
            assert own.keys() == part.state_dict().keys()
            assert all(torch.equal(value, part.state_dict()[name]) for name, value in own.items())


def test_vgg_is_divided_by_its_max_pools() -> None:
    network = build_features(random("vgg11_bn", **FAMILIES["vgg11_bn"][1]), 0)
    convolutions = [
        [name.removesuffix(".weight") for name in stage if network.get_parameter(name).ndim == 4]
        for stage in stages(network)
    ]
    assert convolutions == [
        ["features.0", "features.4"],
        ["features.8", "features.11"],
        ["features.15", "features.18"],
        ["features.22", "features.25"],
        ["pre_logits.fc1", "pre_logits.fc2"],
    ]


def test_a_cut_network_is_the_whole_one_up_to_there() -> None:
    whole = build_features(random("resnet10t"), 0).eval()
    with torch.inference_mode():
        maps = images()
        for part in (whole.conv1, whole.bn1, whole.act1, whole.maxpool, whole.layer1, whole.layer2, whole.layer3):
            maps = part(maps)
    cut = build_features(random("resnet10t", 3), 0)
    torch.testing.assert_close(embed(cut, images()), maps.mean((2, 3)), rtol=1e-6, atol=1e-7)
    assert same(build_features(random("resnet10t", 4), 0), whole), "a cut after the last stage cuts nothing"


@pytest.mark.parametrize(("cut", "reason"), [(0, "1 to 4"), (5, "1 to 4")])
def test_cut_out_of_range_names_the_range(cut: int, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        build_features(random("resnet10t", cut), 0)


def test_a_network_that_timm_cannot_cut_says_so() -> None:
    with pytest.raises(UsageError, match="cannot cut this network there"):
        build_features(random("legacy_xception", 2), 0)


def test_random_weights_come_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (build_features(random("test_resnet"), seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state()), "global random numbers are left as they were"
    assert first is not again
    assert same(first, again)
    assert not torch.equal(first.conv1[0].weight, other.conv1[0].weight)


def test_measuring_leaves_the_network_as_it_was() -> None:
    network = build_features(random("resnet10t"), 0).train()
    network.bn1.eval()  # a frozen layer
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    assert feature_width(network) == 512
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_flops_are_two_a_multiply_accumulate() -> None:
    # 1.814 G multiply-accumulates at 224 px (He et al. 2016, table 1: 1.8 x 10^9), less 512,000 in the classifier.
    assert flops_of(random("resnet18"), 224) == 2 * (1_814_073_344 - 512_000)


def test_a_network_without_pooled_features_is_refused() -> None:
    network = build_features(random("test_resnet", global_pool=""), 0)
    with pytest.raises(UsageError, match="pooled features"):
        feature_width(network)


def test_cifar_stem_is_the_official_medmnist_resnet18() -> None:
    network = build_features(Backbone("resnet18", "random", stem="cifar"), 0)
    # The reference ResNet-18 for CIFAR has 11,173,962 parameters, of which 512 x 10 + 10 are in its classifier.
    assert sum(p.numel() for p in network.parameters()) == 11_173_962 - 5_130
    shapes: list[torch.Size] = []
    network.layer1.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    assert embed(network, images(28)).shape == (2, 512)
    assert shapes == [(2, 64, 28, 28)], "nothing is halved before the second stage"
    assert stages(network)[0] == ["conv1.weight", "bn1.weight", "bn1.bias"]


def test_cifar_stem_is_for_resnets_without_pretrained_weights(saved, resnet: nn.Module) -> None:
    with pytest.raises(UsageError, match="is for ResNets"):
        build_features(Backbone("mobilenetv2_035", "random", stem="cifar"), 0)
    pretrained = Backbone("test_resnet", saved(resnet.state_dict()), stem="cifar")
    with pytest.raises(WeightsError, match="do not fit a cifar stem"):
        build_features(pretrained, 0)
    assert feature_width(build_features(pretrained, 0, pretrained=False)) > 0


@pytest.mark.parametrize("name", SHARED_WEIGHTS)
def test_real_weights_load_strictly(shared: Path, name: str) -> None:
    given = SHARED_WEIGHTS[name]
    path = shared / "weights" / given.weights.removeprefix("file:")
    backbone = Backbone(given.model, f"file:{path}", given.cut, kwargs=given.kwargs)
    network = build_features(backbone, 0)
    assert same(network, build_features(backbone, 1)), "the seed has no influence"
    if given.cut:
        reference = timm.create_model("resnet18", num_classes=0)
        reference.layer4 = nn.Identity()
    else:
        reference = timm.create_model(given.model, num_classes=0, **given.kwargs)
    reference.load_state_dict(timm.models.load_state_dict(path), strict=True)
    features = embed(network, images())
    assert torch.equal(features, embed(reference, images()))
    assert features.shape[1] == (256 if given.cut else 1280)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net.pt"])
def test_files_with_and_without_classifier(saved, resnet: nn.Module, name: str) -> None:
    state = resnet.state_dict()
    with_classifier = build_features(Backbone("test_resnet", saved(state, name)), 0)
    without = {key: value for key, value in state.items() if not key.startswith("fc.")}
    assert same(with_classifier, build_features(Backbone("test_resnet", saved(without, name)), 0))
    assert all(torch.equal(value, without[key]) for key, value in with_classifier.state_dict().items())


def test_a_cut_takes_files_of_the_whole_and_of_the_cut_network(saved, resnet: nn.Module) -> None:
    part = build_features(Backbone("test_resnet", saved(resnet.state_dict()), cut=2), 0)
    again = build_features(Backbone("test_resnet", saved(part.state_dict(), "cut.safetensors"), cut=2), 0)
    assert same(part, again)
    assert torch.equal(part.state_dict()["conv1.0.weight"], resnet.state_dict()["conv1.0.weight"])
    with pytest.raises(WeightsError, match=r"missing \(layer3"):
        build_features(Backbone("test_resnet", saved(part.state_dict(), "cut.safetensors")), 0)


def test_a_file_with_the_names_of_torchvision_is_converted(saved) -> None:
    kwargs = FAMILIES["densenet121"][1]
    network = timm.create_model("densenet121", **kwargs)
    theirs = {
        name.replace(".norm1.", ".norm.1.").replace(".conv1.", ".conv.1.").replace(".norm2.", ".norm.2."): value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    found = build_features(Backbone("densenet121", saved(theirs), kwargs=kwargs), 0).state_dict()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in found.items())


def test_a_file_that_does_not_fit_is_named_with_its_tensors(saved, resnet: nn.Module) -> None:
    state = resnet.state_dict()
    state["conv1.0.weight"] = torch.zeros(4, 3, 3, 3)
    state["strange.weight"] = torch.zeros(1)
    del state["bn1.weight"]
    with pytest.raises(WeightsError) as caught:
        build_features(Backbone("test_resnet", saved(state)), 0)
    message = str(caught.value)
    assert "1 missing (bn1.weight)" in message
    assert "1 unexpected (strange.weight)" in message
    assert "conv1.0.weight [4, 3, 3, 3] in the file, [16, 3, 3, 3] in the network" in message
    assert "net.safetensors" in message


def test_the_head_of_another_network_is_not_dropped(saved, resnet: nn.Module) -> None:
    state = {name: value for name, value in resnet.state_dict().items() if not name.startswith("fc.")}
    with pytest.raises(WeightsError, match=r"1 unexpected \(classifier.weight\)"):
        build_features(Backbone("test_resnet", saved(state | {"classifier.weight": torch.zeros(10, 160)})), 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, resnet: nn.Module, value: float) -> None:
    state = resnet.state_dict()
    state["layer1.0.bn1.running_var"][0] = value
    with pytest.raises(WeightsError, match=r"layer1\.0\.bn1\.running_var holds NaN or infinite"):
        build_features(Backbone("test_resnet", saved(state)), 0)


def test_bundled_weights(saved, resnet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(resnet.state_dict(), "tiny.safetensors")
    digest = weights_origin.resolve(Backbone("test_resnet", f"file:{tmp_path / 'tiny.safetensors'}")).hash
    saved({"weight": torch.ones(3, 96).half(), "bias": torch.zeros(3).half()}, "head.safetensors")
    head = weights_origin.resolve(Backbone("test_resnet", f"file:{tmp_path / 'head.safetensors'}")).hash
    files = {"file": "tiny.safetensors", "sha256": digest, "head": "head.safetensors", "head_sha256": head}
    entry = weights_origin.Bundled(**files, model="test_resnet", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    monkeypatch.setattr(weights_origin, "FOLDER", tmp_path)
    monkeypatch.setitem(weights_origin.BUNDLED, "tiny", entry)
    for model in ("bundled:tiny", "test_resnet"):
        network = build_features(Backbone(model, "bundled:tiny"), 0)
        assert torch.equal(network.state_dict()["conv1.0.weight"], resnet.state_dict()["conv1.0.weight"])
    for weights in ("bundled:tiny", "random"):
        mean, std = normalisation(Backbone("bundled:tiny", weights))
        assert mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert std.tolist() == pytest.approx([0.4, 0.5, 0.6])
    same = build_features(Backbone("bundled:tiny", "random"), 0).state_dict()
    assert same.keys() == network.state_dict().keys()
    assert not torch.equal(same["conv1.0.weight"], resnet.state_dict()["conv1.0.weight"])
    source = weights_origin.source_head(Backbone("bundled:tiny", "bundled:tiny"))
    assert source is not None
    assert source["weight"].dtype == torch.float32
    assert weights_origin.source_head(Backbone("bundled:tiny", "bundled:tiny", cut=1)) is None
    assert weights_origin.source_head(Backbone("bundled:tiny", "random")) is None
    (tmp_path / "head.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsError, match="missing or damaged"):
        weights_origin.source_head(Backbone("bundled:tiny", "bundled:tiny"))


def test_normalisation_is_the_networks_own_unless_given() -> None:
    imagenet = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    half = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
    for backbone, expected in (
        (Backbone("resnet18.tv_in1k"), imagenet),
        (Backbone("tf_efficientnet_lite0"), half),
        (Backbone("resnet18.tv_in1k", mean=(0.5,) * 3, std=(0.5,) * 3), half),
    ):
        for found, values in zip(normalisation(backbone), expected, strict=True):
            torch.testing.assert_close(found, torch.tensor(values))


def test_arguments_of_the_network() -> None:
    with pytest.raises(UsageError, match="bn_epsilon"):
        build_features(random("test_resnet", bn_epsilon=1e-3), 0)
    with pytest.raises(UsageError, match="kwargs cannot hold num_classes"):
        build_features(random("test_resnet", num_classes=10), 0)
