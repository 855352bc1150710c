import pytest
import torch
from torch import nn

from gerbil_tune.config.heads import GaussianFullConfig, MixtureConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.heads.registry import build_head

UNITS = torch.tensor([286.0, 183.0])


def make_head(config, num_keypoints=1, num_axes=2):
    keypoints = ("nose", "head", "tail")[:num_keypoints]
    setup = RecordingSetup(4, 125e3, (572.0, 366.0, 400.0), keypoints=keypoints, num_axes=num_axes)
    return build_head(config, setup)


@pytest.mark.parametrize("background", [False, True])
def test_raw_outputs_are_blocks_of_gaussians_then_logits(background):
    head = make_head(MixtureConfig(num_components=2, background=background), num_keypoints=2)
    per_keypoint = 2 * 5 + 2 + background
    assert head.num_outputs == 2 * per_keypoint
    raw = torch.randn(4, head.num_outputs, generator=torch.Generator().manual_seed(0))
    density = head(raw, UNITS)
    gaussian = make_head(GaussianFullConfig())
    for keypoint, own in enumerate(raw.split(per_keypoint, dim=1)):
        for component in range(2):
            single = gaussian(own[:, 5 * component : 5 * component + 5], UNITS)
            torch.testing.assert_close(
                density.means_mm_BKMD[:, keypoint, component], single.mean_mm_BKD[:, 0]
            )
            torch.testing.assert_close(
                density.scale_tril_mm_BKMDD[:, keypoint, component],
                single.scale_tril_mm_BKMDD[:, 0, 0],
            )
        weights = own[:, 10:].softmax(1)
        torch.testing.assert_close(density.log_weights_BKM[:, keypoint].exp(), weights[:, :2])
        if background:
            torch.testing.assert_close(density.log_background_BK[:, keypoint].exp(), weights[:, 2])


@pytest.mark.parametrize("num_components", [1, 2, 5])
def test_background_starts_at_a_twentieth_over_the_arena(num_components):
    head = make_head(MixtureConfig(num_components=num_components, background=True), num_axes=3)
    readout = nn.Linear(7, head.num_outputs)
    units = torch.tensor([286.0, 183.0, 200.0])
    head.initialize_readout(readout, 91.5 / units)
    density = head(readout(torch.zeros(1, 7)), units)
    torch.testing.assert_close(density.log_background_BK.exp(), torch.full((1, 1), 0.05))
    box_mm = torch.tensor([[-286.0, -183.0, 0.0], [286.0, 183.0, 400.0]])
    torch.testing.assert_close(density.box_mm_2D, box_mm)


@pytest.mark.parametrize("num_components", [2, 3, 10])
def test_components_start_apart(num_components):
    head = make_head(MixtureConfig(num_components=num_components))
    readout = nn.Linear(7, head.num_outputs)
    head.initialize_readout(readout, 91.5 / UNITS)
    density = head(readout(torch.zeros(1, 7)), UNITS)
    apart_mm = torch.nn.functional.pdist(density.means_mm_BKMD[0, 0])
    assert (apart_mm > 40.0).all()
