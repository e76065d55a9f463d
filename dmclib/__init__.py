"""DMC-Net, step by step: the helper package behind the notebooks.

Where a thing lives; CONTRIBUTING.md has every module, and an import goes up this list only:

* ``paths``, ``errors``, ``files`` - folders; what can go wrong; files whole or not at all
* ``codec`` (over ``video``, ``vectors``, ``gops``) - compressed video: frames, vectors, residuals
* ``flow`` (over ``tvl1``, ``raft``), ``flowstore`` - optical flow, and a clip's flow in one file
* ``corpora`` (over ``lists``), ``prepare``, ``manifest`` - data sets as published, made ready
* ``transforms``, ``models``, ``losses``, ``fast`` - crops and flips that know motion; networks;
  equation 4; the generator compiled for the machine at hand
* ``puppets``, ``data``, ``loader`` - the drawn clips; which frames a clip contributes; batches
* ``config``, ``training``, ``jobs``, ``experiment`` - what a training follows from; one loop for
  every stage; in processes of their own; the comparison of section 4.3
* ``evaluation``, ``recognition``, ``stream`` - fusion and intervals; the full test protocol; scores
  as a file plays
* ``scorefiles``, ``released``, ``fusions`` - the authors' scores
* ``claims`` (over ``findings``), ``readme`` - the paper's claims beside what was found; README's
  tables
* ``figures``, ``charts``, ``diagrams`` - drawings
* ``timing``, ``bench`` and the ``bench_...`` modules - one timing protocol; speed rows
* ``results``, ``profiles``, ``runner`` (over ``grid``, ``execute``, ``runs``), ``demo``,
  ``doctor``, ``cli`` - numbers with their origin; notebooks in order, or a grid of them; the
  ``dmc`` command
"""

__version__ = "0.1.0"
