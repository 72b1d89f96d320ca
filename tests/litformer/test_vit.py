"""The Vision Transformer: torch, Hugging Face, ONNX Runtime, and laws.

Sizes are different primes wherever a divisor allows it, and images are not
square, so that rows and columns cannot be exchanged unnoticed.
"""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litformer.attention import MultiHeadAttention
from litformer.images import normalise, photograph
from litformer.patches import (
    PatchEmbedding,
    interpolate_positions,
    patch_grid,
    patchify,
)
from litformer.positions import ALiBi, WithBias
from litformer.pretrained import dinov2
from litformer.rollout import attention_maps, rollout
from litformer.saliency import SaliencyDecoder
from litformer.vit import ImageClassifier, LayerScale, ViT, ViTConfig
from litformer.weight_map import load_named

B, C, P, ROWS, COLS, D, H, FF, L = 2, 3, 5, 3, 7, 22, 2, 31, 3
HEIGHT, WIDTH = ROWS * P, COLS * P


def normal(*shape, seed=0):
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make)


def redraw(module, seed=0):
    """Every parameter random: zero biases would hide mistakes."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=make) * 0.3)
    return module.eval()


def config(**changes):
    sizes = dict(
        image_size=(HEIGHT, WIDTH),
        patch_size=P,
        channels=C,
        d_model=D,
        n_layers=L,
        n_heads=H,
        d_ff=FF,
    )
    return ViTConfig(**(sizes | changes))


@pytest.fixture
def model():
    return redraw(ViT(config()))


# patches


def test_patches_are_the_squares_in_reading_order():
    images = normal(B, C, HEIGHT, WIDTH)
    got = patchify(images, P)
    assert got.shape == (B, ROWS * COLS, C * P * P)
    for i in range(ROWS):
        for j in range(COLS):
            square = images[:, :, i * P : (i + 1) * P, j * P : (j + 1) * P]
            assert torch.equal(got[:, i * COLS + j], square.flatten(1))


def test_embedding_is_a_strided_convolution_forward_and_backward():
    embed, conv = redraw(PatchEmbedding(P, D)), nn.Conv2d(C, D, P, stride=P)
    with torch.no_grad():
        conv.weight.copy_(embed.proj.weight.view_as(conv.weight))
        conv.bias.copy_(embed.proj.bias)
    a = normal(B, C, HEIGHT, WIDTH).requires_grad_()
    b = a.detach().clone().requires_grad_()
    ours, theirs = embed(a), conv(b).flatten(2).mT
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        embed.proj.weight.grad.view_as(conv.weight),
        conv.weight.grad,
        atol=1e-3,
        rtol=1e-4,
    )


@pytest.mark.parametrize("new", [(3, 7), (6, 14), (2, 3), (5, 4)])
def test_positions_resize_like_an_image(new):
    table = normal(1 + ROWS * COLS, D)
    got = interpolate_positions(table, (ROWS, COLS), new)
    plane = table[1:].view(ROWS, COLS, D).permute(2, 0, 1)[None]
    plane = F.interpolate(plane, size=new, mode="bicubic", align_corners=False)
    expected = plane[0].permute(1, 2, 0).reshape(-1, D)
    assert torch.equal(got[0], table[0])
    torch.testing.assert_close(got[1:], expected)


def test_positions_of_training_are_returned_untouched():
    table = normal(1 + ROWS * COLS, D)
    assert interpolate_positions(table, (ROWS, COLS), (ROWS, COLS)) is table


def test_a_ramp_stays_a_ramp_inside():
    """Nearly: PyTorch's cubic (a = -0.75) bends lines by a twentieth."""
    column = torch.arange(12.0).repeat(6)
    table = torch.cat([torch.zeros(1), column])[:, None]
    wide = interpolate_positions(table, (6, 12), (6, 24))[1:].view(6, 24)
    expected = (torch.arange(24.0) + 0.5) / 2 - 0.5
    expected = expected[5:-5].expand(6, -1)
    torch.testing.assert_close(wide[:, 5:-5], expected, atol=0.05, rtol=0)


# the model against Hugging Face's, with tiny random weights


def huggingface_table(scaled):
    """Names of transformers 5 to ours."""
    linear = {
        "attention.q_proj": "attn.q_proj",
        "attention.k_proj": "attn.k_proj",
        "attention.v_proj": "attn.v_proj",
        "attention.o_proj": "attn.o_proj",
        "mlp.fc1": "ff.up_proj",
        "mlp.fc2": "ff.down_proj",
    }
    norms = {"norm1": "norm_attn", "norm2": "norm_ff"}
    if not scaled:
        norms = {
            "layernorm_before": "norm_attn",
            "layernorm_after": "norm_ff",
        }
    table = {
        "embeddings.cls_token": ("class_token", torch.flatten),
        "embeddings.position_embeddings": ("positions", lambda x: x[0]),
        "embeddings.patch_embeddings.projection.weight": (
            "patches.proj.weight",
            lambda w: w.flatten(1),
        ),
        "embeddings.patch_embeddings.projection.bias": "patches.proj.bias",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
        "embeddings.mask_token": None,
    }
    for layer in ("encoder.layer.*.", "layers.*.", "encoder.layers.*."):
        for theirs, ours in (linear | norms).items():
            for p in ("weight", "bias"):
                name = ours.replace(".", ".sublayer.") if scaled else ours
                table[f"{layer}{theirs}.{p}"] = f"blocks.*.{name}.{p}"
        table[f"{layer}layer_scale1.lambda1"] = "blocks.*.attn.scale"
        table[f"{layer}layer_scale2.lambda1"] = "blocks.*.ff.scale"
    return table


SIZES = dict(
    hidden_size=D,
    num_hidden_layers=L,
    num_attention_heads=H,
    patch_size=P,
    image_size=(HEIGHT, WIDTH),
    num_channels=C,
    layer_norm_eps=1e-6,
)


@pytest.mark.parametrize(
    ("trained", "size"),
    [
        ((HEIGHT, WIDTH), (HEIGHT, WIDTH)),
        ((4 * P, 4 * P), (6 * P, 3 * P)),  # theirs resizes square grids only
    ],
)
def test_equals_hugging_faces_vit(trained, size):
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTModel

    sizes = SIZES | dict(image_size=trained, intermediate_size=FF)
    theirs = redraw(ViTModel(TheirConfig(**sizes), add_pooling_layer=False))
    ours = ViT(config(image_size=trained)).eval()
    load_named(ours, theirs.state_dict(), huggingface_table(False))
    images, other = normal(B, C, *size), trained != size
    with torch.no_grad():
        expected = theirs(images, interpolate_pos_encoding=other)
        got = ours(images)
    torch.testing.assert_close(
        got, expected.last_hidden_state, atol=1e-5, rtol=1e-5
    )


def test_equals_hugging_faces_image_classifier():
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTForImageClassification

    settings = TheirConfig(**SIZES, intermediate_size=FF, num_labels=13)
    theirs = redraw(ViTForImageClassification(settings))
    ours = ImageClassifier(ViT(config()), 13).eval()
    table = {"classifier.*": None, "classifier.weight": "head.weight"}
    table["classifier.bias"] = "head.bias"
    for name, rule in huggingface_table(False).items():
        if isinstance(rule, str):
            rule = f"encoder.{rule}"
        elif rule is not None:
            rule = (f"encoder.{rule[0]}", rule[1])
        table[f"vit.{name}"] = rule
    load_named(ours, theirs.state_dict(), table)
    images = normal(B, C, HEIGHT, WIDTH)
    with torch.no_grad():
        got, expected = ours(images), theirs(images).logits
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [(4, 4), (6, 3)])
def test_equals_hugging_faces_dinov2(grid):
    from transformers import Dinov2Config, Dinov2Model

    square = SIZES | dict(image_size=4 * P)
    settings = Dinov2Config(**square, mlp_ratio=2, layerscale_value=0.7)
    theirs = redraw(Dinov2Model(settings))
    sizes = dict(image_size=(4 * P, 4 * P), d_ff=2 * D, layer_scale=0.7)
    ours = ViT(config(**sizes)).eval()
    load_named(ours, theirs.state_dict(), huggingface_table(True))
    images = normal(B, C, grid[0] * P, grid[1] * P)
    with torch.no_grad():
        got, expected = ours(images), theirs(images).last_hidden_state
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_real_weights_at_their_own_size_equal_hugging_faces_class():
    """518 pixels, which the exported file cannot read: no interpolation."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = dict(hidden_size=384, num_attention_heads=6)
    settings = Dinov2Config(**sizes, image_size=518, patch_size=14)
    theirs, model = Dinov2Model(settings).eval(), dinov2().eval()
    ours, found = model.state_dict(), {}
    for name, tensor in theirs.state_dict().items():
        number = re.search(r"\.(\d+)\.", name)
        rule = huggingface_table(True)[re.sub(r"\.\d+\.", ".*.", name)]
        if rule is None:  # their token for masked patches
            found[name] = tensor
            continue
        same = rule if isinstance(rule, str) else rule[0]
        same = same.replace("*", number[1]) if number else same
        found[name] = ours[same].reshape(tensor.shape)
    theirs.load_state_dict(found)
    x = normalise(photograph("coffee", (518, 518))[None])
    with torch.no_grad():
        got, expected = model(x), theirs(x).last_hidden_state
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


# laws


def test_without_positions_it_sees_a_set(model):
    with torch.no_grad():
        model.positions.zero_()
        images = normal(B, C, HEIGHT, WIDTH)
        turned = images.view(B, C, ROWS, P, WIDTH).flip(2)
        a, b = model(images), model(turned.reshape(B, C, HEIGHT, WIDTH))
    torch.testing.assert_close(a[:, 0], b[:, 0], atol=1e-5, rtol=1e-5)
    plane = a[:, 1:].view(B, ROWS, COLS, D).flip(1).reshape(B, -1, D)
    torch.testing.assert_close(plane, b[:, 1:], atol=1e-5, rtol=1e-5)


def test_positions_break_the_symmetry(model):
    images = normal(B, C, HEIGHT, WIDTH)
    turned = images.view(B, C, ROWS, P, WIDTH).flip(2)
    with torch.no_grad():
        a, b = model(images), model(turned.reshape(B, C, HEIGHT, WIDTH))
    assert (a[:, 0] - b[:, 0]).abs().max() > 1e-3


def test_images_of_a_batch_do_not_meet(model):
    images = normal(B, C, HEIGHT, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(
            model(images)[1:], model(images[1:]), atol=1e-5, rtol=1e-5
        )


def test_layer_scale_multiplies_what_is_added():
    inner = nn.Linear(D, D)
    layer = LayerScale(inner, D, initial=0.25)
    x = normal(B, 4, D)
    torch.testing.assert_close(layer(x), 0.25 * inner(x))
    silent = ViT(config(layer_scale=1e-12)).eval()
    images = normal(B, C, HEIGHT, WIDTH)
    with torch.no_grad():
        first = torch.cat(
            [
                silent.class_token.expand(B, 1, D),
                silent.patches(images),
            ],
            1,
        )
        expected = silent.norm(first + silent.positions)
        torch.testing.assert_close(silent(images), expected)


def test_options_reach_the_scaled_sublayer():
    layer = LayerScale(MultiHeadAttention(D, H), D, initial=2.0)
    x, mask = normal(B, 4, D), torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(
        layer(x, mask=mask), 2 * layer.sublayer(x, mask=mask)
    )


def test_classifier_pools_as_it_says(model):
    images = normal(B, C, HEIGHT, WIDTH)
    for pool in ("class", "mean"):
        head = redraw(ImageClassifier(ViT(config()), 13, pool=pool))
        tokens = head.encoder(images)
        x = tokens[:, 0] if pool == "class" else tokens[:, 1:].mean(1)
        expected = x @ head.head.weight.T + head.head.bias
        torch.testing.assert_close(head(images), expected)


# initialisation, gradients, round trips


def test_initialisation_is_what_the_table_says():
    sizes = dict(image_size=(80, 80), d_model=96, n_heads=3, d_ff=200)
    model = ViT(config(**sizes, position_std=0.5, layer_scale=0.1))
    assert abs(model.positions.std().item() / 0.5 - 1) < 0.03
    assert abs(model.class_token.std().item() / 0.5 - 1) < 0.25
    for name, p in model.named_parameters():
        if name.endswith("proj.weight"):
            expected = math.sqrt(2 / sum(p.shape))
            assert abs(p.std().item() / expected - 1) < 0.05, name
        elif name.endswith("proj.bias"):
            assert not p.any(), name
        elif name.endswith(".scale"):
            assert torch.equal(p, torch.full_like(p, 0.1)), name
        elif "norm" in name:
            assert (p == (1.0 if name.endswith("weight") else 0.0)).all(), name
    head = ImageClassifier(model, 7)
    assert not any(p.any() for p in head.head.parameters())


def test_init_weights_can_be_called_again(model):
    model.init_weights()
    assert abs(model.positions.std().item() / 0.02 - 1) < 0.1
    assert not model.patches.proj.bias.any()


@pytest.mark.parametrize("scale", [None, 1e-5])
def test_every_parameter_gets_a_gradient(scale):
    model = ImageClassifier(ViT(config(layer_scale=scale)), 5, pool="mean")
    redraw(model)
    model(normal(B, C, HEIGHT, WIDTH)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.encoder.positions.grad.any()


def test_state_dict_round_trip(model):
    other = ViT(config()).eval()
    other.load_state_dict(model.state_dict())
    images = normal(B, C, HEIGHT, WIDTH)
    assert torch.equal(other(images), model(images))


def test_half_precision_and_device_follow_the_input(model):
    wide = model(normal(B, C, 2 * P, 4 * P))
    half = model.bfloat16()(normal(B, C, 2 * P, 4 * P).bfloat16())
    assert half.dtype == torch.bfloat16
    assert F.cosine_similarity(half.float(), wide, dim=-1).min() > 0.98


def test_presets_have_the_published_sizes():
    def count(config):
        with torch.device("meta"):
            return sum(p.numel() for p in ViT(config).parameters())

    assert count(ViTConfig()) == 21_665_664
    assert count(ViTConfig.base()) == 85_798_656
    assert count(ViTConfig.dinov2_small()) == 22_056_192
    assert ViT(ViTConfig.digits()).grid == (2, 2)


def test_it_learns_to_tell_left_from_right():
    """Which half holds the dot: needs positions, and 200 steps."""
    torch.manual_seed(0)
    sizes = dict(image_size=(8, 8), patch_size=4, channels=1, d_model=16)
    model = ImageClassifier(
        ViT(config(**sizes, position_std=0.5, n_layers=1)), 2
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    make = torch.Generator().manual_seed(0)

    def draw(n):
        place = torch.randint(64, (n,), generator=make)
        x = F.one_hot(place, 64).float().view(n, 1, 8, 8)
        return x, (place % 8 >= 4).long()

    for _ in range(200):
        x, y = draw(64)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    x, y = draw(500)
    assert (model(x).argmax(1) == y).float().mean() > 0.9


# maps


def test_maps_are_those_of_each_layer(model):
    images = normal(B, C, HEIGHT, WIDTH)
    maps = attention_maps(model, images)
    assert len(maps) == L
    x = torch.cat([model.class_token.expand(B, 1, D), model.patches(images)], 1)
    x = model.blocks[0].norm_attn(x + model.positions)
    attn = model.blocks[0].attn
    q, k = (
        y.view(B, -1, H, D // H).transpose(1, 2)
        for y in (attn.q_proj(x), attn.k_proj(x))
    )
    expected = (q @ k.mT / math.sqrt(D // H)).softmax(-1)
    torch.testing.assert_close(maps[0], expected, atol=1e-5, rtol=1e-4)
    for weights in maps:
        assert weights.shape == (B, H, 1 + ROWS * COLS, 1 + ROWS * COLS)
        torch.testing.assert_close(
            weights.sum(-1), torch.ones(weights.shape[:3])
        )


def test_looking_changes_nothing(model):
    images = normal(B, C, HEIGHT, WIDTH)
    before = model(images)
    attends = [b.attn.attend for b in model.blocks]
    attention_maps(model, images)
    assert [b.attn.attend for b in model.blocks] == attends
    assert torch.equal(model(images), before)


def test_looking_ends_when_the_model_refuses(model, unchecked):
    attends = [b.attn.attend for b in model.blocks]
    with pytest.raises(ValueError, match="multiples of patch_size"):
        attention_maps(model, normal(B, C, HEIGHT, WIDTH + 1))
    assert [b.attn.attend for b in model.blocks] == attends


def test_rollout_by_hand():
    maps = [normal(B, H, 4, 4, seed=i).softmax(-1) for i in range(3)]
    one, two, three = (
        0.5 * torch.eye(4) + 0.5 * (m[:, 0] + m[:, 1]) / 2 for m in maps
    )
    torch.testing.assert_close(rollout(maps), three @ (two @ one))
    torch.testing.assert_close(rollout(maps).sum(-1), torch.ones(B, 4))


def test_rollout_of_layers_that_stay_is_the_identity():
    stay = torch.eye(5).expand(B, H, 5, 5)
    torch.testing.assert_close(rollout([stay] * 4)[0], torch.eye(5))


def test_decoder_doubles_and_stretches():
    decoder = redraw(SaliencyDecoder(D, widths=(11, 7)))
    tokens = normal(B, 1 + ROWS * COLS, D)
    got = decoder(tokens, (ROWS, COLS), (13, 29))
    assert got.shape == (B, 1, 13, 29)
    assert 0 <= got.min() <= got.max() <= 1
    x = tokens[:, 1:].mT.reshape(B, D, ROWS, COLS)
    x = decoder.layers(x)
    assert x.shape == (B, 1, 4 * ROWS, 4 * COLS)
    expected = F.interpolate(
        x, size=(13, 29), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(got, expected.sigmoid())
    other = tokens.clone()
    other[:, 0] += 1  # the class token is not read
    assert torch.equal(decoder(other, (ROWS, COLS), (13, 29)), got)


# messages


@pytest.mark.parametrize(
    ("size", "near"),
    [
        ((15, 36), "15 x 35"),
        ((16, 35), "15 x 35"),
        ((3, 35), "5 x 35"),
        ((0, 35), "5 x 35"),
    ],
)
def test_sides_that_do_not_divide(model, unchecked, size, near):
    text = f"multiples of patch_size=5, got {size[0]} x {size[1]}.*to {near}"
    with pytest.raises(ValueError, match=text):
        model(torch.zeros(1, C, *size))
    with pytest.raises(ValueError, match="^patchify: .*" + text):
        patchify(torch.zeros(1, C, *size), P)


def test_no_patch_size():
    with pytest.raises(ValueError, match="patch_size must be at least 1"):
        patch_grid("ViT", 8, 8, 0)


def test_wrong_channels(model, unchecked):
    with pytest.raises(
        ValueError, match=r"\(B, C=3, H, W\), got \(1, 1, 15, 35\).*channels=3"
    ):
        model(torch.zeros(1, 1, HEIGHT, WIDTH))
    with pytest.raises(ValueError, match=r"got \(3, 15, 35\)"):
        model(torch.zeros(3, HEIGHT, WIDTH))


def test_bytes_are_refused(model, unchecked):
    image = torch.zeros(1, C, HEIGHT, WIDTH, dtype=torch.uint8)
    with pytest.raises(TypeError, match="uint8. Divide bytes by 255"):
        model(image)


def test_sizes_that_cannot_be_built():
    with pytest.raises(ValueError, match=r"d_model=0, channels=3"):
        PatchEmbedding(4, 0)
    with pytest.raises(ValueError, match="ViTConfig: the sides.*16 x 35"):
        config(image_size=(16, 35))
    with pytest.raises(ValueError, match="n_layers must be .* 1, got 0"):
        config(n_layers=0)
    with pytest.raises(ValueError, match="position_std must be .*, got 0"):
        config(position_std=0.0)
    with pytest.raises(ValueError, match="not divisible by n_heads=3"):
        ViT(config(n_heads=3))


def test_a_table_for_another_grid(unchecked):
    with pytest.raises(ValueError, match=r"T=22, D\), got \(21, 4\).*3, 7"):
        interpolate_positions(torch.zeros(21, 4), (3, 7), (6, 14))
    with pytest.raises(ValueError, match=r"at least 1 x 1, got \(0, 3\)"):
        interpolate_positions(torch.zeros(22, 4), (3, 7), (0, 3))


def test_unknown_pool():
    for pool, n in (("max", 3), ("class", 0)):
        with pytest.raises(ValueError, match=f"got {n} and '{pool}'"):
            ImageClassifier(ViT(config()), n, pool=pool)


def test_maps_need_attention_that_can_be_watched():
    with pytest.raises(ValueError, match="found 0 layers in Linear"):
        attention_maps(nn.Linear(2, 2), torch.zeros(1, 2))
    biased = MultiHeadAttention(D, H, attend=WithBias(ALiBi(H)))
    with pytest.raises(ValueError, match="attend= is a function"):
        attention_maps(biased, torch.zeros(1, 3, D))


def test_rollout_of_nothing(unchecked):
    with pytest.raises(ValueError, match="at least one layer"):
        rollout([])
    with pytest.raises(ValueError, match=r"got \(2, 3, 4, 5\)"):
        rollout([torch.zeros(2, 3, 4, 5)])


def test_decoder_needs_tokens_for_its_grid(unchecked):
    decoder = SaliencyDecoder(D, widths=(3,))
    with pytest.raises(ValueError, match=r"T=22, D=22\), got \(1, 21, 22"):
        decoder(torch.zeros(1, 21, D), (3, 7), (9, 9))
