"""A corpus made ready for training: every video re-encoded, with its flow, and a manifest.

Each video is one task: transcode to 340x256 (in its own shape if the corpus says so), GOP 12,
quantizer 1 (paper, 4.2), then the flow between successive frames of the *prepared* clip. Tasks run
in the workers of :mod:`dmclib.cluster`, so a video may crash, hang or fill its decoder without harm
to the others. A run may be killed at any moment; the next one makes again what was in hand, and
nothing else, and manifest and quarantine do not show it.

:func:`corpus.prepare` is the whole of it. No names here: they would have every worker load torch.
"""
