"""DMC-Net, step by step: the helper package behind the notebooks.

Where a thing lives; an import goes up this list only:

* ``paths``, ``errors``, ``files`` - folders; what can go wrong; files whole or not at all
* ``timing``, ``video``, ``vectors`` - one timing protocol; FFmpeg; vectors spread over pixels
* ``gops``, ``flow``, ``results`` - frames of a GOP; optical flow; numbers with their origin
* ``codec`` - compressed video: frames, vectors, residuals
* ``transforms``, ``models``, ``losses``, ``puppets`` - crops and flips that know motion; networks;
  equation 4; the drawn clips
* ``data``, ``checkpoints`` - data sets, and which frames a clip contributes; weights on disk
* ``config``, ``training``, ``evaluation`` - what a training follows from; one loop for every
  stage; scores, fusion, intervals
* ``jobs``, ``experiment``, ``released``, ``figures``, ``bench`` - trainings in processes of their
  own; the comparison of section 4.3; the authors' scores; drawings; speed rows
* ``profiles``, ``doctor``, ``runner``, ``cli`` - notebooks in order; the ``dmc`` command
"""

__version__ = "0.1.0"
