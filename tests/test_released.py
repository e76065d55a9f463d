import numpy as np
import pandas as pd
import pytest

from dmclib import released, results


@pytest.mark.data
def test_the_authors_scores_give_the_published_table_to_its_digits(shared_data):
    ours = pd.DataFrame(released.hmdb51(shared_data / "released_scores" / "exp_my"))
    assert set(ours["n"]) == {1530}
    found = 100 * ours.pivot(index="method", columns="split", values="accuracy")
    expected = results.reported("released_hmdb51").set_index("method").loc[found.index]
    splits = expected[["split_1", "split_2", "split_3"]].to_numpy(float)
    np.testing.assert_allclose(found.to_numpy(), splits, atol=0.005)
    np.testing.assert_allclose(found.mean(axis=1), expected["mean"].astype(float), atol=0.005)


def test_a_folder_without_the_files_names_the_first_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"iframe_score_model_best\.npz"):
        released.hmdb51(tmp_path)
