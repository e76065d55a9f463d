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
