"""Write convolutional networks with random weights, and inputs, for `speed.py`.

    python networks.py --out MODELS [--only NAME ...]

Networks of torchvision and timm at small image sizes, and small ones of its own as they run on devices: for digits,
keywords, detection, segmentation. Batch norms have the statistics of random inputs. Needs torch, torchvision and timm; the
accuracy of what is made of them means nothing, their speed does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch import nn

BATCH, SAMPLES = 4, 8
#: Name in torchvision or timm and side of the image.
TORCHVISION = (
    ("mobilenet_v2", 32), ("mobilenet_v2", 64), ("mobilenet_v2", 96), ("mobilenet_v2", 224), ("mobilenet_v3_small", 64),
    ("mobilenet_v3_small", 224), ("mobilenet_v3_large", 128), ("shufflenet_v2_x0_5", 128), ("squeezenet1_1", 128),
    ("efficientnet_b0", 128), ("mnasnet0_5", 128), ("regnet_y_400mf", 96), ("densenet121", 64), ("resnet18", 64),
    ("resnet18", 128), ("googlenet", 96),
)  # fmt: skip
TIMM = (
    ("ghostnet_050", 128), ("lcnet_050", 128), ("tinynet_e", 106), ("mobileone_s0", 96), ("repvgg_a0", 64),
    ("resnet10t", 96), ("hardcorenas_a", 128), ("efficientvit_b0", 96), ("mobilenetv4_conv_small_050", 128),
    ("edgenext_xx_small", 64), ("convnext_atto", 64), ("fbnetc_100", 96), ("mixnet_s", 96),
)  # fmt: skip
Activation = Callable[[], nn.Module]


def convolution(inputs: int, outputs: int, kernel: int = 3, step: int = 1, groups: int = 1, act: Activation = nn.ReLU) -> nn.Sequential:
    """A convolution, a batch norm and an activation."""
    layer = nn.Conv2d(inputs, outputs, kernel, step, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), act())


def head(channels: int, classes: int = 10) -> list[nn.Module]:
    """From features to scores."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def plain(widths: tuple[int, ...], act: Activation = nn.ReLU) -> nn.Sequential:
    """Two convolutions and a pool for each width."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((3, *widths), widths, strict=False):
        layers += [convolution(inputs, outputs, act=act), convolution(outputs, outputs, act=act), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, *head(widths[-1]))


def keywords(channels: int = 64) -> nn.Sequential:
    """A network of depthwise convolutions over 49 frames of 10 coefficients."""
    first = nn.Sequential(nn.Conv2d(1, channels, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(channels), nn.ReLU())
    blocks = [nn.Sequential(convolution(channels, channels, 3, 1, channels), convolution(channels, channels, 1)) for _ in range(4)]
    return nn.Sequential(first, *blocks, *head(channels, 12))


def detector() -> nn.Sequential:
    """Convolutions with leaky activations and pools."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64), (64, 128), (128, 256)):
        layers += [convolution(inputs, outputs, act=lambda: nn.LeakyReLU(0.1)), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, convolution(256, 512, act=lambda: nn.LeakyReLU(0.1)), nn.Conv2d(512, 75, 1))


class Residual(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, inputs: int, outputs: int, step: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, step)
        self.second = convolution(outputs, outputs, act=nn.Identity)
        self.around = nn.Identity() if inputs == outputs and step == 1 else nn.Conv2d(inputs, outputs, 1, step)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of both ways."""
        return torch.relu(self.second(self.first(x)) + self.around(x))


def residual(width: int, depth: int) -> nn.Sequential:
    """A network of residual blocks, three stages."""
    layers: list[nn.Module] = [convolution(3, width)]
    inputs = width
    for stage in range(3):
        for at in range(depth):
            outputs = width << stage
            layers.append(Residual(inputs, outputs, 2 if stage and not at else 1))
            inputs = outputs
    return nn.Sequential(*layers, *head(inputs))


class Segmentation(nn.Module):
    """A small U-net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        pair = lambda inputs, outputs: nn.Sequential(convolution(inputs, outputs), convolution(outputs, outputs))
        self.down = nn.ModuleList([pair(3, width), pair(width, 2 * width), pair(2 * width, 4 * width)])
        self.up = nn.ModuleList([pair(6 * width, 2 * width), pair(3 * width, width)])
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of two classes for every position."""
        first = self.down[0](x)
        second = self.down[1](nn.functional.max_pool2d(first, 2))
        third = self.down[2](nn.functional.max_pool2d(second, 2))
        wide = lambda value: nn.functional.interpolate(value, scale_factor=2.0)
        second = self.up[0](torch.cat([wide(third), second], 1))
        return self.out(self.up[1](torch.cat([wide(second), first], 1)))


def networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]]:
    """What builds each network, and the shape of a sample."""
    found: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
        "keywords": (keywords, (1, 49, 10)),
        "plain_32": (lambda: plain((32, 64, 128)), (3, 32, 32)),
        "plain_silu_64": (lambda: plain((32, 64, 128), nn.SiLU), (3, 64, 64)),
        "plain_leaky_64": (lambda: plain((16, 32, 64), lambda: nn.LeakyReLU(0.1)), (3, 64, 64)),
        "detector_128": (detector, (3, 128, 128)),
        "detector_224": (detector, (3, 224, 224)),
        "segmentation_96": (lambda: Segmentation(16), (3, 96, 96)),
        "segmentation_64": (lambda: Segmentation(32), (3, 64, 64)),
    }
    for width, depth, side in ((8, 1, 32), (16, 1, 32), (32, 1, 32), (16, 3, 32), (16, 1, 64), (64, 1, 16)):
        found[f"residual_{width}_{depth}_{side}"] = (lambda width=width, depth=depth: residual(width, depth), (3, side, side))
    for name, side in TORCHVISION:
        more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        found[f"{name}_{side}"] = (lambda name=name, more=more: getattr(torchvision.models, name)(**more), (3, side, side))
    for name, side in TIMM:
        found[f"timm_{name}_{side}"] = (lambda name=name: timm.create_model(name, pretrained=False), (3, side, side))
    return found


def fitted(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """The network with batch norms that fit an input."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
    with torch.no_grad():
        model(x)
    return model.eval()


def main() -> None:
    """Write all networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the models and their inputs")
    parser.add_argument("--only", nargs="+", help="names of networks; all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (build, shape) in networks().items():
        if args.only and name not in args.only:
            continue
        torch.manual_seed(0)
        x = torch.randn(BATCH, *shape)
        model = fitted(build().eval(), x)
        axes = {"x": {0: "N"}, "y": {0: "N"}}
        torch.onnx.export(
            model, (x[:1],), args.out / f"{name}.onnx", dynamo=False, opset_version=17,
            input_names=["x"], output_names=["y"], dynamic_axes=axes,
        )  # fmt: skip
        np.savez(args.out / f"{name}.npz", x=torch.randn(SAMPLES, *shape).numpy())
        print(name, flush=True)


if __name__ == "__main__":
    main()
