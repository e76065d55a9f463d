import torch

from dmclib import losses
from tests.close import FLOAT32


def test_classification_is_the_negative_log_of_the_softmax():
    logits, labels = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
    probability = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -probability[range(4), labels].log().mean()
    torch.testing.assert_close(losses.classification(logits, labels), expected, **FLOAT32)


def test_reconstruction_is_the_mean_of_squared_differences():
    cue, flow = torch.zeros(2, 2, 3, 3), torch.zeros(2, 2, 3, 3)
    flow[0, 0, 0, 0] = 6.0  # one value of 36 differs, by 6
    assert losses.reconstruction(cue, flow).item() == 1.0


def test_equations_2_and_3_against_their_formulas():
    fake, real = torch.randn(5, 2), torch.randn(5, 2)
    p_fake, p_real = fake.softmax(1), real.softmax(1)
    equation_2 = (-p_fake[:, losses.FAKE].log()).mean() + (-p_real[:, losses.REAL].log()).mean()
    equation_3 = (-p_fake[:, losses.REAL].log()).mean()
    torch.testing.assert_close(losses.discriminator_loss(fake, real), equation_2, **FLOAT32)
    torch.testing.assert_close(losses.generator_loss(fake), equation_3, **FLOAT32)


def test_fooling_the_discriminator_lowers_the_generators_loss():
    taken_for_real = torch.tensor([[-4.0, 4.0]])
    assert losses.generator_loss(taken_for_real) < losses.generator_loss(-taken_for_real)


def test_attention_counts_pixels_as_often_as_it_says():
    cue, flow = torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3)
    attention = torch.rand(2, 1, 3, 3)
    expected = sum(
        attention[n, 0, i, j] * (cue[n, c, i, j] - flow[n, c, i, j]) ** 2
        for n in range(2) for c in range(2) for i in range(3) for j in range(3)
    ) / (2 * 2 * 3 * 3)  # fmt: skip
    torch.testing.assert_close(losses.reconstruction(cue, flow, attention), expected, **FLOAT32)
    even = losses.reconstruction(cue, flow, torch.ones(2, 1, 3, 3))
    torch.testing.assert_close(even, losses.reconstruction(cue, flow), **FLOAT32)


def test_block_means_are_means_over_blocks_also_where_the_edge_cuts_one():
    field = torch.randn(1, 2, 40, 20)
    coarse = losses.block_means(field)
    assert coarse.shape == field.shape
    torch.testing.assert_close(coarse[0, :, 0, 0], field[0, :, :16, :16].mean((1, 2)), **FLOAT32)
    torch.testing.assert_close(coarse[0, :, 39, 19], field[0, :, 32:, 16:].mean((1, 2)), **FLOAT32)
    assert (coarse[0, 0, :16, :16] == coarse[0, 0, 0, 0]).all()
