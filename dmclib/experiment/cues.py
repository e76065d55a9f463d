"""What Figure 5 claims, measured: how near each cue is to flow, and where."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from dmclib import codec, evaluation, training, transforms
from dmclib.evaluation import Nearness
from dmclib.experiment.tables import Run, clusters, each_split
from dmclib.training import TrainConfig, fitting
from dmclib.transforms import Sample

MACROBLOCK_PX = 16
CPU = torch.device("cpu")


def measure(
    runs: Mapping[str, Sequence[Run]],
    reference: str,
    elsewhere: Mapping[str, Sequence[Run]] | None = None,
) -> list[dict]:
    """How near the test cues are to flow, region by region, and beside one of the variants.

    Args:
        runs: variant -> finished trainings of fields of motion, as for :func:`table`.
        reference: the variant, the vectors as a rule, whose errors the others' are divided by.
        elsewhere: further variants, trained on other clips; the ``reference``'s are what they are
            tested on here.

    Returns:
        One row per variant and region (``evaluation.WHOLE`` first): ``epe_px`` and ``squared``, the
        mean end-point and squared error over pixels, px and px^2, each with ``_low`` and ``_high``;
        ``epe_ratio`` and ``squared_ratio`` to the reference, likewise; None of a region that no
        frame has, or in which the reference has no error; ``share`` of all pixels;
        ``frames``, ``clips``, ``clusters``, ``seeds``; and, for the whole picture, ``blockiness``
        (:func:`evaluation.blockiness`) with its interval. All intervals are 95 %, over
        clusters (:func:`~dmclib.experiment.tables.clusters`) and seeds.
    """
    pairs = {name: [*zip(own, own, strict=True)] for name, own in runs.items()}
    for name, own in (elsewhere or {}).items():
        pairs[name] = [*zip(runs[reference][: len(own)], own, strict=True)]
    errors, blocks, clip = _measured(pairs)
    rows, cluster = [], clusters(next(iter(runs.values()))[0])[clip]
    counted = {"frames": len(clip), "clips": len(np.unique(clip))}
    counted["clusters"] = len(np.unique(cluster))
    for name, regions in errors.items():
        for region, near in regions.items():
            far = errors[reference][region]
            row = {"variant": name, "region": region}
            for kind, of, on in (
                ("epe_px", near.epe_sum, near.pixels),
                ("squared", near.squared_sum, near.pixels),
                ("epe_ratio", near.epe_sum, far.epe_sum),
                ("squared_ratio", near.squared_sum, far.squared_sum),
            ):
                nothing = None, None, None
                value, low, high = (
                    evaluation.ratio_interval(of, on, cluster) if on.any() else nothing
                )
                row |= {kind: value, f"{kind}_low": low, f"{kind}_high": high}
            row["share"] = float(near.pixels.sum() / regions[evaluation.WHOLE].pixels.sum())
            row |= counted | {"seeds": len(pairs[name])}
            if region == evaluation.WHOLE:
                own = blocks[name]
                low, high = evaluation.clustered_interval(own, cluster)
                row |= {"blockiness": float(own.mean())}
                row |= {"blockiness_low": low, "blockiness_high": high}
            rows.append(row)
    return rows


def _measured(
    pairs: Mapping[str, Sequence[tuple[Run, Run]]],
) -> tuple[dict[str, dict[str, Nearness]], dict[str, np.ndarray], np.ndarray]:
    """Errors by variant and region, blockiness by variant, each (seeds, n); the clips (n,).

    A pair is a training whose test frames are measured on, and one whose networks are measured.
    """
    errors, blocks, clips = defaultdict(list), defaultdict(list), []
    for seed in range(max(map(len, pairs.values()))):
        of_seed = {name: own[seed] for name, own in pairs.items() if seed < len(own)}
        splits = {k: zip(*map(each_split, pair), strict=True) for k, pair in of_seed.items()}
        parts, clips, before = [], [], 0
        for configs in zip(*splits.values(), strict=True):
            for batch, clip in _batches(dict(zip(splits, configs, strict=True))):
                parts.append(batch)
                clips.append(clip + before)
            before = clips[-1].max() + 1
        for name in of_seed:
            errors[name].append(_joined([part[name][0] for part in parts], np.concatenate))
            blocks[name].append(np.concatenate([part[name][1] for part in parts]))
    joined = {name: _joined(of_seeds, np.stack) for name, of_seeds in errors.items()}
    return joined, {k: np.stack(v) for k, v in blocks.items()}, np.concatenate(clips)


@torch.inference_mode()
def _batches(
    pairs: Mapping[str, tuple[TrainConfig, TrainConfig]],
) -> Iterator[tuple[dict[str, tuple[dict[str, Nearness], np.ndarray]], np.ndarray]]:
    """Batch by batch of the test: errors and blockiness of each variant's field; the clips."""
    networks = {name: training.load_networks(trained) for name, (_, trained) in pairs.items()}
    tested = [tested for tested, _ in pairs.values()]
    blocks = macroblocks(tested[0])
    tests = [fitting.batches(config, "test", CPU, workers=None).all() for config in tested]
    for of_batch in zip(*tests, strict=True):
        flow = transforms.denormalize_motion(of_batch[0][0].flow).numpy()
        masks = evaluation.region_masks(flow)  # these cost most: once for all variants
        found = {}
        for (name, network), (sample, _, _) in zip(networks.items(), of_batch, strict=True):
            field = transforms.denormalize_motion(network.field(sample)).numpy()
            near = evaluation.nearness(field, flow, masks)
            found[name] = near, evaluation.blockiness(field, *blocks)
        yield found, of_batch[0][2].numpy()


def _joined(parts: Sequence[Mapping[str, Nearness]], join: Callable) -> dict[str, Nearness]:
    """Errors of several parts of the test frames, or of several seeds, joined region by region."""

    def joined(region: str) -> Nearness:
        sums = zip(*(vars(part[region]).values() for part in parts), strict=True)
        return Nearness(*map(join, sums))

    return {region: joined(region) for region in parts[0]}


def macroblocks(config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """In which row, and column, of macroblocks each row and column of a test field lies.

    Test crops leave a border out and are scaled, as their pictures may have been before: so the
    place of every pixel goes through the same crop. Float ``(size,)`` each.
    """
    coded = codec.probe(config.data.open().clips("test")[0].path)
    height = config.data.scaled_to or coded.height
    width = round(coded.width * height / coded.height)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([x, y, y]).float()[None]  # a picture has three planes
    sample = Sample(torch.zeros(1, 2, height, width), places)
    cropped = transforms.center_crop(sample, (config.size, config.size)).residual[0].numpy()
    side_px = MACROBLOCK_PX * height / coded.height
    rows, columns = (np.floor((p + 0.5) / side_px) for p in (cropped[1, :, 0], cropped[0, 0]))
    return rows, columns
