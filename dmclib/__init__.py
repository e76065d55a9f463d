"""DMC-Net, step by step: the helper package behind the notebooks.

A room is a module or a folder of modules (a wing); an import goes to a room further up this list.
CONTRIBUTING.md says which sentence of the paper is where.

* ``paths``, ``errors``, ``files`` - where things live; what can go wrong; a file whole or not at
  all
* ``machine``, ``weights``, ``cluster`` - what computes here; weights on disk; work on many cores
* ``codec`` - compressed video: pictures, motion vectors, residuals (3.1)
* ``flow`` - optical flow by any method, and a clip's flow in one file
* ``transforms``, ``models``, ``i3d``, ``losses`` - crops and flips that know motion; the networks
  of Figure 3 and Table 4; equations 1 to 4
* ``fast`` - the same networks, compiled
* ``data`` - data sets, which of their frames a training sees, batches
* ``results``, ``evaluation`` - numbers with their origin; fusion, accuracy, intervals
* ``training`` - every stream and stage (4.2)
* ``prepare``, ``figures``, ``speed`` - a corpus made ready; pictures and charts; Table 3
* ``experiment``, ``recognition`` - section 4.3; the test protocol
* ``released``, ``claims`` - the authors' scores and weights, Table 4; every claim beside what was
  found
* ``reproduce``, ``doctor``, ``demo``, ``explore``, ``cli`` - notebooks and trainings run; a clip
  frame by frame; the ``dmc`` command
"""

__version__ = "0.1.0"
